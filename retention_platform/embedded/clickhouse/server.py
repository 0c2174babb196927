"""ClickHouse's HTTP protocol over the engine: who asks, what is asked, and the answer as the server would give it.

The body of an INSERT is streamed to disk and never held in memory. Results are.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hmac
import json
import tempfile
import uuid
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from retention_platform.embedded.clickhouse.encoding import DecodeError, Decoder, encode
from retention_platform.embedded.clickhouse.engine import Engine, EngineError, Result, Statement
from retention_platform.embedded.clickhouse.sql import Insert, format_of, insert_of, is_blank, is_single

#: Threads that run queries; the engine parallelizes each one by itself.
QUERY_THREADS = 16
#: How many bytes of a body may be the text of an INSERT before its data.
MAX_INSERT_TEXT = 256 * 1024
#: Longest statement without data, in bytes; the engine's own max_query_size is smaller unless it is raised.
MAX_QUERY_TEXT = 16 * 1024 * 1024
MAX_SESSION_SECONDS = 3600.0
#: Most values a form may have: the query, its parameters and settings.
MAX_FORM_FIELDS = 10_000

#: URL parameters that speak to the HTTP interface, not to the engine.
_INTERFACE = frozenset(
    {
        *("query", "database", "user", "password", "query_id", "session_id", "session_timeout", "session_check"),
        *("default_format", "compress", "decompress", "enable_http_compression", "http_zlib_compression_level"),
        *("wait_end_of_query", "buffer_size", "send_progress_in_http_headers", "quota_key", "role", "stacktrace"),
        *("http_headers_progress_interval_ms", "client_protocol_version", "add_http_cors_header"),
        *("cancel_http_readonly_queries_on_client_close", "close_session", "output_format_write_statistics_in_headers"),
    }
)

#: Exception code to HTTP status, as the server maps them; everything else is 500.
_STATUS = {
    **dict.fromkeys((194,), 401),
    **dict.fromkeys((192, 193, 497, 512, 516), 403),
    **dict.fromkeys((6, 8, 15, 25, 26, 27, 36, 37, 38, 41, 44, 53, 62, 72, 117, 123), 400),
    **dict.fromkeys((167, 168, 223, 321, 376, 427, 441, 675, 676), 400),
    **dict.fromkeys((46, 47, 50, 56, 60, 63, 73, 78, 81, 115, 152, 336, 511), 404),
    **dict.fromkeys((76, 209, 439), 503),
    159: 408,
    229: 413,
    381: 411,
    779: 415,
    48: 501,
}


@dataclass(frozen=True)
class Asked:
    """What a request's head asks for; its body is still to come."""

    query: str
    statement: Statement
    session: str
    session_timeout: float
    session_check: bool
    close_session: bool
    compress: bool


class Server:
    """Requests in, answers out."""

    def __init__(self, engine: Engine, password: str, scratch: Path) -> None:
        """``scratch`` is an existing folder for the data of inserts under way."""
        self._engine = engine
        self._password = password
        self._scratch = scratch
        self._pool = ThreadPoolExecutor(QUERY_THREADS, thread_name_prefix="query")

    def app(self) -> Starlette:
        """The ASGI application."""
        return Starlette(
            routes=[
                Route("/ping", _ok, methods=["GET", "HEAD"]),
                Route("/replicas_status", _ok, methods=["GET", "HEAD"]),
                Route("/", self._handle, methods=["GET", "POST"]),
            ]
        )

    async def _handle(self, request: Request) -> Response:
        parameters = dict(request.query_params)
        if request.method in ("GET", "HEAD") and "query" not in parameters:
            return PlainTextResponse("Ok.\n")
        headers = {
            "X-ClickHouse-Server-Display-Name": "retention",
            "X-ClickHouse-Query-Id": parameters.get("query_id") or str(uuid.uuid4()),
            "X-ClickHouse-Timezone": "UTC",
        }
        try:
            authenticate(parameters, request.headers, self._password)
            is_form = request.headers.get("Content-Type", "").startswith("multipart/form-data")
            if is_form:
                parameters |= await _form_values(request)
            asked = asked_of(request.method, parameters, request.headers)
            with tempfile.NamedTemporaryFile(dir=self._scratch) as data:
                if is_form:
                    text, insert = asked.query.encode("utf-8", "surrogateescape"), None
                else:
                    text, insert = await _receive(request, asked.query, data.file)
                data.flush()
                statement = insert.from_file(data.name).encode("utf-8", "surrogateescape") if insert else text
                loop = asyncio.get_running_loop()
                return await loop.run_in_executor(
                    self._pool, self._answer, asked, statement, headers, request.headers.get("Accept-Encoding", "")
                )
        except EngineError as error:
            headers["X-ClickHouse-Exception-Code"] = str(error.code)
            return PlainTextResponse(f"{error.text}\n", _STATUS.get(error.code, 500), headers)
        except ClientDisconnect:
            return Response(status_code=499)

    def _answer(self, asked: Asked, text: bytes, headers: dict[str, str], accepted: str) -> Response:
        """Run the statement and make the response; called in a thread. Raises EngineError."""
        if is_blank(text):
            raise EngineError("Syntax error: failed at position 1 (end of query): Empty query. (SYNTAX_ERROR)", 62)
        if not is_single(text):
            raise EngineError("Syntax error: Multi-statements are not allowed. (SYNTAX_ERROR)", 62)
        output = format_of(text) or asked.statement.output
        statement = replace(asked.statement, text=text, output=output)
        if asked.session:
            with self._engine.session(asked.session, asked.session_timeout, must_exist=asked.session_check) as session:
                result = self._engine.run(statement, session)
            if asked.close_session:
                self._engine.end_session(asked.session)
        else:
            result = self._engine.run(statement)
        data, encoding = encode(result.data, accepted) if asked.compress else (result.data, "")
        headers |= {"X-ClickHouse-Format": output, "X-ClickHouse-Summary": summary_of(result)}
        if encoding:
            headers["Content-Encoding"] = encoding
        return Response(data, 200, headers, media_type=_media_type(output))


async def _ok(_: Request) -> Response:
    return PlainTextResponse("Ok.\n")


def authenticate(parameters: Mapping[str, str], headers: Mapping[str, str], right_password: str) -> None:
    """Let user ``default`` in with the password. Raises EngineError 516."""
    user = headers.get("X-ClickHouse-User") or parameters.get("user") or "default"
    password = headers.get("X-ClickHouse-Key") or parameters.get("password") or ""
    scheme, _, value = headers.get("Authorization", "").partition(" ")
    if scheme.lower() == "basic":
        with contextlib.suppress(ValueError):
            user, _, password = base64.b64decode(value).decode().partition(":")
    right = hmac.compare_digest(password.encode(), right_password.encode())
    if user != "default" or not right:
        raise EngineError(
            f"{user}: Authentication failed: password is incorrect, or there is no user with such name. "
            "(AUTHENTICATION_FAILED)",
            516,
        )


def asked_of(method: str, parameters: Mapping[str, str], headers: Mapping[str, str]) -> Asked:
    """What a request's URL and headers ask for. Raises EngineError."""
    try:
        timeout = float(parameters.get("session_timeout") or 60)
    except ValueError:
        raise EngineError(
            f"Invalid session timeout: '{parameters['session_timeout']}'. (INVALID_SESSION_TIMEOUT)", 374
        ) from None
    settings = {n: v for n, v in parameters.items() if n not in _INTERFACE and not n.startswith("param_")}
    # A GET may not write; 2 is the server's level for it, which leaves other settings changeable.
    level = settings.pop("readonly", "0")
    if level == "0" and method != "POST":
        level = "2"
    return Asked(
        query=parameters.get("query", ""),
        statement=Statement(
            b"",
            output=parameters.get("default_format") or headers.get("X-ClickHouse-Format") or "TabSeparated",
            database=parameters.get("database") or headers.get("X-ClickHouse-Database") or "",
            settings=settings,
            parameters={n.removeprefix("param_"): v for n, v in parameters.items() if n.startswith("param_")},
            read_only=level,
        ),
        session=parameters.get("session_id", ""),
        session_timeout=min(timeout, MAX_SESSION_SECONDS),
        session_check=parameters.get("session_check") == "1",
        close_session=parameters.get("close_session") == "1",
        compress=parameters.get("enable_http_compression", "").lower() in ("1", "true"),
    )


async def _form_values(request: Request) -> dict[str, str]:
    """The query and its parameters from a form, as drivers send them when they are long. Raises EngineError."""
    try:
        form = await request.form(max_files=0, max_fields=MAX_FORM_FIELDS, max_part_size=MAX_QUERY_TEXT)
    except HTTPException as error:
        # Files in a form are external data tables.
        raise EngineError(f"Cannot read the form: {error.detail} (BAD_ARGUMENTS)", 36) from None
    return {name: value for name, value in form.multi_items() if isinstance(value, str)}


async def _receive(request: Request, query: str, data: IO[bytes]) -> tuple[bytes, Insert | None]:
    """The statement, from the URL and the body joined; of an INSERT, the data behind it goes into ``data``.

    Raises EngineError for what is too large or cannot be decompressed.
    """
    head = bytearray(f"{query}\n".encode("utf-8", "surrogateescape") if query.strip() else b"")
    insert = None
    looked = False
    try:
        decoder = Decoder(request.headers.get("Content-Encoding", ""))
        async for chunk in request.stream():
            plain = decoder.feed(chunk)
            if insert is not None:
                data.write(plain)
                continue
            head += plain
            if len(head) >= MAX_INSERT_TEXT and not looked:
                looked = True
                insert = insert_of(bytes(head))
                if insert is not None:
                    data.write(head[insert.data :])
            if insert is None and len(head) > MAX_QUERY_TEXT:
                raise EngineError(f"Query is longer than {MAX_QUERY_TEXT} bytes. (QUERY_IS_TOO_LARGE)", 229)
        decoder.finish()
    except DecodeError as error:
        raise EngineError(f"{error}. ({error.name})", error.code) from None
    if not looked:
        insert = insert_of(bytes(head))
        if insert is not None:
            data.write(head[insert.data :])
    return bytes(head), insert


def summary_of(result: Result) -> str:
    """X-ClickHouse-Summary: every number a string, as the server writes them."""
    values = {
        "read_rows": result.read_rows,
        "read_bytes": result.read_bytes,
        "written_rows": result.written_rows,
        "written_bytes": result.written_bytes,
        "total_rows_to_read": 0,
        "result_rows": result.written_rows,
        "result_bytes": len(result.data) or result.written_bytes,
        "elapsed_ns": int(result.seconds * 1e9),
    }
    return json.dumps({name: str(value) for name, value in values.items()})


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
