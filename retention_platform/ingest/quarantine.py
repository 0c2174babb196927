"""Finds the messages that break a view which the contract's judgement knows nothing of, so that they stop nobody else.

The whole chain from raw.inbox on is built once more beside it, with every table that stores made one that stores
nothing; into that any part of a batch can be tried as often as it takes, and nothing comes of it.
"""

from __future__ import annotations

import random
import re
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, TypeVar

from retention_platform.warehouse.cluster import stored

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client

T = TypeVar("T")

#: Which row of a batch cannot be stored, and why.
Fault = tuple[int, str]

#: A table's place: database and name.
Table = tuple[str, str]

#: Databases whose tables and views the stream runs through; views in others that read from them are found.
_DATABASES = ("raw", "live", "raw_local", "live_local")
#: How many rows must have been found before the others are not tried one by one any more.
ENOUGH = 32
#: How often a batch is asked about before what is not told by then is not tried one by one; each time is an insert.
QUESTIONS = 10_000
#: The same in seconds: so long one batch may hold up those behind it.
SECONDS = 60.0
#: Seconds after which a probe that is still there was left by a process that died.
_LEFT = 3600
#: Why a row is among those found that was not tried alone; ClickHouse's words may hold another row's values.
NOT_TRIED = "not tried alone, since too much of its batch cannot be stored"
_REFERENCE = re.compile(r"(?<![\w.`])`?((?:raw|live)(?:_local)?)`?\.")
_TARGET = re.compile(r"^CREATE MATERIALIZED VIEW \S+ TO (`[^`]+`|\w+)\.(`[^`]+`|\w+)")


def find_poison(rows: Sequence[T], fault: Callable[[Sequence[T]], str | None], seconds: float = SECONDS) -> list[Fault]:
    """The rows for which ``fault`` has a reason, by halving; in the order of their places.

    ``fault`` says why some rows cannot be stored together, None when they can. Where more than a third cannot be, be it
    that a view is broken for all, to try each would stop the stream: then rows that cannot be stored together are found
    as they are, and so after ``seconds``. Rows are tried in a shuffled order, so that a clump of them does not pass for
    the whole.
    """
    order = random.Random(len(rows)).sample(range(len(rows)), len(rows))
    found: list[Fault] = []
    storable = asked = 0
    deadline = time.monotonic() + seconds
    waiting = [(0, len(rows))]
    while waiting:
        start, end = waiting.pop()
        some = order[start:end]
        reason = fault([rows[at] for at in some]) if some else None
        asked += 1
        if reason is None:
            storable += len(some)
        elif len(some) == 1:
            found.append((some[0], reason))
        elif len(found) >= max(ENOUGH, storable // 2) or asked >= QUESTIONS or time.monotonic() >= deadline:
            found += [(at, NOT_TRIED) for at in some]
        else:
            middle = (start + end) // 2
            waiting += [(middle, end), (start, middle)]
    return sorted(found)


class Probe:
    """A copy of the chain that stores nothing; ``inbox`` is where it begins. Gone when the context ends."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._name = f"probe_{int(time.time())}_{uuid.uuid4().hex}"
        # On shards the views are behind each one's own table, not behind the one over all.
        self.inbox = f"{self._name}.{stored(client, 'raw.inbox').replace('.', '_')}"

    def __enter__(self) -> Probe:
        self._clear_away()
        self._client.command(f"create database {self._name} engine = Memory")
        try:
            self._build()
        except BaseException:
            self._drop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._drop()

    def _clear_away(self) -> None:
        """Drop probes that were left behind."""
        names = self._client.query("select name from system.databases where name like 'probe\\_%\\_%'").result_rows
        for (name,) in names:
            made = str(name).split("_")[1]
            if made.isdecimal() and int(made) < time.time() - _LEFT:
                self._client.command(f"drop database if exists `{name}` sync")

    def _build(self) -> None:
        found = self._client.query(
            "select database, name, engine, create_table_query, "
            "arrayZip(dependencies_database, dependencies_table) from system.tables "
            "where database in {databases:Array(String)} or engine = 'MaterializedView' "
            "or notEmpty(dependencies_table)",
            parameters={"databases": list(_DATABASES)},
        ).result_rows
        views = {(database, name): text for database, name, kind, text, _ in found if kind == "MaterializedView"}
        readers: dict[Table, list[Table]] = {
            (database, name): [each for each in map(tuple, read_by) if each in views]
            for database, name, _, _, read_by in found
        }
        ours = [(database, name) for database, name, *_ in found if database in _DATABASES]
        others = _behind(ours, readers, views)
        plain = {(database, name) for database, name, kind, *_ in found if not kind.endswith("View")}
        for database, name in sorted({each for each in ours if each in plain} | (others - views.keys())):
            self._client.command(
                f"create table {self._name}.`{database}_{name}` as `{database}`.`{name}` engine = Null"
            )
        for view in sorted(view for view in views if view in others or view[0] in _DATABASES):
            self._client.command(self._renamed(views[view], others))

    def _renamed(self, definition: str, others: set[Table]) -> str:
        """The same view between the copies: every name of a table in our databases, and of what reads from them in
        others, points into the probe.
        """
        text = re.sub(r" UUID '[0-9a-f-]+'| TO INNER UUID '[0-9a-f-]+'", "", definition)
        # Whoever makes the copy runs it: to run as the original's definer is a right of its own, and not needed.
        text = re.sub(r" DEFINER = \S+ SQL SECURITY \w+", "", text)
        for database, name in others:
            reference = rf"(?<![\w.`])`?{re.escape(database)}`?\.`?{re.escape(name)}`?(?![\w`])"
            copy = f"{self._name}.`{database}_{name}`".replace("\\", r"\\")
            text = re.sub(reference, copy, text)
        return _REFERENCE.sub(lambda match: f"{self._name}.{match[1]}_", text)

    def _drop(self) -> None:
        self._client.command(f"drop database if exists {self._name} sync")


def _behind(ours: Sequence[Table], readers: Mapping[Table, Sequence[Table]], views: Mapping[Table, str]) -> set[Table]:
    """Views in other databases that read from our tables, and what those views write into, one behind the other."""
    seen, waiting = set(ours), list(ours)
    while waiting:
        table = waiting.pop()
        targets = [_target(views[table])] if table in views else []
        for each in [*readers.get(table, ()), *(target for target in targets if target is not None)]:
            if each not in seen:
                seen.add(each)
                waiting.append(each)
    return seen.difference(ours)


def _target(definition: str) -> Table | None:
    """The table that a materialized view writes into; None when it has one of its own."""
    found = _TARGET.match(definition)
    return None if found is None else (found[1].strip("`"), found[2].strip("`"))
