"""The API when something is wrong: it starts without ClickHouse, says what is missing, and finds it when it comes."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from fastapi.testclient import TestClient

from retention_platform.api.app import create_app
from retention_platform.settings import Settings, load_settings
from retention_platform.warehouse.client import connect
from tests.api_support import answers, clickhouse_process, free_port, path, serving, wait_until
from tests.conftest import Warehouse

PATHS = ["/videos", *(path("a", what) for what in ("retention_curve", "significant_dropoffs", "engagement_summary"))]

#: The marts' columns that the API reads, without the engine rooms that fill them.
MARTS = [
    "create database if not exists marts",
    "create table marts.videos (video_id String, title Nullable(String), category Nullable(String),"
    " published_at Nullable(DateTime64(3, 'UTC')), chapters Array(Tuple(start_ms Int64, title String)),"
    " duration_s Nullable(Float64), duration_source String) engine = MergeTree order by video_id",
    "create table marts.engagement_summary (video_id String, views UInt64, unique_viewers UInt64, engaged_views UInt64,"
    " watch_time_s Float64, content_played_s Float64, content_watched_s Float64,"
    " average_view_duration_s Nullable(Float64), average_view_percentage Nullable(Float64),"
    " completion_rate Nullable(Float64), hook_retention_3s Nullable(Float64), intro_retention_30s Nullable(Float64),"
    " rewatch_rate Nullable(Float64), seeks_per_view Nullable(Float64), peak_concurrent_viewers UInt64,"
    " first_event_at Nullable(DateTime64(3, 'UTC')), last_event_at Nullable(DateTime64(3, 'UTC')), is_sufficient Bool,"
    " sessions UInt64, implausible_sessions UInt64, invalid_intervals UInt64,"
    " last_ingested_at Nullable(DateTime64(3, 'UTC')), computed_at DateTime64(3, 'UTC'))"
    " engine = MergeTree order by video_id",
    "insert into marts.videos (video_id, duration_source) values ('a', 'unknown')",
]


@pytest.fixture
def away(tmp_path: Path) -> Settings:
    """Settings that name a ClickHouse that is not there."""
    return load_settings(retention_home=tmp_path, clickhouse_host="127.0.0.1", clickhouse_port=free_port())


@pytest.fixture
def mute(tmp_path: Path) -> Iterator[Settings]:
    """Settings that name a server which takes connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        yield load_settings(retention_home=tmp_path, clickhouse_host="127.0.0.1", clickhouse_port=port)


def assert_unavailable(answer: httpx.Response, name: str) -> str:
    assert answer.status_code == 503, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert int(answer.headers["retry-after"]) > 0
    problem = answer.json()
    assert (problem["type"], problem["status"]) == (f"urn:retention:problem:{name}", 503)
    assert "\n" not in problem["detail"]
    assert "Traceback" not in answer.text
    return str(problem["detail"])


def test_without_clickhouse_every_figure_is_503_and_says_where_it_looked(away: Settings) -> None:
    with serving(away) as api:
        for url in PATHS:
            detail = assert_unavailable(api.get(url), "warehouse-away")
            assert f"127.0.0.1:{away.clickhouse_port}" in detail
        assert api.get("/").status_code == 200
        assert api.get("/videos?limit=0").status_code == 422, "what is wrong with the request is told all the same"


def test_a_clickhouse_that_is_killed_and_comes_back_is_found_again(away: Settings, tmp_path: Path) -> None:
    port, data = away.clickhouse_port, tmp_path / "data"
    with serving(away) as api:
        assert_unavailable(api.get("/videos"), "warehouse-away")
        with clickhouse_process(data, port) as process:
            assert_unavailable(api.get("/videos"), "marts-missing")
            client = connect(away)
            for statement in MARTS:
                client.command(statement)
            client.close()
            assert api.get("/videos").json()["total"] == 1
            process.kill()
            process.wait()
            # An answer of the version of a second ago needs no ClickHouse.
            wait_until(lambda: api.get("/videos").status_code != 200, 10)
            assert_unavailable(api.get("/videos"), "warehouse-away")
            assert api.get("/health").status_code == 503
        with clickhouse_process(data, port):
            assert api.get("/videos").json()["total"] == 1
            wait_until(lambda: api.get("/health").status_code == 200, 5)


def test_a_server_that_says_nothing_is_away_and_nobody_queues_for_it(
    mute: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("retention_platform.api.warehouse.QUERY_SECONDS", 1.0)
    with serving(mute) as api, ThreadPoolExecutor(8) as pool:
        began = time.monotonic()
        for answer in pool.map(api.get, ["/videos"] * 8):
            assert_unavailable(answer, "warehouse-away")
        assert time.monotonic() - began < 6, "each waited for the one before"


def test_marts_that_are_not_built_are_503_and_say_how_to_build_them(empty_warehouse: Warehouse) -> None:
    empty_warehouse.command("drop database marts sync")
    with serving(empty_warehouse.settings) as api:
        for url in PATHS:
            assert "retention refresh" in assert_unavailable(api.get(url), "marts-missing")
        health = api.get("/health")
        assert health.status_code == 200
        parts = health.json()["dependencies"]
        assert (parts["clickhouse"]["status"], parts["marts"]["status"]) == ("up", "down")
        empty_warehouse.command("create database marts")
        assert_unavailable(api.get("/videos"), "marts-missing")


def test_marts_of_another_version_are_503_and_say_how_to_rebuild_them(empty_warehouse: Warehouse) -> None:
    for statement in MARTS:
        empty_warehouse.command(statement)
    empty_warehouse.command("alter table marts.engagement_summary drop column sessions")
    with serving(empty_warehouse.settings) as api:
        detail = assert_unavailable(api.get(path("a", "engagement_summary")), "marts-missing")
        assert "retention refresh --full" in detail


def test_a_video_not_summarized_yet_reads_as_one_without_views(empty_warehouse: Warehouse) -> None:
    for statement in MARTS:
        empty_warehouse.command(statement)
    with serving(empty_warehouse.settings) as api:
        summary = api.get(path("a", "engagement_summary")).json()
        assert (summary["views"], summary["completion_rate"], summary["computed_at"]) == (0, None, None)
        assert summary["reason"]["code"] == "no_views"


def test_a_fault_of_ours_is_a_problem_without_its_inside(empty_warehouse: Warehouse) -> None:
    empty_warehouse.command("create table marts.videos (video_id Array(String)) engine = MergeTree order by video_id")
    for statement in [statement for statement in MARTS if "marts.videos" not in statement]:
        empty_warehouse.command(statement)
    empty_warehouse.command("alter table marts.videos add column title String, add column category String")
    empty_warehouse.command("alter table marts.videos add column published_at String, add column chapters String")
    empty_warehouse.command("alter table marts.videos add column duration_s String, add column duration_source String")
    with serving(empty_warehouse.settings) as api:
        answer = api.get(path("a", "engagement_summary"))
        assert (answer.status_code, answer.headers["content-type"]) == (500, "application/problem+json")
        assert answer.json()["type"] == "urn:retention:problem:internal-error"
        assert not {"Traceback", "marts", "select", "DB::Exception"} & set(answer.text.replace(".", " ").split())


def start(*, port: int, home: Path, **environment: str) -> subprocess.Popen[str]:
    """The API as a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "retention_platform.api"],
        env={**os.environ, "RETENTION_HOME": str(home), "API_PORT": str(port), **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_a_taken_port_is_one_line_and_exit_code_1(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        process = start(port=port, home=tmp_path)
        out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (1, "")
    assert err.count("\n") == 1
    assert err.startswith(f"error: cannot listen on 127.0.0.1:{port} (address already in use)")


def test_a_setting_that_makes_no_sense_is_one_line_and_exit_code_1(tmp_path: Path) -> None:
    process = start(port=free_port(), home=tmp_path, CLICKHOUSE_PORT="eight")
    _, err = process.communicate(timeout=60)
    assert process.returncode == 1
    assert err.count("\n") == 1
    assert err.startswith("error: CLICKHOUSE_PORT='eight'")


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_quickly_though_a_request_hangs(mute: Settings, tmp_path: Path, how: signal.Signals) -> None:
    port = free_port()
    process = start(port=port, home=tmp_path, CLICKHOUSE_PORT=str(mute.clickhouse_port))
    try:
        wait_until(lambda: answers(f"http://127.0.0.1:{port}/"), 60)
        with socket.create_connection(("127.0.0.1", port)) as hanging:
            hanging.sendall(b"GET /videos HTTP/1.1\r\nHost: x\r\n\r\n")
            time.sleep(0.3)
            process.send_signal(how)
            process.communicate(timeout=60)
            hanging.settimeout(10)
            assert b"503" not in hanging.recv(100), "it waited until the warehouse was given up"
    finally:
        process.kill()
        process.communicate()


def test_the_documentation_page_asks_nobody_else_for_its_scripts() -> None:
    client = TestClient(create_app(load_settings()))
    page = client.get("/docs").text
    sources = re.findall(r'(?:src|href)="([^"]+)"', page)
    assert sources
    for source in sources:
        assert source.startswith("/"), source
        assert client.get(source).status_code == 200
