"""How others start the server as a child process; loads nothing of the engine itself."""

from __future__ import annotations

import contextlib
import http.client
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from retention_platform.errors import RetentionError


@dataclass(frozen=True)
class Running:
    """A server in a child process."""

    port: int
    pid: int

    @property
    def url(self) -> str:
        """Where it answers."""
        return f"http://127.0.0.1:{self.port}"


@contextlib.contextmanager
def running(path: Path, port: int = 0, password: str = "", **environment: str) -> Iterator[Running]:
    """A server over ``path`` in a child process while the block runs; stopped and reaped afterwards.

    Port 0 chooses a free one; ``environment`` is what it finds beside this process's own. Raises RetentionError when it
    does not start; why is on standard error.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "port"
        command = [
            sys.executable,
            "-m",
            __package__,
            "--path",
            str(path),
            "--port",
            str(port),
            "--port-file",
            str(file),
        ]
        process = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, env={**os.environ, "CLICKHOUSE_PASSWORD": password, **environment}
        )
        try:
            deadline = time.monotonic() + 30
            while not _answers(file):
                if process.poll() is not None or time.monotonic() > deadline:
                    raise RetentionError("the embedded ClickHouse did not start")
                time.sleep(0.02)
            yield Running(int(file.read_text(encoding="utf-8")), process.pid)
        finally:
            # A test may have stopped it with SIGSTOP.
            process.send_signal(signal.SIGCONT)
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _answers(port_file: Path) -> bool:
    try:
        port = int(port_file.read_text(encoding="utf-8"))
        # No more of a client than this: the server's own process imports this module too, and is to start quickly.
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=5)) as connection:
            connection.request("GET", "/ping")
            return connection.getresponse().status == http.HTTPStatus.OK
    except (OSError, http.client.HTTPException):
        return False
