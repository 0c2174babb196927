"""A handle that outlives a statement: temporary tables, SET and USE last in it."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from typing import Any

from retention_platform.embedded.clickhouse.sql import first_word, quote, quote_name


class Session:
    """A handle and what lies over its own settings.

    What a request sets by URL holds for its statement only, so the handle's own values are put back, at the latest
    when the next statement wants others: clients that always send the same settings pay for them once.
    """

    def __init__(self, open_handle: Callable[[], Any], timeout: float) -> None:
        self._open = open_handle
        self._handle: Any = None
        self.timeout = timeout
        self.busy = threading.Lock()
        self.last_used = time.monotonic()
        #: Of a reader, whose statements have handles of their own: the database that USE chose.
        self.database = ""
        self._settings: dict[str, str] = {}
        self._own_settings: dict[str, str | None] = {}
        self._database = self._own_database = ""

    @property
    def handle(self) -> Any:
        """The handle, opened when it is first asked for: a reader's session needs none. Raises what chDB raises."""
        if self._handle is None:
            self._handle = self._open()
        return self._handle

    def close(self) -> None:
        """Close the handle; nobody may use the session any more."""
        if self._handle is not None:
            self._handle.close()

    def prepare(self, text: bytes, database: str, settings: dict[str, str]) -> None:
        """Give the handle a statement's settings and database. Raises what chDB raises."""
        # SET and USE change the session itself, not what lies over it.
        last = first_word(text) in ("set", "use")
        self._use("" if last else database)
        self._set({} if last else settings)

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
        changes: dict[str, str | None] = {n: v for n, v in wanted.items() if self._settings.get(n) != v}
        changes |= {name: self._own_settings[name] for name in self._settings.keys() - wanted.keys()}
        self.handle.query(set_statement(changes))
        self._own_settings = {n: v for n, v in (self._own_settings | own).items() if n in wanted}
        self._settings = dict(wanted)


def set_statement(changes: dict[str, str] | dict[str, str | None]) -> str:
    """A SET of several settings; None puts the default back. In one statement, as nothing follows ``readonly``."""
    pairs = (f"{quote_name(n)} = {'default' if v is None else quote(v)}" for n, v in changes.items())
    return f"set {', '.join(pairs)}"
