"""ClickHouse over HTTP on one machine: the real engine (chDB) behind the server's own protocol.

One process owns a data folder; every request gets a handle of its own, so settings never leak from one to the next,
and what must last (temporary tables, SET) lasts in a session. Bodies are streamed to disk, never held in memory.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import contextlib
import hmac
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import uuid
import zlib
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import chdb
import lz4.frame
import uvicorn
from filelock import FileLock, Timeout
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from retention_platform.embedded.clickhouse_query import (
    code_of,
    format_of,
    insert_with_body,
    settings_of,
    split_insert,
    status_of,
)
from retention_platform.errors import RetentionError

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

#: Threads that run queries; the engine parallelizes each one by itself.
QUERY_THREADS = 16
#: How much of a body may be the text of an INSERT before its data.
MAX_INSERT_TEXT = 256 * 1024
#: Longest query text without data, as the server's max_query_size.
MAX_QUERY_TEXT = 16 * 1024 * 1024

_CONFIG = """<clickhouse>
    <max_server_memory_usage>{memory}</max_server_memory_usage>
    <background_pool_size>2</background_pool_size>
    <background_merges_mutations_concurrency_ratio>2</background_merges_mutations_concurrency_ratio>
    <background_schedule_pool_size>4</background_schedule_pool_size>
    <mark_cache_size>536870912</mark_cache_size>
</clickhouse>
"""
MEMORY_LIMIT = 8 * 1024**3


class EngineError(Exception):
    """An exception of the engine, with its code."""

    def __init__(self, message: str, code: int | None = None) -> None:
        super().__init__(message.strip())
        self.code = code_of(message) if code is None else code

    @property
    def body(self) -> str:
        """The text as the server sends it."""
        text = str(self)
        return text if text.startswith("Code:") else f"Code: {self.code}. DB::Exception: {text}"


@dataclass
class Result:
    """A query's answer."""

    data: bytes
    format: str
    read_rows: int = 0
    read_bytes: int = 0
    written_rows: int = 0
    written_bytes: int = 0
    seconds: float = 0.0

    @property
    def summary(self) -> str:
        """X-ClickHouse-Summary: every number a string, as the server writes them."""
        values = {
            "read_rows": self.read_rows,
            "read_bytes": self.read_bytes,
            "written_rows": self.written_rows,
            "written_bytes": self.written_bytes,
            "total_rows_to_read": 0,
            "result_rows": 0,
            "result_bytes": len(self.data),
            "elapsed_ns": int(self.seconds * 1e9),
        }
        return json.dumps({name: str(value) for name, value in values.items()})


@dataclass
class Session:
    """A handle that outlives a request, for temporary tables and SET."""

    handle: Any
    timeout: float
    busy: threading.Lock = field(default_factory=threading.Lock)
    last_used: float = field(default_factory=time.monotonic)


class Engine:
    """The engine over one data folder, and its sessions."""

    def __init__(self, path: Path) -> None:
        config = path.parent / f"{path.name}.config.xml"
        config.write_text(_CONFIG.format(memory=MEMORY_LIMIT), encoding="utf-8")
        self._target = str(path)
        self._config = str(config)
        self._sessions: dict[str, Session] = {}
        self._guard = threading.Lock()
        # The first connection opens the folder and keeps it open.
        self._owner = self._open()

    def close(self) -> None:
        """Close every handle; what was inserted is on disk already."""
        for session in self._sessions.values():
            session.handle.close()
        self._owner.close()

    def run(self, statement: str, output: str, setup: list[str], session: Session | None = None) -> Result:
        """Run one statement after the ``setup`` ones. Raises EngineError."""
        began = time.monotonic()
        handle = session.handle if session else self._open()
        try:
            for line in setup:
                handle.query(line)
            answer = handle.query(statement, output)
            data = answer.bytes() if answer is not None else b""
            return Result(
                data=data or b"",
                format=output,
                read_rows=answer.storage_rows_read() if answer is not None else 0,
                read_bytes=answer.storage_bytes_read() if answer is not None else 0,
                written_rows=answer.rows_written() if answer is not None else 0,
                written_bytes=answer.bytes_written() if answer is not None else 0,
                seconds=time.monotonic() - began,
            )
        except Exception as error:  # chDB raises RuntimeError and its own kinds alike
            raise EngineError(str(error)) from None
        finally:
            if session is None:
                handle.close()

    def session(self, name: str, timeout: float, must_exist: bool) -> Session:
        """The session of that name, locked for the caller. Raises EngineError as the server does."""
        with self._guard:
            self._expire()
            session = self._sessions.get(name)
            if session is None:
                if must_exist:
                    raise EngineError(f"Session {name} not found. (SESSION_NOT_FOUND)", 372)
                session = self._sessions[name] = Session(self._open(), timeout)
            if not session.busy.acquire(blocking=False):
                raise EngineError(f"Session {name} is locked by a concurrent client. (SESSION_IS_LOCKED)", 373)
            session.last_used = time.monotonic()
            return session

    def _expire(self) -> None:
        now = time.monotonic()
        for name, session in list(self._sessions.items()):
            if now - session.last_used > session.timeout and session.busy.acquire(blocking=False):
                del self._sessions[name]
                session.handle.close()

    def _open(self) -> Any:
        return chdb.connect(f"{self._target}?config-file={self._config}")  # type: ignore[no-untyped-call]


class Server:
    """The HTTP side: requests to statements, answers to responses."""

    def __init__(self, engine: Engine, password: str) -> None:
        self._engine = engine
        self._password = password
        self._pool = ThreadPoolExecutor(QUERY_THREADS, thread_name_prefix="query")

    def app(self) -> Starlette:
        """The ASGI application."""
        return Starlette(
            routes=[
                Route("/ping", _ok, methods=["GET", "HEAD"]),
                Route("/replicas_status", _ok, methods=["GET", "HEAD"]),
                Route("/", self._handle, methods=["GET", "HEAD", "POST", "OPTIONS"]),
            ]
        )

    async def _handle(self, request: Request) -> Response:
        parameters = dict(request.query_params)
        if request.method in ("GET", "HEAD") and "query" not in parameters:
            return PlainTextResponse("Ok.\n")
        query_id = parameters.get("query_id") or str(uuid.uuid4())
        headers = {
            "X-ClickHouse-Server-Display-Name": "retention",
            "X-ClickHouse-Query-Id": query_id,
            "X-ClickHouse-Timezone": "UTC",
        }
        with tempfile.TemporaryFile() as body:
            try:
                self._authenticate(request, parameters)
                await _receive(request, body)
                result = await self._answer(request, parameters, body)
            except EngineError as error:
                code = str(error.code)
                return PlainTextResponse(
                    error.body + "\n",
                    status_of(error.code),
                    {**headers, "X-ClickHouse-Exception-Code": code},
                )
            except ClientDisconnect:
                return Response(status_code=499)
        headers |= {"X-ClickHouse-Format": result.format, "X-ClickHouse-Summary": result.summary}
        data, encoding = _encode(result.data, request, parameters)
        if encoding:
            headers["Content-Encoding"] = encoding
        return Response(data, 200, headers, media_type=_media_type(result.format))

    def _authenticate(self, request: Request, parameters: dict[str, str]) -> None:
        """Let user ``default`` in with the password. Raises EngineError 516."""
        user = request.headers.get("X-ClickHouse-User") or parameters.get("user") or "default"
        password = request.headers.get("X-ClickHouse-Key") or parameters.get("password") or ""
        scheme, _, value = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() == "basic":
            with contextlib.suppress(ValueError):
                user, _, password = base64.b64decode(value).decode().partition(":")
        right = hmac.compare_digest(password.encode(), self._password.encode())
        if user != "default" or not right:
            raise EngineError(
                f"{user}: Authentication failed: password is incorrect, or there is no user with such name. "
                "(AUTHENTICATION_FAILED)",
                516,
            )

    async def _answer(self, request: Request, parameters: dict[str, str], body: IO[bytes]) -> Result:
        output = parameters.get("default_format") or request.headers.get("X-ClickHouse-Format") or "TabSeparated"
        settings = settings_of(parameters)
        setup = settings.statements()
        if database := parameters.get("database") or request.headers.get("X-ClickHouse-Database"):
            setup.insert(0, f"use `{database.replace('`', '')}`")
        if request.method != "POST":
            setup.append("set readonly = 2")
        query = parameters.get("query", "")
        with _statement(query, body) as statement:
            session = None
            if name := parameters.get("session_id"):
                timeout = min(float(parameters.get("session_timeout", "60")), 3600.0)
                session = self._engine.session(name, timeout, parameters.get("session_check") == "1")
            try:
                output = format_of(statement, output)
                loop = asyncio.get_running_loop()
                return await loop.run_in_executor(self._pool, self._engine.run, statement, output, setup, session)
            finally:
                if session:
                    session.last_used = time.monotonic()
                    session.busy.release()


async def _ok(_: Request) -> Response:
    return PlainTextResponse("Ok.\n")


@contextlib.contextmanager
def _statement(query: str, body: IO[bytes]) -> Iterator[str]:
    """The one statement to run; while the block runs, the data of an INSERT is in a file of its own."""
    size = body.seek(0, os.SEEK_END)
    body.seek(0)
    if query.strip() and size and (insert := insert_with_body(query)):
        start = 0
    else:
        split = split_insert(body.read(MAX_INSERT_TEXT)) if not query.strip() else None
        body.seek(0)
        if split is None or split[1] >= size:
            if size > MAX_QUERY_TEXT:
                raise EngineError(f"Query is too large ({size} bytes). (QUERY_IS_TOO_LARGE)", 229)
            text = body.read().decode("utf-8", "surrogateescape")
            yield f"{query}\n{text}" if query.strip() and text else query or text
            return
        insert, start = split
    with tempfile.NamedTemporaryFile(prefix="retention-insert-") as data:
        body.seek(start)
        while chunk := body.read(1 << 20):
            data.write(chunk)
        data.flush()
        yield insert.from_file(data.name)


async def _receive(request: Request, body: IO[bytes]) -> None:
    """Stream the request's body to disk, decompressed. Raises EngineError for what cannot be decompressed."""
    encoding = request.headers.get("Content-Encoding", "").strip().lower()
    decompress = _decompressor(encoding)
    try:
        async for chunk in request.stream():
            if chunk:
                body.write(decompress(chunk))
    except (zlib.error, RuntimeError, zstd.ZstdError, EOFError) as error:
        raise EngineError(f"Cannot decompress {encoding} body: {error}. (CANNOT_DECOMPRESS)", 271) from None


def _decompressor(encoding: str) -> Callable[[bytes], bytes]:
    if encoding in ("", "identity"):
        return lambda chunk: chunk
    if encoding in ("gzip", "deflate"):
        stream = zlib.decompressobj(wbits=47)
        return stream.decompress
    if encoding == "lz4":
        return lz4.frame.LZ4FrameDecompressor().decompress  # type: ignore[no-any-return]
    if encoding == "zstd":
        return zstd.ZstdDecompressor().decompress
    raise EngineError(f"Unknown compression method: {encoding}. (UNKNOWN_COMPRESSION_METHOD)", 89)


def _encode(data: bytes, request: Request, parameters: dict[str, str]) -> tuple[bytes, str]:
    """Compress an answer if the client asked for it in both ways that the server wants."""
    if parameters.get("enable_http_compression") not in ("1", "true"):
        return data, ""
    accepted = {word.split(";")[0].strip() for word in request.headers.get("Accept-Encoding", "").split(",")}
    if "lz4" in accepted:
        return lz4.frame.compress(data), "lz4"
    if "zstd" in accepted:
        return zstd.compress(data, 1), "zstd"
    if "gzip" in accepted:
        stream = zlib.compressobj(3, wbits=31)
        return stream.compress(data) + stream.flush(), "gzip"
    return data, ""


def _media_type(name: str) -> str:
    if name.startswith("JSON"):
        return "application/json; charset=UTF-8"
    if name.startswith("CSV"):
        return "text/csv; charset=UTF-8"
    if name.startswith(("TabSeparated", "TSV")):
        return "text/tab-separated-values; charset=UTF-8"
    if name.startswith(("Native", "RowBinary", "Arrow", "Parquet", "ORC", "Avro")):
        return "application/octet-stream"
    return "text/plain; charset=UTF-8"


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
    """A server over ``path`` in a child process while the block runs; stopped and reaped afterwards."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "port"
        command = [sys.executable, "-m", __name__, "--path", str(path), "--port", str(port), "--port-file", str(file)]
        process = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, env={**os.environ, "CLICKHOUSE_PASSWORD": password}
        )
        try:
            deadline = time.monotonic() + 30
            while not file.exists():
                if process.poll() is not None or time.monotonic() > deadline:
                    raise RetentionError("the embedded ClickHouse did not start")
                time.sleep(0.02)
            server = Running(int(file.read_text(encoding="utf-8")), process.pid)
            while not _answers(server.port) and time.monotonic() < deadline:
                time.sleep(0.02)
            yield server
        finally:
            process.send_signal(signal.SIGCONT)
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _answers(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False


def serve(path: Path, host: str, port: int, port_file: Path | None) -> None:
    """Serve until SIGTERM or SIGINT. Raises RetentionError for a taken port or a folder in use."""
    try:
        path.mkdir(parents=True, exist_ok=True)
        lock = FileLock(path.parent / f"{path.name}.lock")
        lock.acquire(timeout=0)
    except Timeout:
        raise RetentionError(
            f"{path} is in use by another ClickHouse: stop that one, or choose another folder"
        ) from None
    except OSError as error:
        raise RetentionError(f"cannot use {path} ({error.strerror}): choose another folder with --path") from None
    with lock, socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host, port))
        except OSError as error:
            raise RetentionError(f"cannot listen on {host}:{port} ({error.strerror}): choose another --port") from None
        engine = Engine(path)
        server = Server(engine, os.environ.get("CLICKHOUSE_PASSWORD", ""))

        @contextlib.asynccontextmanager
        async def lifespan(_: Starlette) -> AsyncIterator[None]:
            address = listener.getsockname()
            print(f"listening on {address[0]}:{address[1]}", flush=True)
            if port_file is not None:
                partial = port_file.with_suffix(".partial")
                partial.write_text(str(address[1]), encoding="utf-8")
                partial.replace(port_file)
            yield

        app = server.app()
        app.router.lifespan_context = lifespan
        config = uvicorn.Config(
            app,
            log_level="warning",
            access_log=False,
            timeout_graceful_shutdown=3,
            h11_max_incomplete_event_size=1 << 20,
        )
        uvicorn.Server(config).run(sockets=[listener])
        # A query that still runs would keep the process; every acknowledged insert is on disk.
        os._exit(0)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description="ClickHouse over HTTP on one machine, on the chDB engine.")
    parser.add_argument("--path", type=Path, required=True, help="data folder; made when it does not exist")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on")
    parser.add_argument("--port", type=int, default=8123, help="port to listen on; 0 chooses a free one")
    parser.add_argument("--port-file", type=Path, help="where to write the port once it answers")
    options = parser.parse_args()
    try:
        serve(options.path.absolute(), options.host, options.port, options.port_file)
    except RetentionError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(1) from None


if __name__ == "__main__":
    main()
