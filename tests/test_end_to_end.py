"""The whole stack as its user meets it: started, watched, fed with real viewers, killed, resumed, stopped."""

from __future__ import annotations

import json
import math
import os
import re
import signal
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from retention_platform.embedded.stack import Home
from retention_platform.embedded.supervisor import Supervisor
from retention_platform.embedded.up import free_port
from tests.xapi_truth import STATEMENTS, Watched, lengths_s, needs_statements, watched_sessions

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]


@dataclass(frozen=True)
class StackUnderTest:
    """A state folder and free ports of its own."""

    home: Path
    env: dict[str, str]

    @property
    def api(self) -> str:
        return f"http://127.0.0.1:{self.env['API_PORT']}"

    def retention(self, *arguments: str, seconds: float = 240, **env: str) -> subprocess.CompletedProcess[str]:
        """Run the command to its end."""
        return subprocess.run(
            [sys.executable, "-m", "retention_platform.cli", *arguments],
            env={**self.env, **env},
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )

    def up(self) -> subprocess.CompletedProcess[str]:
        return self.retention("up", "--detach", "--history-days", "3", "--sessions", "400", "--viewers", "1..2")

    def sql(self, query: str) -> list[dict[str, Any]]:
        answer = httpx.post(
            f"http://127.0.0.1:{self.env['CLICKHOUSE_PORT']}", content=f"{query} format JSONEachRow", timeout=30
        )
        assert answer.is_success, answer.text
        return [json.loads(line) for line in answer.text.splitlines()]

    def processes(self) -> list[psutil.Process]:
        """Everything that runs for this state folder."""
        found = []
        for process in psutil.process_iter():
            try:
                mine = process.environ().get("RETENTION_HOME") == str(self.home)
            except (psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess):
                continue
            if mine and process.pid != os.getpid():
                found.append(process)
        return found


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StackUnderTest]:
    home = tmp_path_factory.mktemp("stack")
    clean = {
        k: v for k, v in os.environ.items() if not k.startswith(("CLICKHOUSE_", "KAFKA_", "RETENTION_", "DAGSTER_"))
    }
    names = ("CLICKHOUSE_PORT", "API_PORT", "DAGSTER_PORT", "DOCS_PORT", "DASHBOARD_PORT")
    ports = {name: str(free_port()) for name in names}
    made = StackUnderTest(home, {**clean, **ports, "RETENTION_HOME": str(home)})
    started = made.up()
    try:
        assert started.returncode == 0, started.stdout + started.stderr
        yield made
    finally:
        made.retention("down")
        left = made.processes()
        for process in left:
            process.kill()
        assert not left


def wait_until(condition: Callable[[], bool], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.3)


def test_a_started_stack_has_every_part_up_and_shows_the_history(stack: StackUnderTest) -> None:
    told = stack.retention("status", "--json")
    parts = json.loads(told.stdout)
    assert told.returncode == 0, told.stdout
    assert {part["name"] for part in parts} == {
        "broker",
        "clickhouse",
        "ingest",
        "producer",
        "dagster",
        "api",
        "docs",
        "dashboard",
        "marts",
    }
    page = httpx.get(f"http://127.0.0.1:{stack.env['DASHBOARD_PORT']}/video", timeout=10)
    assert "PlotlyChart" in page.headers["link"]
    videos = httpx.get(f"{stack.api}/videos", timeout=10).json()
    assert videos["total"] == 12
    assert sum(video["views"] for video in videos["videos"]) >= 400
    curve = httpx.get(f"{stack.api}/video/demo-05/retention_curve", timeout=10)
    assert curve.status_code == 200
    assert httpx.get(f"{stack.api}/video/no-such-video/retention_curve", timeout=10).status_code == 404


def test_the_stored_events_are_those_of_the_simulator(stack: StackUnderTest) -> None:
    plan = json.loads((stack.home / "history.json").read_text())
    command = ["produce", "--history", str(plan["days"]), "--sessions", str(plan["sessions"])]
    printed = stack.retention(*command, "--seed", str(plan["seed"]), "--end", plan["end"], "--dry-run")
    messages = [json.loads(line) for line in printed.stdout.splitlines()]
    expected = {message["event_id"] for message in messages if "event_id" in message}
    assert len(expected) > 5000
    stored = {row["id"] for row in stack.sql("select toString(event_id) as id from raw.playback_events final")}
    assert expected <= stored


@pytest.mark.parametrize("same", ["folder", "ports"])
def test_a_second_run_on_the_same_folder_or_ports_is_refused_in_one_line(
    stack: StackUnderTest, same: str, tmp_path: Path
) -> None:
    home = stack.home if same == "folder" else tmp_path
    refused = stack.retention("up", RETENTION_HOME=str(home))
    assert refused.returncode == 1
    assert refused.stderr.startswith("error: ")
    assert len(refused.stderr.strip().splitlines()) == 1
    assert ("in use by another run" if same == "folder" else "CLICKHOUSE_PORT") in refused.stderr
    assert not Supervisor(Home(tmp_path)).is_up()


def expected_curve(sessions: list[Watched], seconds: int, duration_ms: int) -> list[int]:
    """Views watching at each whole second, one look at every session for every second."""
    counts = [0] * seconds
    for watched in sessions:
        seen = set()
        for start, end in watched.segments:
            for second in range(math.ceil(start / 1000), math.ceil(min(end, duration_ms) / 1000)):
                seen.add(second)
        for second in seen:
            counts[second] += 1
    return counts


def covered_ms(segments: list[tuple[int, int]]) -> int:
    mask = bytearray(max(end for _, end in segments))
    for start, end in segments:
        mask[start:end] = b"\1" * (end - start)
    return mask.count(1)


@needs_statements
def test_the_real_viewers_of_ten_videos_come_out_of_dagster_as_brute_force_says(stack: StackUnderTest) -> None:
    imported = stack.retention("import", "xapi", str(STATEMENTS))
    assert imported.returncode == 0, imported.stderr
    truth: dict[str, list[Watched]] = defaultdict(list)
    for watched in watched_sessions().values():
        truth[watched.video_id].append(watched)
    lengths = lengths_s()

    def summaries() -> dict[str, dict[str, Any]]:
        rows = stack.sql("select * from marts.engagement_summary where video_id not like 'demo-%'")
        return {row["video_id"]: row for row in rows}

    # Nobody presses a button: Dagster's sensor sees the new events and materializes the marts.
    expected_views = {video_id: len(sessions) for video_id, sessions in truth.items()}
    wait_until(lambda: {v: int(row["views"]) for v, row in summaries().items()} == expected_views, 120)
    # A refresh makes one mart after the other: the curves may come after the summaries.
    curves = "select distinct video_id, views from marts.retention_curve where video_id not like 'demo-%'"
    wait_until(lambda: {row["video_id"]: int(row["views"]) for row in stack.sql(curves)} == expected_views, 120)
    assert len(expected_views) == 10

    for video_id, row in summaries().items():
        sessions, duration_ms = truth[video_id], round(lengths[video_id] * 1000)
        for watched in sessions:
            assert all(end <= duration_ms + 1000 for _, end in watched.segments)
            watched.segments[:] = [
                (start, min(end, duration_ms)) for start, end in watched.segments if start < duration_ms
            ]
        seconds = math.ceil(duration_ms / 1000)
        answer = httpx.get(f"{stack.api}/video/{video_id}/retention_curve", timeout=30).json()
        curve = expected_curve(sessions, seconds, duration_ms)
        assert [point["second"] for point in answer["points"]] == list(range(seconds))
        assert [point["watching_views"] for point in answer["points"]] == curve
        for point, watching in zip(answer["points"], curve, strict=True):
            assert point["retention_rate"] == pytest.approx(watching / len(sessions), abs=1e-12)
        finish = max(duration_ms - 30_000, 0.95 * duration_ms)
        completed = sum(max(end for _, end in watched.segments) > finish for watched in sessions)
        assert row["completion_rate"] == pytest.approx(completed / len(sessions), abs=1e-12)
        percentages = [100 * covered_ms(watched.segments) / duration_ms for watched in sessions]
        assert row["average_view_percentage"] == pytest.approx(sum(percentages) / len(percentages), abs=1e-9)
        assert row["unique_viewers"] == len({watched.viewer_id for watched in sessions})

    again = stack.retention("import", "xapi", str(STATEMENTS))
    assert "known before" in again.stdout
    stack.retention("refresh")
    assert {v: int(row["views"]) for v, row in summaries().items()} == expected_views


def test_a_part_that_dies_ends_the_run_in_one_line_and_the_next_run_resumes_with_all_data(
    stack: StackUnderTest,
) -> None:
    before = stack.sql("select count() as n from raw.playback_events")[0]["n"]
    pid = Supervisor(Home(stack.home)).states()["ingest"]["pid"]
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not stack.processes(), 30)
    last = (stack.home / "logs" / "up.log").read_text().strip().splitlines()[-1]
    assert last.startswith("error: Ingest was killed")
    resumed = stack.up()
    assert resumed.returncode == 0, resumed.stdout + resumed.stderr
    assert "days of history" not in resumed.stdout
    assert stack.sql("select count() as n from raw.playback_events")[0]["n"] >= before
    assert httpx.get(f"{stack.api}/videos", timeout=10).json()["total"] >= 12


def test_down_stops_everything_within_ten_seconds_and_loses_no_event(stack: StackUnderTest) -> None:
    assert stack.retention("down").returncode == 0
    assert not stack.processes()
    stopped = re.search(r"stopped in ([\d.]+) s", (stack.home / "logs" / "up.log").read_text())
    assert stopped is not None
    assert float(stopped[1]) < 10
    assert "nothing runs" in stack.retention("down").stdout
    told = stack.retention("status")
    assert told.returncode == 1
    assert "Traceback" not in told.stderr
