"""The process that owns a data folder: how it starts, says so and stops."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import ipaddress
import logging
import math
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import FrameType
from typing import NoReturn

import uvicorn
from filelock import FileLock, Timeout

from retention_platform import logs
from retention_platform.embedded.clickhouse.errors import AbortedError, EngineError
from retention_platform.embedded.clickhouse.protocol import Protocol
from retention_platform.embedded.clickhouse.users import User, users_of
from retention_platform.errors import RetentionError

_LOG = logging.getLogger("retention.clickhouse")

#: Seconds that requests under way have to finish when the server is stopped, those that are then cancelled to tell
#: their clients so, and the engine to close after that.
FINISH_SECONDS, TELL_SECONDS, CLOSE_SECONDS = 1.2, 0.8, 1.5
#: Seconds between two times that they are cancelled: a statement may begin late.
CANCEL_EVERY_SECONDS = 0.2
#: The engine's allocator. Each thread keeps freed pieces of up to 32 KiB for itself, a third of a MB in all, and there
#: are two or three for each of as many statements as ever ran at once: only small pieces are worth it. To give back
#: sooner what nobody keeps (dirty_decay_ms) makes inserts take twice as long.
_ALLOCATOR = "tcache_max:1024"
#: Seconds an idle connection is kept; less than the pools of common clients keep one invites lost requests.
KEEP_ALIVE_SECONDS = 30


def serve(path: Path, host: str, port: int, port_file: Path | None, users: dict[str, User]) -> None:
    """Serve ``path`` until SIGTERM or SIGINT. Raises RetentionError for a taken port or a folder in use."""
    if not _is_loopback(host) and not all(user.password for user in users.values()):
        raise RetentionError(f"{host} is open to others: set CLICKHOUSE_PASSWORD, or listen on 127.0.0.1")
    # Read by the engine when it is loaded: so late here. It tells times in the machine's zone unless told another.
    os.environ["TZ"] = "UTC"
    os.environ.setdefault("JE_MALLOC_CONF", _ALLOCATOR)
    from retention_platform.embedded.clickhouse.definitions import put_aside
    from retention_platform.embedded.clickhouse.engine import Engine
    from retention_platform.embedded.clickhouse.server import Server

    with _owned(path), _listening(host, port) as listener:
        for definition in put_aside(path):
            _LOG.warning("%s was cut short as it was written, as on a full disk: put aside, make it anew", definition)
        try:
            engine = Engine(path, users)
        except EngineError as error:
            reason = " ".join(str(error).split())
            raise RetentionError(f"cannot open the data in {path}: {reason}") from None
        config = uvicorn.Config(
            Server(engine, users),
            http=Protocol,
            lifespan="off",
            # Not behind a proxy, so nobody may say where a request comes from.
            proxy_headers=False,
            server_header=False,
            headers=[("Keep-Alive", f"timeout={KEEP_ALIVE_SECONDS}")],
            log_config=None,
            access_log=False,
            timeout_keep_alive=KEEP_ALIVE_SECONDS,
            # A whole number for uvicorn.
            timeout_graceful_shutdown=math.ceil(FINISH_SECONDS + TELL_SECONDS),
        )
        try:
            _Announcing(config, port_file, engine.cancel_all).run(sockets=[listener])
        finally:
            closing = threading.Thread(target=engine.close, daemon=True)
            closing.start()
            closing.join(CLOSE_SECONDS)


class _Announcing(uvicorn.Server):
    """uvicorn's server, that says when it answers, and cancels what has not ended soon after it is stopped."""

    def __init__(self, config: uvicorn.Config, port_file: Path | None, cancel: Callable[[], None]) -> None:
        super().__init__(config)
        self._port_file = port_file
        self._cancel = cancel

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to answer."""
        await super().startup(sockets)
        for listener in sockets or []:
            host, port, *_ = listener.getsockname()
            if self._port_file is not None:
                partial = self._port_file.with_suffix(".partial")
                partial.write_text(str(port), encoding="utf-8")
                partial.replace(self._port_file)
            print(f"listening on {host}:{port}", flush=True)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop to listen, and wait for what is under way."""
        cancelling = asyncio.create_task(self._cancel_all())
        try:
            await super().shutdown(sockets)
        finally:
            cancelling.cancel()

    async def _cancel_all(self) -> None:
        """Cancel what is under way when its time is over, and what only begins then."""
        await asyncio.sleep(FINISH_SECONDS)
        while True:
            await asyncio.get_running_loop().run_in_executor(None, self._cancel)
            await asyncio.sleep(CANCEL_EVERY_SECONDS)


def _log(environment: Mapping[str, str]) -> None:
    """Log to standard error, one line a record; a result that breaks off is no fault of the server's."""
    logs.to_stderr(logs.form_of(environment))
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
    logging.getLogger("uvicorn.error").addFilter(
        lambda record: not (record.exc_info and isinstance(record.exc_info[1], (AbortedError, asyncio.CancelledError)))
    )


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
        # Python puts the address into the error's own words.
        reason = os.strerror(error.errno) if error.errno and error.errno > 0 else error.strerror
        raise RetentionError(f"cannot listen on {host}:{port} ({reason}): choose another --port") from None
    with listener:
        yield listener


def _stop(_number: int, _frame: FrameType | None) -> NoReturn:
    raise SystemExit(0)


def run(
    path: Path, host: str, port: int, environment: Mapping[str, str] = os.environ, port_file: Path | None = None
) -> NoReturn:
    """Serve ``path`` as this process's only work; passwords are the environment's. Errors are one line."""
    # uvicorn stops at a signal and then raises it again: that, and one before it listens, is a clean end.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _stop)
    code: object = 0
    try:
        _log(environment)
        serve(path.resolve(), host, port, port_file, users_of(environment))
    except RetentionError as error:
        print(f"error: {error}", file=sys.stderr)
        code = 1
    except SystemExit as stop:
        code = stop.code or 0
    sys.stdout.flush()
    sys.stderr.flush()
    # A query that will not be cancelled must not keep the process; every acknowledged insert is on disk.
    os._exit(code if isinstance(code, int) else 1)


def main() -> None:
    """The command line of ``python -m``, which loads nothing else of the platform."""
    parser = argparse.ArgumentParser(description="ClickHouse over HTTP on one machine, on the chDB engine.")
    parser.add_argument("--path", type=Path, required=True, help="data folder; made when it does not exist")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on")
    parser.add_argument("--port", type=int, default=8123, help="port to listen on; 0 chooses a free one")
    parser.add_argument("--port-file", type=Path, help="where to write the port once it answers")
    options = parser.parse_args()
    run(options.path, options.host, options.port, port_file=options.port_file)
