"""The engine (chDB) over one data folder, and one statement under way in it. Knows nothing of HTTP.

Every statement gets a handle of its own, so that settings never leak from one to the next; what must last
(temporary tables, SET, USE) lasts in a `session`. No result is held in memory: of a format whose blocks can stand one
after the other the engine hands over block by block; any other it writes into a pipe as into a file.
"""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import threading
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote as quote_url

from retention_platform.embedded.clickhouse import native
from retention_platform.embedded.clickhouse.accounts import Accounts
from retention_platform.embedded.clickhouse.catalogue import in_place_of
from retention_platform.embedded.clickhouse.definer import denied, within_rights
from retention_platform.embedded.clickhouse.errors import CANCELLED, NOT_TO_WRITE, EngineError, refused
from retention_platform.embedded.clickhouse.loading import load
from retention_platform.embedded.clickhouse.names import ID, SETUP, in_query, is_killed, kill
from retention_platform.embedded.clickhouse.pipes import Reader
from retention_platform.embedded.clickhouse.session import Session, set_statement
from retention_platform.embedded.clickhouse.sql import (
    DESCRIPTOR,
    Shape,
    first_word,
    is_kill,
    quote,
    quote_name,
    shape_of,
    split_list,
    tokens,
    unquote,
)
from retention_platform.embedded.clickhouse.users import ALL_RIGHTS, NOBODY, User

chdb, _extension = load()
query_class = _extension.query_class

#: Bytes that all queries together may take: one part among several on a laptop.
MEMORY_LIMIT = 8 * 1024**3
MARK_CACHE = 512 * 1024**2
#: How soon the query log tells of what has run. Who debugs looks there at once; the engine's own 7.5 s are for servers
#: with many queries a second.
LOG_EVERY_MS = 2000
#: With less room on its disk the engine refuses an insert. Where the last byte went while parts were being written, it
#: kept parts with empty files, which nobody can read.
MIN_FREE_BYTES = 64 * 1024**2
#: With less, a statement that writes a definition is refused: the engine does not notice that the file it wrote stayed
#: empty, says that all is well, and cannot open its folder when it starts again.
MIN_FREE_FOR_DEFINITIONS = 4 * 1024**2
#: First words of such statements.
_DEFINES = frozenset({"create", "replace", "alter", "attach", "rename", "exchange", "undrop"})

# No section for another system log means that it is not written.
_CONFIG = f"""<clickhouse>
    <merge_tree><min_free_disk_bytes_to_perform_insert>{MIN_FREE_BYTES}</min_free_disk_bytes_to_perform_insert></merge_tree>
    <max_server_memory_usage>{{memory}}</max_server_memory_usage>
    <mark_cache_size>{MARK_CACHE}</mark_cache_size>
    <background_pool_size>2</background_pool_size>
    <background_merges_mutations_concurrency_ratio>2</background_merges_mutations_concurrency_ratio>
    <background_schedule_pool_size>4</background_schedule_pool_size>
    <query_log>
        <database>system</database>
        <table>query_log</table>
        <ttl>event_date + interval 3 day</ttl>
        <flush_interval_milliseconds>{LOG_EVERY_MS}</flush_interval_milliseconds>
    </query_log>
    <user_directories><users_xml><path>{{users}}</path></users_xml></user_directories>
</clickhouse>
"""
# All handles run as `default`; views can run as the others, with their grants.
_USERS = """<clickhouse>
    <profiles><default/></profiles>
    <quotas><default/></quotas>
    <users>
        <default>
            <no_password/><profile>default</profile><quota>default</quota><networks><ip>::/0</ip></networks>
            <access_management>1</access_management><named_collection_control>1</named_collection_control>
        </default>
{readers}
    </users>
</clickhouse>
"""
#: A database that does not exist: a user without any grant in its list would have all.
_NOWHERE = "_nowhere"
_READER = """        <{name}>
            <no_password/><profile>default</profile><quota>default</quota><networks><ip>::/0</ip></networks>
            <grants>{grants}</grants>
        </{name}>"""

#: Bytes of free memory for each thread that writes an INSERT; the engine's own 4 GiB would leave it one thread here.
_MEMORY_PER_WRITER = 1024**3
#: Where chDB's defaults differ from a server's, or from what is right here. Pipes cannot be mapped into memory.
_DEFAULTS = {
    "implicit_select": "0",
    "allow_introspection_functions": "0",
    "storage_file_read_method": "pread",
    "max_insert_threads_min_free_memory_per_thread": str(_MEMORY_PER_WRITER),
}
#: Formats without anything before, between or after the rows, so that blocks stand one after the other. Not those of
#: JSON objects, which a setting puts into an array.
_BLOCKWISE = frozenset(
    {
        *("native", "rowbinary", "tabseparated", "tsv", "tabseparatedraw", "tsvraw", "csv", "tskv", "msgpack"),
        *("jsoncompacteachrow", "jsoncompactstringseachrow", "lineasstring", "rawblob", "null"),
    }
)
#: Formats of readers' tables: of values alone, where others may have expressions (Values) or name a file.
_PLAIN_FORMATS = frozenset(
    f"{name}{header}"
    for name in ("tabseparated", "tsv", "tabseparatedraw", "tsvraw", "csv", "rowbinary", "jsoncompacteachrow")
    for header in ("", "withnames", "withnamesandtypes")
) | {"jsoneachrow", "json", "jsoncompact", "native", "parquet", "arrow", "arrowstream"}
#: How the engine says that it hands over a result only as a whole.
_NOT_BLOCKWISE = "Streaming query is not supported"
#: What the engine adds to the error of a text that is read as a value.
_WHERE_READ = re.compile(r": In scope SELECT formatQuery\(.*\)(?=\. \([A-Z_]+\)$)", re.DOTALL)
#: Sessions that a user may have at a time.
MAX_SESSIONS = 1000
#: Seconds between two attempts to cancel a statement that the engine has not begun yet.
_CANCEL_EVERY = 0.02


@dataclass(frozen=True)
class Table:
    """A temporary table that comes with a statement and goes with it; its data is in an open file."""

    name: str
    structure: str
    format: str
    descriptor: int


@dataclass(frozen=True)
class Statement:
    """One statement and what goes with it."""

    text: bytes
    #: The format of its result, unless the text names one.
    output: str = "TabSeparated"
    database: str = ""
    settings: dict[str, str] = field(default_factory=dict)
    parameters: dict[str, str] = field(default_factory=dict)
    #: As the setting ``readonly``: 0 may write, 1 may neither write nor change settings, 2 may not write.
    read_only: str = "0"
    #: The descriptor of the pipe that an INSERT reads its data from. Its text names it.
    source: int | None = None
    #: The revision of the protocol that results in Native are for.
    revision: int = 0
    user: User = ALL_RIGHTS
    tables: tuple[Table, ...] = ()


@dataclass
class Counts:
    """What a statement has read and written so far; the engine's own counts."""

    read_rows: int = 0
    read_bytes: int = 0
    written_rows: int = 0
    written_bytes: int = 0
    total_rows_to_read: int = 0
    result_rows: int = 0
    result_bytes: int = 0
    elapsed_ns: int = 0

    def update(self, progress: dict[str, int]) -> None:
        """Take over the engine's progress."""
        for name in ("read_rows", "read_bytes", "written_rows", "written_bytes", "total_rows_to_read"):
            setattr(self, name, progress[name])


class Run:
    """One statement under way: made by `Engine.prepare`, executed in one thread, cancelled from any other."""

    def __init__(self, engine: Engine, statement: Statement, name: str, session: Session | None = None) -> None:
        self.engine = engine
        self.statement = statement
        self.id = name
        self.counts = Counts()
        self.cancelled = False
        #: Whether it gives a result at all, be it an empty one; known when it has ended.
        self.gives_result = False
        # A handle once read-only stays so: a reader's statements get one of their own, in a session too.
        self._session = session if statement.user.may_write else None
        self._of_reader = None if statement.user.may_write else session
        self._revision = 0
        self._columns: list[tuple[str, str]] | None = None
        self._done = threading.Event()
        self._began = time.monotonic()

    def execute(self, sink: Reader) -> None:
        """Run the statement and write its result to ``sink``. Raises EngineError."""
        try:
            with self._handle() as handle:
                handle.set_progress_callback(self.counts.update)
                try:
                    self._prepare(handle)
                    if self.cancelled:
                        raise _cancelled()
                    self._run(handle, sink)
                finally:
                    self._leave(handle)
        except EngineError:
            raise
        except BrokenPipeError:
            raise _cancelled() from None
        except Exception as error:  # chDB raises RuntimeError and its own kinds alike
            raise EngineError.of(error) from None
        finally:
            self.counts.elapsed_ns = int((time.monotonic() - self._began) * 1e9)
            self._done.set()

    def counts_now(self) -> Counts:
        """What has been read and written so far."""
        if not self._done.is_set():
            self.counts.elapsed_ns = int((time.monotonic() - self._began) * 1e9)
        return self.counts

    def cancel(self) -> None:
        """Cancel; returns when the engine has taken notice, or the statement has ended."""
        self.cancelled = True
        while not self._done.is_set() and not self.engine.kill(self.id):
            self._done.wait(_CANCEL_EVERY)

    @contextlib.contextmanager
    def _handle(self) -> Iterator[Any]:
        if self._session is not None:
            yield self._session.handle
            return
        handle = self.engine.open()
        try:
            yield handle
        finally:
            handle.close()

    @property
    def _database(self) -> str:
        """The database that names without one are of; empty for the engine's own default."""
        # A USE asks for none: the one before may have been dropped.
        chosen = self._of_reader.database if self._of_reader and first_word(self.statement.text) != "use" else ""
        return self.statement.database or chosen or next(iter(self.statement.user.databases or ()), "")

    def _choose(self, database: str) -> None:
        """Let a reader's USE last in its session. Raises EngineError for a database that it may not read."""
        allowed = self.statement.user.databases
        if allowed is not None and database not in (*allowed, "default"):
            raise denied(f"SHOW DATABASES ON {database}.*")
        if self._of_reader is not None:
            self._of_reader.database = database

    def _prepare(self, handle: Any) -> None:
        """Give the handle the statement's settings, database and tables. Raises what chDB raises."""
        wanted = {**self.statement.settings, ID: self.id}
        statement = self.statement
        if self._session is not None:
            self._session.prepare(statement.text, statement.database, wanted)
        else:
            if self._database:
                handle.query(f"use {quote_name(self._database)}")
            if not statement.tables and statement.read_only != "0":
                wanted["readonly"] = statement.read_only
            handle.query(set_statement(wanted))
        for table in statement.tables:
            structure = table.structure if statement.user.may_write else _plain_structure(handle, table)
            handle.query(f"create temporary table {quote_name(table.name)} ({structure}\n)")
        if self._session is None and statement.tables and statement.read_only != "0":
            handle.query(set_statement({"readonly": statement.read_only}))
        for table in statement.tables:
            path = quote(DESCRIPTOR.format(table.descriptor))
            source = f"from infile {path} compression 'none' format {table.format}"
            handle.query(f"insert into {quote_name(table.name)} {source}")
        self.counts = Counts()
        handle.set_progress_callback(self.counts.update)

    def _leave(self, handle: Any) -> None:
        """Leave a session as it was."""
        handle.set_progress_callback(None)
        if self._session is not None:
            for table in self.statement.tables:
                handle.query(f"drop temporary table if exists {quote_name(table.name)}")

    def _run(self, handle: Any, sink: Reader) -> None:
        statement, connection = self.statement, handle._conn
        shape = shape_of(statement.text)
        _refuse_impossible(shape, takes_data=statement.source is not None)
        kind = query_class.MUTATING
        if statement.source is None:
            kind = connection.classify_query(statement.text)["query_class"]
        if statement.read_only != "0":
            self._refuse_writes(handle, shape, kind)
        if self.engine.accounts.execute(shape.query):
            return
        if is_kill(statement.text):
            self._write(kill(connection, shape, statement.output, statement.parameters), sink)
            return
        if kind != query_class.READ_ONLY:
            if shape.first in _DEFINES:
                self.engine.refuse_without_room()
            result = connection.query(statement.text, statement.output, params=statement.parameters)
            self._write(result, sink)
            if kind == query_class.MUTATING:
                self._count_writing(result)
            elif shape.first == "use" and not statement.user.may_write:
                self._choose(connection.query("select currentDatabase()", "TSVRaw").bytes().decode().strip())
            return
        self.gives_result = True
        # SHOW tells of the tables by which that is done.
        if shape.first != "show":
            shape = shape_of(in_query(statement.text, system=statement.user.databases is None))
        if statement.user.may_write:
            self._read(connection, shape, sink)
            return
        # What is looked at is what runs: the statement as it became.
        with within_rights(handle, self._owner, statement.user, shape, statement.parameters, self._database) as allowed:
            self._read(connection, shape_of(allowed), sink)

    @contextlib.contextmanager
    def _owner(self) -> Iterator[Any]:
        """A handle that may write, beside a reader's own, in the same database. Raises what chDB raises."""
        handle = self.engine.open()
        try:
            if self._database:
                handle.query(f"use {quote_name(self._database)}")
            yield handle
        finally:
            handle.close()

    def _read(self, connection: Any, shape: Shape, sink: Reader) -> None:
        """Run a statement that only reads, in the way that holds least of its result in memory."""
        shape = in_place_of(connection, shape)
        text, parameters = shape.statement, self.statement.parameters
        output = shape.format or self.statement.output
        self._revision = self.statement.revision if output.lower() == "native" else 0
        if output.lower() in _BLOCKWISE:
            with contextlib.suppress(_NotBlockwiseError):
                self._read_blockwise(connection, shape, sink)
                return
        else:
            redirected = shape.redirected(sink.sink, output)
            if connection.classify_query(redirected)["query_class"] == query_class.CONTROL:
                result = connection.query(redirected, output, params=parameters)
                self.counts.result_rows = result.rows_read()
                return
        self._write(connection.query(text, output, params=parameters), sink, shape)

    def _read_blockwise(self, connection: Any, shape: Shape, sink: Reader) -> None:
        """Hand over a result block by block. Raises _NotBlockwiseError before anything has run."""
        try:
            stream = connection.send_query(shape.statement, self.statement.output, params=self.statement.parameters)
        except RuntimeError as error:
            if _NOT_BLOCKWISE in str(error):
                raise _NotBlockwiseError from None
            raise
        try:
            while True:
                block = connection.streaming_fetch_result(stream)
                self._write(block, sink, shape)
                if block is None or block.rows_read() == 0:
                    return
        except (BrokenPipeError, EngineError):
            connection.streaming_cancel_query(stream)
            raise

    def _write(self, result: Any, sink: Reader, shape: Shape | None = None) -> None:
        """Write all that a result holds."""
        if result is None:
            return
        data = self._for_client(result.bytes() or b"", shape)
        self.counts.result_rows += result.rows_read()
        self.counts.result_bytes += len(data)
        self.gives_result |= bool(data)
        sink.put(data)

    def _count_writing(self, result: Any) -> None:
        """Count as a server does: what was written is the result, and the data of an INSERT was read."""
        counts = self.counts
        if self.statement.source is not None and result is not None:
            counts.read_rows = max(counts.read_rows, result.rows_read())
            counts.read_bytes = max(counts.read_bytes, result.bytes_read())
        counts.result_rows, counts.result_bytes = counts.written_rows, counts.written_bytes

    def _for_client(self, block: bytes, shape: Shape | None) -> bytes:
        """A block as the client's revision of the protocol has it."""
        if not block or shape is None or self._revision < native.WITH_INFO:
            return block
        if self._revision >= native.WITH_ZONES and native.has_moments(block):
            if self._columns is None:
                self._columns = self._describe(shape)
            block = native.with_zones(block, self._columns)
        if self._revision >= native.WITH_SERIALIZATIONS:
            block = native.with_serializations(block)
        return native.with_info(block)

    def _describe(self, shape: Shape) -> list[tuple[str, str]]:
        """Names and types of a query's columns; none when they cannot be told apart from its session."""
        query = b"describe (\n" + shape.query + b"\n)"
        try:
            with self._owner() as handle:
                listed = handle.query(query, "JSONCompactEachRow", params=self.statement.parameters).bytes()
        except RuntimeError:
            return []
        return [(name, kind) for name, kind, *_ in map(json.loads, listed.splitlines())]

    def _refuse_writes(self, handle: Any, shape: Shape, kind: Any) -> None:
        """The engine enforces ``readonly`` on handles; here is what that leaves open, and all of it in sessions.

        Raises EngineError, and what chDB raises of a statement that it cannot read.
        """
        if kind == query_class.READ_ONLY:
            return
        if kind == query_class.CONTROL and (
            shape.first == "use" or (self.statement.read_only == "2" and shape.first == "set")
        ):
            return
        if kind == query_class.UNKNOWN:
            if self._session is None and self.statement.user.may_write:
                # The engine says what is wrong with it.
                return
            _refuse_unreadable(handle, shape)
        raise refused("READONLY", 164, NOT_TO_WRITE)


def _refuse_unreadable(handle: Any, shape: Shape) -> None:
    """Let the engine say what is wrong with a statement that it cannot read, without a chance to run it. Raises
    EngineError for one that it cannot read.
    """
    text = quote(shape.statement[: shape.end].decode("utf-8", "surrogateescape"))
    try:
        handle.query(f"select formatQuery({text})".encode("utf-8", "surrogateescape"), "Null")
    except RuntimeError as error:
        told = EngineError.of(error)
        raise EngineError(_WHERE_READ.sub("", str(told)), told.code) from None


class _NotBlockwiseError(Exception):
    """The engine does not hand over this statement's result block by block."""


def _plain_structure(handle: Any, table: Table) -> str:
    """The names and types of a reader's table. Raises EngineError for more than that, and for another format than
    `_PLAIN_FORMATS`; and what chDB raises.

    The engine is asked for each type by itself, so that it takes no expression for a part of a column.
    """
    if table.format.lower() not in _PLAIN_FORMATS:
        raise refused("UNKNOWN_FORMAT", 73, f"Format {table.format} is not for tables of users who may only read.")
    columns = []
    for column in split_list(table.structure):
        text = column.encode("utf-8", "surrogateescape")
        name = next(tokens(text), None)
        if name is None or name.kind not in ("word", "name"):
            raise refused("SYNTAX_ERROR", 62, f"Syntax error: no column: {column}")
        kind = quote(text[name.end :].strip().decode("utf-8", "surrogateescape"))
        known = handle.query(f"select toTypeName(defaultValueOfTypeName({kind}))", "TSVRaw").bytes().decode()
        columns.append(f"{quote_name(unquote(name))} {known.strip()}")
    return ", ".join(columns)


def _cancelled() -> EngineError:
    return refused("QUERY_WAS_CANCELLED", CANCELLED, "Query was cancelled.")


def _refuse_impossible(shape: Shape, *, takes_data: bool) -> None:
    """What a server refuses before it looks at a statement's sense. Raises EngineError."""
    if shape.blank:
        raise refused("SYNTAX_ERROR", 62, "Syntax error: failed at position 1 (end of query): Empty query.")
    if not shape.single:
        raise refused("SYNTAX_ERROR", 62, "Syntax error: Multi-statements are not allowed.")
    if shape.file == "OUTFILE":
        raise refused("INTO_OUTFILE_NOT_ALLOWED", 228, "INTO OUTFILE is not allowed.")
    if shape.file == "INFILE" and not takes_data:
        raise refused("UNKNOWN_TYPE_OF_QUERY", 78, "Query has infile and was send directly to server.")


def _users_xml(users: Iterable[User]) -> str:
    """The engine's users beside ``default``: those whose databases are limited, with their grants, and nobody."""
    limited = [(user.name, user.databases) for user in users if user.databases]
    return _USERS.format(
        readers="\n".join(
            _READER.format(
                name=name,
                grants="".join(f"<query>grant select on {quote_name(database)}.*</query>" for database in databases),
            )
            for name, databases in [*limited, (NOBODY, (_NOWHERE,))]
        )
    )


class Engine:
    """The engine over one data folder, and its sessions. Methods may be called from any thread."""

    def __init__(self, path: Path, users: dict[str, User], memory_limit: int = MEMORY_LIMIT) -> None:
        """Open the folder; it is kept open. ``users`` is kept up to date with those made by SQL. Raises EngineError."""
        config = path.with_name(f"{path.name}.config.xml")
        defaults = "".join(f"&{name}={quote_url(value)}" for name, value in _DEFAULTS.items())
        users_file = path.with_name(f"{path.name}.users.xml")
        users_file.write_text(_users_xml(users.values()), encoding="utf-8")
        config.write_text(_CONFIG.format(memory=memory_limit, users=users_file), encoding="utf-8")
        self._path = path
        self._target = f"{path}?config-file={config}{defaults}"
        self.accounts = Accounts(users, path.with_name(f"{path.name}.accounts.json"))
        #: By user and id.
        self._sessions: dict[tuple[str, str], Session] = {}
        self._guard = threading.Lock()
        self._control = threading.Lock()
        try:
            # The first handle opens the folder and keeps it open; only this class uses it.
            self._first = self.open()
            for statement in SETUP:
                self._first.query(statement)
            told = self._first.query("select version(), serverTimezone()", "TSVRaw").bytes().decode()
        except Exception as error:  # chDB raises RuntimeError and its own kinds alike
            raise EngineError.of(error) from None
        self.version, self.timezone = told.split()

    def refuse_without_room(self) -> None:
        """Raises EngineError when the disk has no room for a definition."""
        if shutil.disk_usage(self._path).free < MIN_FREE_FOR_DEFINITIONS:
            told = f"Cannot write a definition: the disk has less than {MIN_FREE_FOR_DEFINITIONS} bytes free."
            raise refused("NOT_ENOUGH_SPACE", 243, told)

    def open(self) -> Any:
        """A new handle. Raises what chDB raises."""
        return chdb.connect(self._target)

    def cancel_all(self) -> None:
        """Cancel what runs; returns at once."""
        with self._control, contextlib.suppress(Exception):
            self._first.query("kill query where query_id != queryID() async")

    def close(self) -> None:
        """Cancel what still runs, and close every handle; what was inserted is on disk already."""
        self.cancel_all()
        with self._control:
            for session in self._sessions.values():
                if session.busy.acquire(timeout=0.2):
                    session.close()
            self._first.close()

    def kill(self, name: str) -> bool:
        """Cancel the statement of that id; False when the engine runs none."""
        statement = shape_of(f"kill query where query_id = {quote(name)} async".encode())
        with self._control:
            try:
                return bool(kill(self._first, statement, "TSV", {}).bytes())
            except Exception as error:  # chDB raises RuntimeError and its own kinds alike
                raise EngineError.of(error) from None

    def is_killed(self, name: str) -> bool:
        """Whether the statement of that id is killed, but waits for data before it can end."""
        with self._control:
            try:
                return is_killed(self._first, name)
            except Exception as error:  # chDB raises RuntimeError and its own kinds alike
                raise EngineError.of(error) from None

    @contextlib.contextmanager
    def session(self, key: tuple[str, str], timeout: float, *, must_exist: bool) -> Iterator[Session]:
        """A user's session of that id, locked while the block runs. Raises EngineError as the server does."""
        name = key[1]
        with self._guard:
            self._expire()
            session = self._sessions.get(key)
            if session is None:
                if must_exist:
                    raise refused("SESSION_NOT_FOUND", 372, f"Session {name} not found.")
                if sum(user == key[0] for user, _ in self._sessions) >= MAX_SESSIONS:
                    told = f"User {key[0]} has too many sessions. Maximum: {MAX_SESSIONS}."
                    raise refused("USER_SESSION_LIMIT_EXCEEDED", 700, told)
                session = self._sessions[key] = Session(self.open, timeout)
            if not session.busy.acquire(blocking=False):
                raise refused("SESSION_IS_LOCKED", 373, f"Session {name} is locked by a concurrent client.")
        try:
            yield session
        finally:
            session.timeout = timeout
            session.last_used = time.monotonic()
            session.busy.release()

    def end_session(self, key: tuple[str, str]) -> None:
        """Close a session that nobody uses."""
        with self._guard:
            session = self._sessions.get(key)
            if session is not None and session.busy.acquire(blocking=False):
                del self._sessions[key]
                session.close()

    def _expire(self) -> None:
        now = time.monotonic()
        for key, session in list(self._sessions.items()):
            if now - session.last_used > session.timeout and session.busy.acquire(blocking=False):
                del self._sessions[key]
                session.close()
