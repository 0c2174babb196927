"""The engine (chDB) over one data folder: handles, sessions, one statement at a time with its settings.

Every statement gets a handle of its own, so that settings never leak from one to the next; what must last
(temporary tables, SET, USE) lasts in a session. Knows nothing of HTTP.
"""

from __future__ import annotations

import contextlib
import json
import re
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import chdb

from retention_platform.embedded.clickhouse.sql import first_word, quote, quote_name

#: Bytes that all queries together may take: one part among several on a laptop.
MEMORY_LIMIT = 8 * 1024**3
MARK_CACHE = 512 * 1024**2

# No section for a system log means that none is written.
_CONFIG = f"""<clickhouse>
    <max_server_memory_usage>{MEMORY_LIMIT}</max_server_memory_usage>
    <mark_cache_size>{MARK_CACHE}</mark_cache_size>
    <background_pool_size>2</background_pool_size>
    <background_merges_mutations_concurrency_ratio>2</background_merges_mutations_concurrency_ratio>
    <background_schedule_pool_size>4</background_schedule_pool_size>
</clickhouse>
"""

_CODE = re.compile(r"Code: (\d+)\. DB::Exception: ")
_FILE = re.compile(r": \(in file/uri [^)]*\)")
_VERSION = re.compile(r" \(version [^)]*\)\. \([A-Z0-9_]+\)$")
_READS = re.compile(r"^(Select|Show|Describe|Explain|Exists|Use|Set\b|Check)")


class EngineError(Exception):
    """An exception of the engine, or one in its manner, with its code."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code

    @classmethod
    def of(cls, error: Exception) -> EngineError:
        """What chDB raised, as a server would tell it: code and text once, no path of ours."""
        text = str(error).strip()
        codes = _CODE.findall(text)
        # 1001 is STD_EXCEPTION: an error that the engine gave no code.
        code = int(codes[0]) if codes else 1001
        return cls(_VERSION.sub("", _FILE.sub("", _CODE.sub("", text))), code)

    @property
    def text(self) -> str:
        """The text as the server sends it."""
        return f"Code: {self.code}. DB::Exception: {self}"


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


@dataclass(frozen=True)
class Result:
    """A statement's answer; counts are the engine's."""

    data: bytes
    read_rows: int
    read_bytes: int
    written_rows: int
    written_bytes: int
    seconds: float


class Session:
    """A handle that outlives a statement.

    What a request sets by URL holds for its statement only, so the handle's own values are put back, at the latest
    when the next statement wants others: clients that always send the same settings pay for them once.
    """

    def __init__(self, handle: Any, timeout: float) -> None:
        self.handle = handle
        self.timeout = timeout
        self.busy = threading.Lock()
        self.last_used = time.monotonic()
        self._settings: dict[str, str] = {}
        self._own_settings: dict[str, str | None] = {}
        self._database = self._own_database = ""

    def prepare(self, statement: Statement) -> None:
        """Give the handle the statement's settings and database. Raises what chDB raises."""
        if statement.read_only != "0":
            self._refuse_writes(statement)
        # SET and USE change the session itself, not what lies over it.
        last = first_word(statement.text) in ("set", "use")
        self._use("" if last else statement.database)
        self._set({} if last else statement.settings)

    def _use(self, database: str) -> None:
        if database == self._database:
            return
        if not self._database:
            self._own_database = self.handle.query("select currentDatabase()", "TSVRaw").bytes().decode().strip()
        self.handle.query(f"use {quote_name(database or self._own_database)}")
        self._database = database

    def _set(self, wanted: dict[str, str]) -> None:
        if wanted == self._settings:
            return
        names = [name for name in wanted if name not in self._own_settings]
        own: dict[str, str | None] = dict.fromkeys(names)
        if names:
            listed = ", ".join(map(quote, names))
            query = f"select name, value from system.settings where changed and name in ({listed})"
            for line in self.handle.query(query, "JSONCompactEachRow").bytes().splitlines():
                name, value = json.loads(line)
                own[name] = value
        changes = {name: quote(value) for name, value in wanted.items() if self._settings.get(name) != value}
        for name in self._settings.keys() - wanted.keys():
            value = self._own_settings[name]
            changes[name] = "default" if value is None else quote(value)
        self.handle.query(_set(changes))
        self._own_settings = {n: v for n, v in (self._own_settings | own).items() if n in wanted}
        self._settings = dict(wanted)

    def _refuse_writes(self, statement: Statement) -> None:
        """A session cannot be made read-only for one statement, so the engine's parser tells what it is."""
        tree = self.handle.query(b"explain ast " + statement.text, "TSVRaw", params=statement.parameters).bytes()
        if not _READS.match((tree or b"").decode().lstrip()):
            raise EngineError("Cannot execute query in readonly mode. (READONLY)", 164)


class Engine:
    """The engine over one data folder, and its sessions. Methods may be called from any thread."""

    def __init__(self, path: Path) -> None:
        """Open the folder; it is kept open. Raises EngineError."""
        config = path.with_name(f"{path.name}.config.xml")
        config.write_text(_CONFIG, encoding="utf-8")
        self._target = f"{path}?config-file={config}"
        self._sessions: dict[str, Session] = {}
        self._guard = threading.Lock()
        try:
            # The first handle opens the folder and keeps it open.
            self._first = self._open()
        except Exception as error:  # chDB raises RuntimeError and its own kinds alike
            raise EngineError.of(error) from None

    def close(self) -> None:
        """Cancel what still runs, and close every handle; what was inserted is on disk already."""
        with contextlib.suppress(Exception):
            self._first.query("kill query where query_id != queryID() async")
        for session in self._sessions.values():
            if session.busy.acquire(timeout=1):
                session.handle.close()
        self._first.close()

    def run(self, statement: Statement, session: Session | None = None) -> Result:
        """Run one statement, in ``session`` (locked by the caller) or on a handle of its own. Raises EngineError."""
        began = time.monotonic()
        try:
            if session is not None:
                session.prepare(statement)
                return _run(session.handle, statement, began)
            handle = self._open()
            try:
                _prepare(handle, statement)
                return _run(handle, statement, began)
            finally:
                handle.close()
        except EngineError:
            raise
        except Exception as error:  # chDB raises RuntimeError and its own kinds alike
            raise EngineError.of(error) from None

    @contextlib.contextmanager
    def session(self, name: str, timeout: float, *, must_exist: bool) -> Iterator[Session]:
        """The session of that name, locked while the block runs. Raises EngineError as the server does."""
        with self._guard:
            self._expire()
            session = self._sessions.get(name)
            if session is None:
                if must_exist:
                    raise EngineError(f"Session {name} not found. (SESSION_NOT_FOUND)", 372)
                session = self._sessions[name] = Session(self._open(), timeout)
            if not session.busy.acquire(blocking=False):
                raise EngineError(f"Session {name} is locked by a concurrent client. (SESSION_IS_LOCKED)", 373)
        try:
            yield session
        finally:
            session.timeout = timeout
            session.last_used = time.monotonic()
            session.busy.release()

    def end_session(self, name: str) -> None:
        """Close a session that nobody uses."""
        with self._guard:
            session = self._sessions.get(name)
            if session is not None and session.busy.acquire(blocking=False):
                del self._sessions[name]
                session.handle.close()

    def _expire(self) -> None:
        now = time.monotonic()
        for name, session in list(self._sessions.items()):
            if now - session.last_used > session.timeout and session.busy.acquire(blocking=False):
                del self._sessions[name]
                session.handle.close()

    def _open(self) -> Any:
        return chdb.connect(self._target)  # type: ignore[no-untyped-call]


def _prepare(handle: Any, statement: Statement) -> None:
    """Give a fresh handle the statement's settings and database."""
    if statement.database:
        handle.query(f"use {quote_name(statement.database)}")
    changes = {name: quote(value) for name, value in statement.settings.items()}
    if statement.read_only != "0":
        changes["readonly"] = quote(statement.read_only)
    if changes:
        # One statement, since nothing can be set after `readonly`.
        handle.query(_set(changes))


def _set(changes: dict[str, str]) -> str:
    return "set " + ", ".join(f"{quote_name(name)} = {value}" for name, value in changes.items())


def _run(handle: Any, statement: Statement, began: float) -> Result:
    answer = handle.query(statement.text, statement.output, params=statement.parameters)
    return Result(
        data=answer.bytes() or b"",
        read_rows=answer.storage_rows_read(),
        read_bytes=answer.storage_bytes_read(),
        written_rows=answer.rows_written(),
        written_bytes=answer.bytes_written(),
        seconds=time.monotonic() - began,
    )
