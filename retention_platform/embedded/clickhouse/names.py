"""Statements by the ids that clients gave them.

The engine draws its own query ids and takes none. So a statement's id is kept in a setting, which the engine shows and
logs with the statement, and what clients ask by id is asked by that setting: ``system.processes`` and
``system.query_log`` through views with the true ids, ``queryID()``, and the condition of KILL QUERY.
"""

from __future__ import annotations

import json
from typing import Any

from retention_platform.embedded.clickhouse.sql import Shape, quote, with_names

#: The setting; else it only names the client towards other servers.
ID = "chdb_client_name"
#: The database of this server's own views. It is in memory, and made anew at each start.
DATABASE = "_embedded"

_COLUMN = f"(Settings['{ID}'])"
_VIEWS = ("processes", "query_log")
_Names = dict[tuple[bytes, ...], bytes]
_TABLES: _Names = {(b"system", b".", name.encode()): f"{DATABASE}.{name}".encode() for name in _VIEWS}
_FUNCTIONS: _Names = {
    (name, b"(", b")"): f"(getSetting('{ID}') as `queryID()`)".encode() for name in (b"queryid", b"query_id")
}
_IN_KILLS: _Names = {(name,): _COLUMN.encode() for name in (b"query_id", b"initial_query_id")}

_BY_ID = ", ".join(f"if({_COLUMN} = '', {name}, {_COLUMN}) as {name}" for name in ("query_id", "initial_query_id"))

SETUP = (
    f"create database if not exists {DATABASE} engine = Memory",
    # The log's table comes with its first entry.
    "system flush logs query_log",
    *(f"create or replace view {DATABASE}.{name} as select * replace ({_BY_ID}) from system.{name}" for name in _VIEWS),
)


def in_query(statement: bytes, *, system: bool) -> bytes:
    """A statement that reads, by the clients' ids; tables of ``system`` only for those who may read it."""
    return with_names(statement, _FUNCTIONS | _TABLES if system else _FUNCTIONS)


def is_killed(connection: Any, name: str) -> bool:
    """Whether the statement of that id is killed and has not ended yet. Raises what chDB raises."""
    query = f"select count() from system.processes where is_cancelled and {_COLUMN} = {quote(name)}"
    return bool(int(connection.query(query, "TSVRaw").bytes()))


def kill(connection: Any, shape: Shape, output: str, parameters: dict[str, str]) -> Any:
    """The result of a KILL QUERY by the clients' ids, that also tells of those. Raises what chDB raises."""
    query = with_names(shape.query, _IN_KILLS)
    listed = connection.query(f"select query_id, {_COLUMN} from system.processes", "JSONCompactEachRow").bytes()
    given = dict(map(json.loads, listed.splitlines()))
    killed = connection.query(query, "JSONCompactEachRow", params=parameters).bytes() or b""
    rows = [[given.get(value) or value for value in json.loads(line)] for line in killed.splitlines()]
    told = "\n".join(map(json.dumps, rows))
    columns = "kill_status String, query_id String, user String, query String"
    again = f"select * from format(JSONCompactEachRow, '{columns}', {{rows:String}}) ".encode()
    return connection.query(again + shape.tail, output, params={"rows": told})
