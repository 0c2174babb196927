"""The API and the dashboard as processes of their own, over a benchmark's warehouse."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Literal

import httpx

from benchmarks.marts import Bench

#: What each part answers when it is ready, and how the others are told its address.
_READY = {"api": "/videos?limit=1", "dashboard": "/_stcore/health"}
SECONDS = 60


@contextlib.contextmanager
def serving(bench: Bench, part: Literal["api", "dashboard"], **more: str) -> Iterator[str]:
    """The part on a free port, with ``more`` environment variables; its address. Raises when it does not come up."""
    port = free_port()
    environment = {
        **os.environ,
        "RETENTION_HOME": str(bench.folder),
        "CLICKHOUSE_PORT": str(bench.settings.clickhouse_port),
        f"{part.upper()}_PORT": str(port),
        **more,
    }
    command = [sys.executable, "-m", f"retention_platform.{part}"]
    with subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            address = f"http://127.0.0.1:{port}"
            end = time.monotonic() + SECONDS
            while not _ready(f"{address}{_READY[part]}"):
                if process.poll() is not None or time.monotonic() > end:
                    raise RuntimeError(f"the {part} did not come up")
                time.sleep(0.2)
            yield address
        finally:
            process.terminate()


def _ready(url: str) -> bool:
    with contextlib.suppress(httpx.HTTPError):
        return httpx.get(url, timeout=5).is_success
    return False


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
