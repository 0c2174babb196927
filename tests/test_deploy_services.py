"""Our services as processes: what they log with LOG_FORMAT=json, and how they end when they are told to.

Dagster's, which need Postgres, are in test_deploy_dagster.py.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from confluent_kafka import Producer
from websockets.sync.client import connect as open_websocket

from retention_platform.contract import EVENTS_TOPIC
from retention_platform.embedded import broker as embedded_broker
from retention_platform.embedded import clickhouse as embedded_clickhouse
from retention_platform.embedded.clickhouse.launch import Running
from retention_platform.errors import SettingsError
from retention_platform.ingest.broker import group_lag
from retention_platform.logs import form_of
from retention_platform.settings import load_settings
from retention_platform.warehouse.client import connect
from retention_platform.warehouse.migrate import migrate
from tests.api_support import free_port, wait_until, watch

PATIENCE = 120.0
#: What a service may take to end.
SECONDS_TO_END = 10.0


class Service:
    """A process of ours that logs in JSON into a file of its own, until it is told to end."""

    def __init__(self, folder: Path, *arguments: str, **environment: str) -> None:
        self.log = folder / "service.log"
        with self.log.open("ab") as out:
            self._process = subprocess.Popen(
                [sys.executable, "-m", *arguments],
                env={**os.environ, "RETENTION_HOME": str(folder), "LOG_FORMAT": "json", **environment},
                stdout=subprocess.DEVNULL,
                stderr=out,
            )

    def __enter__(self) -> Service:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()

    def answers_at(self, url: str, status: int = 200) -> None:
        """Wait until it does, with this status."""

        def is_there() -> bool:
            assert self._process.poll() is None, self.log.read_text()
            with contextlib.suppress(httpx.TransportError):
                return httpx.get(url, timeout=2, trust_env=False).status_code == status
            return False

        wait_until(is_there, PATIENCE)

    def told_to_end(self) -> float:
        """Tell it; the moment when it was."""
        self._process.terminate()
        return time.monotonic()

    def ended_in_time(self, told_at: float) -> None:
        assert self._process.wait(PATIENCE) in (0, -signal.SIGTERM), self.log.read_text()
        assert time.monotonic() - told_at < SECONDS_TO_END

    def records(self) -> list[dict[str, Any]]:
        """What it logged: every line is an object."""
        found = [json.loads(line) for line in self.log.read_text().splitlines()]
        for record in found:
            assert {"timestamp", "level", "logger", "event"} <= record.keys()
        return found


@pytest.fixture
def broker() -> Iterator[str]:
    """With nothing but this test's messages."""
    with embedded_broker.running() as address:
        yield address


@pytest.fixture(scope="module")
def clickhouse(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """With the schema and nothing in it, to be frozen by its pid."""
    folder = tmp_path_factory.mktemp("clickhouse")
    with embedded_clickhouse.running(folder / "data") as server:
        client = connect(load_settings(clickhouse_port=server.port))
        migrate(client)
        client.close()
        yield server


def test_the_api_finishes_an_answer_under_way_and_logs_json(clickhouse: Running, tmp_path: Path) -> None:
    port = free_port()
    places = {"API_PORT": str(port), "CLICKHOUSE_PORT": str(clickhouse.port)}
    # However busy this machine is, the answer comes to its end.
    with Service(tmp_path, "retention_platform.api", API_STOP_SECONDS="60", **places) as api:
        api.answers_at(f"http://127.0.0.1:{port}/")
        got: list[httpx.Response] = []

        def ask() -> None:
            got.append(httpx.get(f"http://127.0.0.1:{port}/videos?limit=1", timeout=PATIENCE, trust_env=False))

        def refuses() -> bool:
            with socket.socket() as probe:
                return probe.connect_ex(("127.0.0.1", port)) != 0

        asking = threading.Thread(target=ask)
        os.kill(clickhouse.pid, signal.SIGSTOP)
        try:
            asking.start()
            # Long enough for the request to have come; were it not, nobody would answer it.
            time.sleep(1)
            told_at = api.told_to_end()
            wait_until(refuses, PATIENCE)
        finally:
            os.kill(clickhouse.pid, signal.SIGCONT)
        asking.join(PATIENCE)
        api.ended_in_time(told_at)
        # ClickHouse's own word, that nobody has made the marts: the API waited for it.
        assert [answer.json()["type"] for answer in got] == ["urn:retention:problem:marts-missing"]
        records = api.records()
    asked = [record for record in records if record["logger"] == "retention.access" and record["path"] == "/videos"]
    assert [(one["method"], one["status"], one["level"]) for one in asked] == [("GET", 503, "info")]
    assert asked[0]["request_id"] == got[0].headers["x-request-id"] and asked[0]["bytes"] == len(got[0].content)
    assert any(record["logger"] == "uvicorn.error" for record in records)


def test_the_dashboard_ends_though_a_page_is_open_and_logs_json(tmp_path: Path) -> None:
    port = free_port()
    places = {"DASHBOARD_PORT": str(port), "API_BASE_URL": f"http://127.0.0.1:{free_port()}"}
    with Service(tmp_path, "retention_platform.dashboard", **places) as dashboard:
        dashboard.answers_at(f"http://127.0.0.1:{port}/_stcore/health")
        with open_websocket(f"ws://127.0.0.1:{port}/_stcore/stream", proxy=None, open_timeout=PATIENCE) as page:
            page.send(b"\xffnot what Streamlit speaks")
            wait_until(lambda: dashboard.log.stat().st_size > 0, PATIENCE)
            dashboard.ended_in_time(dashboard.told_to_end())
        told = [record for record in dashboard.records() if record["logger"].startswith("streamlit")]
        assert told and "Traceback" in told[0]["exception"]


def test_the_documentation_ends_and_logs_json(tmp_path: Path) -> None:
    port = free_port()
    with Service(tmp_path, "retention_platform.docs_site", DOCS_PORT=str(port)) as site:
        # There is nothing, so that the project need not be read.
        site.answers_at(f"http://127.0.0.1:{port}/none", status=404)
        site.ended_in_time(site.told_to_end())
        site.records()


def test_ingest_stops_between_two_batches_and_logs_json(clickhouse: Running, broker: str, tmp_path: Path) -> None:
    port = free_port()
    places = {"CLICKHOUSE_PORT": str(clickhouse.port), "KAFKA_BOOTSTRAP_SERVERS": broker, "KAFKA_LOG_ID": "test-log"}
    settings = load_settings(clickhouse_port=clickhouse.port, kafka_bootstrap_servers=broker, kafka_log_id="test-log")
    producer = Producer({"bootstrap.servers": broker, "enable.idempotence": True})

    def send(first: int) -> None:
        for number in range(first, first + 2000):
            (event,) = watch("ends", number, 5, 60)
            producer.produce(EVENTS_TOPIC, json.dumps(event).encode(), key=event["session_id"])
        assert producer.flush(60) == 0

    client = connect(settings)

    def stored() -> int:
        return int(client.query("select count() from raw.playback_events where video_id = 'ends'").result_rows[0][0])

    def read() -> int:
        """What the group has been given for good: where it would go on."""
        return sum(place.end - place.low - place.lag for place in group_lag(settings) if place.topic == EVENTS_TOPIC)

    with Service(
        tmp_path,
        *("retention_platform.cli", "ingest"),
        INGEST_METRICS_PORT=str(port),
        INGEST_BATCH_ROWS="100",
        **places,
    ) as ingest:
        send(0)
        wait_until(lambda: stored() > 0, PATIENCE)
        send(2000)
        ingest.ended_in_time(ingest.told_to_end())
        assert 0 < stored() == read()
        records = ingest.records()
    client.close()
    assert {record["logger"] for record in records} == {"retention.ingest"}


def test_clickhouse_ends_while_rows_come_and_keeps_those_it_acknowledged(tmp_path: Path) -> None:
    port = free_port()
    arguments = ("retention_platform.embedded.clickhouse", "--path", str(tmp_path / "data"), "--port", str(port))
    url = f"http://127.0.0.1:{port}"
    acknowledged: list[str] = []

    def insert() -> None:
        with contextlib.suppress(httpx.TransportError), httpx.Client(trust_env=False, timeout=PATIENCE) as client:
            while True:
                row = str(uuid.uuid4())
                answer = client.post(url, content=f"insert into default.t values ('{row}')")
                if answer.status_code == 200:
                    acknowledged.append(row)

    with Service(tmp_path, *arguments) as server:
        server.answers_at(f"{url}/ping")
        made = httpx.post(url, content="create table default.t (x UUID) engine = MergeTree order by x", trust_env=False)
        assert made.status_code == 200
        threads = [threading.Thread(target=insert) for _ in range(3)]
        for thread in threads:
            thread.start()
        wait_until(lambda: len(acknowledged) > 50, PATIENCE)
        server.ended_in_time(server.told_to_end())
        for thread in threads:
            thread.join(PATIENCE)
    with Service(tmp_path, *arguments) as server:
        server.answers_at(f"{url}/ping")
        found = httpx.post(url, content="select x from default.t", trust_env=False).text.split()
        assert set(acknowledged) <= set(found) and len(found) == len(set(found))
        # Only from the insert on which the server ended may somebody not have heard.
        assert len(found) <= len(acknowledged) + len(threads)
        refused = httpx.post(url, content="select nothing from nowhere", trust_env=False)
        assert refused.status_code == 404
        server.ended_in_time(server.told_to_end())
        server.records()


def test_an_unknown_form_is_told_in_one_line(tmp_path: Path) -> None:
    assert form_of({"LOG_FORMAT": ""}) == "colored"
    with pytest.raises(SettingsError, match="LOG_FORMAT='xml' cannot be used: choose one of colored, json"):
        form_of({"LOG_FORMAT": "xml"})
    with pytest.raises(SettingsError, match="LOG_FORMAT='xml' cannot be used"):
        load_settings(retention_home=tmp_path, log_format="xml")


def test_a_line_of_json_holds_what_is_in_the_record_and_nothing_breaks_it() -> None:
    script = """
import logging, threading
from retention_platform import logs
logs.to_stderr("json")
logging.getLogger("a.b").warning("two\\nlines of %s \\u2028", "x", extra={"rows": 3})
def fail():
    raise ValueError("in a thread")
thread = threading.Thread(target=fail)
thread.start()
thread.join()
raise RuntimeError("at the end")
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, timeout=PATIENCE, check=False)
    assert done.returncode == 1
    first, second, third = (json.loads(line) for line in done.stderr.splitlines())
    assert first | {"timestamp": ""} == {
        "timestamp": "",
        "level": "warning",
        "logger": "a.b",
        "event": "two\nlines of x \u2028",
        "rows": 3,
    }
    assert "ValueError: in a thread" in second["exception"]
    assert (third["level"], third["exception"].splitlines()[-1]) == ("critical", "RuntimeError: at the end")
