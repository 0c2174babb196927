"""ClickHouse over HTTP on one machine: the process that owns a data folder, and how tests start one.

The protocol is in `clickhouse_http`, the engine (chDB) behind it in `clickhouse_engine`.
"""

from __future__ import annotations

import argparse
import contextlib
import ipaddress
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import NoReturn

import httpx
import uvicorn
from filelock import FileLock, Timeout
from starlette.applications import Starlette

from retention_platform.embedded.clickhouse.engine import Engine, EngineError
from retention_platform.embedded.clickhouse.server import Server
from retention_platform.errors import RetentionError

#: Seconds that requests under way have to finish when the server is stopped, and the engine to close after that.
FINISH_SECONDS, CLOSE_SECONDS = 3, 1.5
#: Seconds an idle connection is kept; less than the pools of common clients keep one invites lost requests.
KEEP_ALIVE_SECONDS = 30


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
def running(path: Path, port: int = 0, password: str = "") -> Iterator[Running]:
    """A server over ``path`` in a child process while the block runs; stopped and reaped afterwards.

    Port 0 chooses a free one. Raises RetentionError when it does not start; why is on standard error.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "port"
        command = [sys.executable, "-m", __package__, "--path", str(path), "--port", str(port), "--port-file", str(file)]
        process = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, env={**os.environ, "CLICKHOUSE_PASSWORD": password}
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
        port = port_file.read_text(encoding="utf-8")
        return httpx.get(f"http://127.0.0.1:{port}/ping", trust_env=False).is_success
    except (OSError, httpx.TransportError):
        return False


def serve(path: Path, host: str, port: int, port_file: Path | None, password: str) -> None:
    """Serve ``path`` until SIGTERM or SIGINT. Raises RetentionError for a taken port or a folder in use."""
    if not password and not _is_loopback(host):
        raise RetentionError(f"{host} is open to others: set CLICKHOUSE_PASSWORD, or listen on 127.0.0.1")
    with _owned(path), _listening(host, port) as listener:
        try:
            engine = Engine(path)
        except EngineError as error:
            reason = " ".join(str(error).split())
            raise RetentionError(f"cannot open the data in {path}: {reason}") from None
        scratch = path.with_name(f"{path.name}.inserts")
        # Inserts that a killed process had under way were never acknowledged.
        shutil.rmtree(scratch, ignore_errors=True)
        scratch.mkdir()

        @contextlib.asynccontextmanager
        async def announce(_: Starlette) -> AsyncIterator[None]:
            address = listener.getsockname()
            if port_file is not None:
                partial = port_file.with_suffix(".partial")
                partial.write_text(str(address[1]), encoding="utf-8")
                partial.replace(port_file)
            print(f"listening on {address[0]}:{address[1]}", flush=True)
            yield

        app = Server(engine, password, scratch).app()
        app.router.lifespan_context = announce
        config = uvicorn.Config(
            app,
            log_level="warning",
            access_log=False,
            timeout_keep_alive=KEEP_ALIVE_SECONDS,
            timeout_graceful_shutdown=FINISH_SECONDS,
            h11_max_incomplete_event_size=1 << 20,
        )
        try:
            uvicorn.Server(config).run(sockets=[listener])
        finally:
            closing = threading.Thread(target=engine.close, daemon=True)
            closing.start()
            closing.join(CLOSE_SECONDS)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


@contextlib.contextmanager
def _owned(path: Path) -> Iterator[None]:
    """Hold the data folder, made if need be, while the block runs."""
    lock = FileLock(path.with_name(f"{path.name}.lock"))
    try:
        path.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=0)
    except Timeout:
        raise RetentionError(
            f"{path} is in use by another ClickHouse: stop that one, or choose another folder"
        ) from None
    except OSError as error:
        raise RetentionError(f"cannot use {path} ({error.strerror}): choose another folder with --path") from None
    with lock:
        yield


@contextlib.contextmanager
def _listening(host: str, port: int) -> Iterator[socket.socket]:
    """A socket that listens from the start, so that two servers cannot both believe the port theirs."""
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        listener = socket.create_server((host, port), family=family, backlog=2048)
    except OSError as error:
        raise RetentionError(f"cannot listen on {host}:{port} ({error.strerror}): choose another --port") from None
    with listener:
        yield listener


def _stop(_number: int, _frame: FrameType | None) -> NoReturn:
    raise SystemExit(0)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description="ClickHouse over HTTP on one machine, on the chDB engine.")
    parser.add_argument("--path", type=Path, required=True, help="data folder; made when it does not exist")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on")
    parser.add_argument("--port", type=int, default=8123, help="port to listen on; 0 chooses a free one")
    parser.add_argument("--port-file", type=Path, help="where to write the port once it answers")
    options = parser.parse_args()
    # uvicorn stops at a signal and then raises it again: that, and one before it listens, is a clean end.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _stop)
    code: object = 0
    try:
        password = os.environ.get("CLICKHOUSE_PASSWORD", "")
        serve(options.path.resolve(), options.host, options.port, options.port_file, password)
    except RetentionError as error:
        print(f"error: {error}", file=sys.stderr)
        code = 1
    except SystemExit as stop:
        code = stop.code or 0
    sys.stdout.flush()
    sys.stderr.flush()
    # A query that will not be cancelled must not keep the process; every acknowledged insert is on disk.
    os._exit(code if isinstance(code, int) else 1)


