"""What the API tells of Dagster's runs: as its webserver says, and why nothing when it is away."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timezone
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from retention_platform.api.runs import newest_runs
from retention_platform.settings import load_settings
from tests.api_support import free_port


@contextmanager
def dagster(answer: Any) -> Iterator[tuple[int, list[Any]]]:
    """A webserver that answers every query so; its port, and what it was asked."""
    asked: list[Any] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            body = json.dumps(answer).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield server.server_port, asked
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def run(**more: Any) -> dict[str, Any]:
    return {
        "runId": "abc",
        "jobName": "marts",
        "status": "SUCCESS",
        "creationTime": 1_773_532_200.0,
        "startTime": 1_773_532_201.5,
        "endTime": 1_773_532_209.0,
        **more,
    }


def test_runs_are_told_as_dagster_says() -> None:
    rows = [run(jobName="__ASSET_JOB", status="STARTED", endTime=None), run()]
    with dagster({"data": {"runsOrError": {"results": rows}}}) as (port, asked):
        found = newest_runs(load_settings(dagster_port=port), 7)
    assert asked[0]["variables"] == {"limit": 7}
    assert (found.reason, found.dagster_url) == (None, f"http://127.0.0.1:{port}")
    assert [(one.job, one.status, one.ended_at is None) for one in found.runs] == [
        ("assets", "STARTED", True),
        ("marts", "SUCCESS", False),
    ]
    assert found.runs[1].created_at == datetime(2026, 3, 14, 23, 50, tzinfo=timezone.utc)


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        ({"data": {"runsOrError": {"results": []}}}, "no_runs"),
        ({"data": {"runsOrError": {"message": "no storage"}}}, "away"),
        ({"errors": [{"message": "no such field"}]}, "away"),
    ],
)
def test_without_runs_there_is_a_reason(answer: Any, code: str) -> None:
    with dagster(answer) as (port, _):
        found = newest_runs(load_settings(dagster_port=port), 5)
    assert found.runs == []
    assert found.reason is not None and found.reason.code == code


def test_a_dagster_that_is_away_is_told_in_one_line() -> None:
    found = newest_runs(load_settings(dagster_port=free_port()), 5)
    assert found.reason is not None and found.reason.code == "away"
    assert "does not answer" in found.reason.text and "\n" not in found.reason.text
