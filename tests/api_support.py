"""What API tests need: the API served for real on a free port, and viewers that leave when they are told to."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import uvicorn

from retention_platform.api.__main__ import listen
from retention_platform.api.app import create_app
from retention_platform.settings import Settings, load_settings

START_MS = 1_773_532_200_000


@contextmanager
def serving(settings: Settings) -> Iterator[httpx.Client]:
    """The API of ``settings`` on a free port, and a client of it."""
    with listen(load_settings(retention_home=settings.retention_home, api_port=0)) as listening:
        server = uvicorn.Server(uvicorn.Config(create_app(settings), log_level="critical"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        try:
            base = f"http://127.0.0.1:{listening.getsockname()[1]}"
            with httpx.Client(base_url=base, timeout=30, trust_env=False) as client:
                yield client
        finally:
            server.should_exit = True
            thread.join(20)
    assert not thread.is_alive(), "the API did not end"


def free_port() -> int:
    """A port nobody listens on."""
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def clickhouse_process(folder: Path, port: int) -> Iterator[subprocess.Popen[bytes]]:
    """An embedded ClickHouse as a process of its own that a test may kill."""
    command = [sys.executable, "-m", "retention_platform.embedded.clickhouse"]
    command += ["--path", str(folder), "--host", "127.0.0.1", "--port", str(port)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_until(lambda: answers(f"http://127.0.0.1:{port}/ping"), 60)
        yield process
    finally:
        process.kill()
        process.wait()


def answers(url: str) -> bool:
    """Whether a GET of ``url`` is answered with 200."""
    try:
        return httpx.get(url, timeout=2, trust_env=False).status_code == 200
    except httpx.HTTPError:
        return False


def wait_until(condition: Any, seconds: float) -> None:
    """Wait until ``condition()``; AssertionError after so many seconds."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"not within {seconds} s"
        time.sleep(0.05)


def path(video_id: str, what: str) -> str:
    """The path of one video's ``what``, the id percent-encoded."""
    return f"/video/{quote(video_id, safe='')}/{what}"


def watch(video_id: str, number: int, leaves_at: float, duration: float) -> list[dict[str, Any]]:
    """A session that watches from the beginning and leaves at a second; heartbeats of 10 s."""
    events, start, end = [], 0, round(leaves_at * 1000)
    while start < end:
        stop = min(end, start + 10_000)
        events.append(
            {
                "schema_version": 1,
                "event_id": str(uuid.uuid5(uuid.NAMESPACE_OID, f"{video_id}/{number}/{start}")),
                "event_type": "heartbeat",
                "event_time": START_MS + number * 7000 + stop,
                "session_id": f"{video_id[:50]}-{number}",
                "viewer_id": f"viewer-{number // 2}",
                "video_id": video_id,
                "position_ms": stop,
                "played_from_ms": start,
                "played_to_ms": stop,
                "duration_ms": round(duration * 1000),
            }
        )
        start = stop
    return events


def describe(video_id: str, **more: Any) -> dict[str, Any]:
    """A catalogue message."""
    return {"video_id": video_id, "title": f"About {video_id}"[:100], "updated_at": START_MS, **more}
