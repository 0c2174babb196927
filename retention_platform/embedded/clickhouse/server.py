"""ClickHouse's HTTP protocol over the engine: a request in, its statement executed, its result streamed out.

No body is held in memory, neither the data of an INSERT nor a result: both flow through pipes. What the request asks
for is read in `request`, what the answer looks like is in `response`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import AsyncIterator, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl

from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, Response
from starlette.types import Message, Receive, Scope, Send

from retention_platform.embedded.clickhouse.answer import Answer
from retention_platform.embedded.clickhouse.blocks import BlockDecoder
from retention_platform.embedded.clickhouse.codecs import Decoder, decoder
from retention_platform.embedded.clickhouse.engine import Engine, Run, Statement, Table
from retention_platform.embedded.clickhouse.errors import CANCELLED, EngineError, by_get, refused
from retention_platform.embedded.clickhouse.pipes import Reader, Writer
from retention_platform.embedded.clickhouse.protocol import Wire, wire_of
from retention_platform.embedded.clickhouse.request import STALL_SECONDS, Asked, asked_of
from retention_platform.embedded.clickhouse.response import PREFLIGHT
from retention_platform.embedded.clickhouse.session import Session
from retention_platform.embedded.clickhouse.sql import Insert, format_of, insert_of, split_list
from retention_platform.embedded.clickhouse.users import User, authenticate

#: Statements that may run at a time. The engine parallelizes each one by itself; each holds a thread that waits.
MAX_QUERIES = 400
#: How many bytes of a body may be the text of an INSERT before its data.
MAX_INSERT_TEXT = 256 * 1024
#: Longest statement without data, in bytes; the engine's own max_query_size is smaller unless it is raised.
MAX_QUERY_TEXT = 16 * 1024 * 1024
#: Most values a form may have: the query, its parameters and settings.
MAX_FORM_FIELDS = 10_000

#: Seconds within which a statement that waits for data is found to be killed.
KILLED_WITHIN = 0.5

#: Where a server says whether it is well.
HEALTH_PATHS = ("/ping", "/replicas_status")

_LOG = logging.getLogger("retention.clickhouse")


class _Incoming:
    """A request's messages, and whether its body has ended, or its client has stopped to send it."""

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        #: Seconds that the client may take to send more.
        self.patience: float | None = STALL_SECONDS
        self.ended = False

    async def __call__(self) -> Message:
        try:
            message = await asyncio.wait_for(self._receive(), self.patience)
        except asyncio.TimeoutError:
            raise self.stalled() from None
        self.ended = message["type"] == "http.disconnect" or not message.get("more_body", False)
        return message

    def stalled(self) -> EngineError:
        """The error that says so; nothing more is waited for."""
        self.ended = True
        return refused("SOCKET_TIMEOUT", 209, f"Timeout exceeded while reading from socket ({self.patience:g} s).")

    async def drain(self) -> None:
        """Read the rest of the body, so that the client, which may still be sending, gets to read the answer."""
        with contextlib.suppress(EngineError):
            while not self.ended:
                await self()

    async def gone(self) -> None:
        """Return when the client has gone away. The body must have ended."""
        while (await self._receive())["type"] != "http.disconnect":
            pass


@dataclass(frozen=True)
class _Given:
    """A statement's text, and the data behind it."""

    text: bytes
    insert: Insert | None = None
    #: The rest of an INSERT's data, behind what is in ``text``.
    rest: AsyncIterator[bytes] | None = None
    #: Where the rest comes from, if it comes as it is to be.
    wire: Wire | None = None
    tables: tuple[Table, ...] = ()

    @property
    def statement(self) -> bytes:
        """The text without data."""
        return self.text[: self.insert.data] if self.insert else self.text


class Server:
    """Requests in, answers out: an ASGI application."""

    def __init__(self, engine: Engine, users: dict[str, User], max_queries: int = MAX_QUERIES) -> None:
        self._engine = engine
        self._users = users
        self._max_queries = max_queries
        self._running: set[str] = set()
        self._queries = ThreadPoolExecutor(max_queries, thread_name_prefix="query")
        # Cancelling must not wait for queries.
        self._helpers = ThreadPoolExecutor(8, thread_name_prefix="helper")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        incoming = _Incoming(receive)
        request = Request(scope, incoming, send)
        if request.method == "OPTIONS":
            await Response(status_code=204, headers=PREFLIGHT)(scope, receive, send)
            return
        asks = request.method not in ("GET", "HEAD") or "query" in _parameters(scope)
        if scope["path"] in HEALTH_PATHS or (scope["path"] == "/" and not asks):
            await PlainTextResponse("Ok.\n")(scope, receive, send)
            return
        if scope["path"] != "/":
            text = f"There is no handle {scope['path']}\nUse / or /ping for health checks. Send queries to / by POST.\n"
            await PlainTextResponse(text, 404)(scope, receive, send)
            return
        answer = Answer(self._engine, scope, send)
        try:
            await self._serve(request, incoming, answer)
        except EngineError as error:
            # Of what was killed the client may have stopped to send.
            if error.code != CANCELLED:
                await incoming.drain()
            if error.status >= 500:
                _LOG.warning("query %s: %s", answer.query_id, _one_line(error))
            await answer.fail(by_get(error) if request.method == "GET" else error)
        except ClientDisconnect:
            _LOG.info("query %s: the client went away", answer.query_id)

    async def _serve(self, request: Request, incoming: _Incoming, answer: Answer) -> None:
        parameters = _parameters(request.scope)
        user = authenticate(self._users, parameters, request.headers)
        if request.headers.get("Content-Type", "").startswith("multipart/form-data"):
            async with _form(request) as (fields, files):
                if files and user.databases is not None:
                    # Its queries are run by views, which see no temporary tables.
                    raise refused("READONLY", 164, "Cannot execute query in readonly mode: it comes with tables.")
                # The statement may be in both, as it may be in the URL and a body.
                query = "\n".join(filter(None, (parameters.get("query"), fields.get("query"))))
                tables = _tables_of(files, {**parameters, **fields})
                asked = asked_of(user, request.method, _without(files, parameters, fields, query), request.headers)
                text = query.encode("utf-8", "surrogateescape")
                await self._run(user, asked, _Given(text, insert_of(text), tables=tables), incoming, answer)
            return
        asked = asked_of(user, request.method, parameters, request.headers)
        incoming.patience = asked.receive_seconds
        await self._run(user, asked, await _read(request, asked), incoming, answer)

    async def _run(self, user: User, asked: Asked, given: _Given, incoming: _Incoming, answer: Answer) -> None:
        """Execute the statement, its data flowing in and its result flowing out. Raises EngineError."""
        answer.asked = asked
        with self._admitted(asked.query_id), self._session(user, asked) as session, contextlib.ExitStack() as pipes:
            text, source, data = given.text, None, None
            if given.insert is not None:
                source, entry = os.pipe()
                data = Writer(entry)
                pipes.callback(data.close)
                text = given.insert.from_descriptor(source).encode("utf-8", "surrogateescape")
            result = Reader()
            pipes.callback(result.close)
            statement = Statement(
                text,
                output=asked.output,
                database=asked.database,
                settings=asked.settings,
                parameters=asked.parameters,
                read_only=asked.read_only,
                source=source,
                revision=asked.revision,
                tables=given.tables,
                user=user,
            )
            run = Run(self._engine, statement, asked.query_id, session)
            loop = asyncio.get_running_loop()
            execution = loop.run_in_executor(self._queries, _execute, run, result, source)
            try:
                if given.insert is not None and data is not None:
                    await self._while_wanted(run, execution, _feed(data, given, given.insert.data, incoming))
                    data.close()
                watch = asyncio.create_task(self._watch(incoming, run, result))
                try:
                    output = format_of(given.statement) or asked.output
                    await answer.stream(run, result, execution, output)
                finally:
                    watch.cancel()
            finally:
                if not execution.done():
                    # Only when the engine has taken notice may the data end: it would take a part for the whole.
                    await asyncio.shield(loop.run_in_executor(self._helpers, run.cancel))
                    pipes.close()
                    await asyncio.wait([execution])
                # Its error is told by now.
                execution.exception()
        if asked.close_session and asked.session:
            self._engine.end_session((user.name, asked.session))

    async def _while_wanted(self, run: Run, execution: asyncio.Future[None], feed: Coroutine[Any, Any, None]) -> None:
        """Bring a statement its data, but no longer than until it is killed: it may wait for a client that stalls."""
        feeding, loop = asyncio.ensure_future(feed), asyncio.get_running_loop()

        async def killed() -> bool:
            if execution.done():
                error = execution.exception()
                return isinstance(error, EngineError) and error.code == CANCELLED
            return await loop.run_in_executor(self._helpers, self._engine.is_killed, run.id)

        try:
            while not (await asyncio.wait([feeding], timeout=KILLED_WITHIN))[0]:
                if await killed():
                    return
            await feeding
        finally:
            feeding.cancel()
            await asyncio.wait([feeding])

    async def _watch(self, incoming: _Incoming, run: Run, result: Reader) -> None:
        """Cancel the run when the client goes away."""
        await incoming.gone()
        await asyncio.get_running_loop().run_in_executor(self._helpers, run.cancel)
        result.close()

    @contextlib.contextmanager
    def _admitted(self, query_id: str) -> Iterator[None]:
        """A place among the statements that run. Raises EngineError as the server does when there is none."""
        if len(self._running) >= self._max_queries:
            raise refused(
                "TOO_MANY_SIMULTANEOUS_QUERIES", 202, f"Too many simultaneous queries. Maximum: {self._max_queries}."
            )
        if query_id in self._running:
            raise refused(
                "QUERY_WITH_SAME_ID_IS_ALREADY_RUNNING", 216, f"Query with id = {query_id} is already running."
            )
        self._running.add(query_id)
        try:
            yield
        finally:
            self._running.discard(query_id)

    @contextlib.contextmanager
    def _session(self, user: User, asked: Asked) -> Iterator[Session | None]:
        if not asked.session:
            yield None
            return
        # A session belongs to its user.
        key = (user.name, asked.session)
        with self._engine.session(key, asked.session_timeout, must_exist=asked.session_check) as session:
            yield session


def _parameters(scope: Scope) -> dict[str, str]:
    """The parameters of the URL; bytes that are no text are kept as they are."""
    query = scope["query_string"].decode("utf-8", "surrogateescape")
    return dict(parse_qsl(query, keep_blank_values=True, errors="surrogateescape"))


def _execute(run: Run, result: Reader, source: int | None) -> None:
    """Execute in a thread; closes its ends of the pipes. Raises EngineError."""
    try:
        run.execute(result)
    finally:
        result.end()
        if source is not None:
            os.close(source)


async def _feed(data: Writer, given: _Given, begin: int, incoming: _Incoming) -> None:
    """Bring an INSERT its data. When it has failed already, read the rest for nothing. Raises EngineError."""
    wanted = await data.write(given.text[begin:])
    if given.rest is None:
        return
    async for piece in given.rest:
        wanted = wanted and await data.write(piece)
        if given.wire is not None:
            try:
                await given.wire.splice(data, incoming.patience)
            except asyncio.TimeoutError:
                raise incoming.stalled() from None


async def _read(request: Request, asked: Asked) -> _Given:
    """The statement, from the URL and the body joined, as far as it must be known to begin. Raises EngineError."""
    text = bytearray(f"{asked.query}\n".encode("utf-8", "surrogateescape") if asked.query.strip() else b"")
    encoding = request.headers.get("Content-Encoding", "")
    pieces = _plain(request.stream(), asked, encoding)
    wire = None if encoding or asked.packed_in else wire_of(request.scope)
    insert = insert_of(bytes(text))
    if insert is not None:
        return _Given(bytes(text), insert, pieces, wire)
    async for piece in pieces:
        text += piece
        if len(text) >= MAX_INSERT_TEXT:
            insert = insert_of(bytes(text))
            if insert is not None:
                return _Given(bytes(text), insert, pieces, wire)
            break
    async for piece in pieces:
        text += piece
        if len(text) > MAX_QUERY_TEXT:
            raise refused("QUERY_IS_TOO_LARGE", 229, f"Query is longer than {MAX_QUERY_TEXT} bytes.")
    return _Given(bytes(text), insert_of(bytes(text)))


async def _plain(body: AsyncIterator[bytes], asked: Asked, encoding: str) -> AsyncIterator[bytes]:
    """A body without its compressions. Raises EngineError for what is not so compressed, or cut short."""
    stages: list[Decoder] = [decoder(encoding)]
    if asked.packed_in:
        stages.append(BlockDecoder())
    async for piece in body:
        plain = piece
        for stage in stages:
            plain = stage.feed(plain)
        if plain:
            yield plain
    for stage in stages:
        stage.finish()


@contextlib.asynccontextmanager
async def _form(request: Request) -> AsyncIterator[tuple[dict[str, str], dict[str, UploadFile]]]:
    """A form's fields and files. Raises EngineError."""
    try:
        form = await request.form(max_fields=MAX_FORM_FIELDS, max_part_size=MAX_QUERY_TEXT)
    except HTTPException as error:
        raise refused("BAD_ARGUMENTS", 36, f"Cannot read the form: {error.detail}") from None
    try:
        items = form.multi_items()
        yield (
            {name: value for name, value in items if isinstance(value, str)},
            {name: value for name, value in items if isinstance(value, UploadFile)},
        )
    finally:
        await form.close()


def _tables_of(files: dict[str, UploadFile], parameters: dict[str, str]) -> tuple[Table, ...]:
    """The tables that come in a form, with structures and formats as the parameters say. Raises EngineError."""
    tables = []
    for name, file in files.items():
        structure = parameters.get(f"{name}_structure", "")
        types = parameters.get(f"{name}_types", "")
        if types:
            structure = ", ".join(f"_{number} {kind}" for number, kind in enumerate(split_list(types), 1))
        if not structure:
            raise refused("BAD_ARGUMENTS", 36, f"Neither structure nor types are provided for external table {name}.")
        # As a file of its own, it can be opened a second time.
        file.file.rollover()  # type: ignore[attr-defined]
        file.file.flush()
        tables.append(Table(name, structure, parameters.get(f"{name}_format", "TabSeparated"), file.file.fileno()))
    return tuple(tables)


def _without(
    files: dict[str, UploadFile], parameters: dict[str, str], fields: dict[str, str], query: str
) -> dict[str, str]:
    """A form's parameters but for what describes its files."""
    described = {f"{name}_{part}" for name in files for part in ("format", "structure", "types")}
    return {n: v for n, v in {**parameters, **fields}.items() if n not in described} | {"query": query}


def _one_line(error: EngineError) -> str:
    return " ".join(str(error).split())[:500]
