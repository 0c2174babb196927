"""Statements of readers, within what their user may read.

The engine runs everything as one user; a view can run as another: ``DEFINER = bi SQL SECURITY DEFINER``. So a reader's
query becomes a view with its user as definer, and the engine checks each table it reads, whatever way it comes to it,
against that user's grants, and shows only what they cover in system tables. Before that it is analyzed on a read-only
handle, because making a view would already ask a table function's source for its columns.

What grants do not cover is refused by what the engine's own parser reads in the statement: the function ``file``, and
what could hide it; and where databases are limited, table functions but harmless ones, dictionaries, and system tables
that tell of others' statements.
"""

from __future__ import annotations

import contextlib
import re
import uuid
from collections.abc import Callable, Iterator
from typing import Any

from retention_platform.embedded.clickhouse.errors import EngineError, refused
from retention_platform.embedded.clickhouse.names import DATABASE
from retention_platform.embedded.clickhouse.sql import Shape, quote_name
from retention_platform.embedded.clickhouse.users import User

#: Functions that read what no grant covers: files, and objects of this process.
_FORBIDDEN = {"file", "python"}
#: Table functions that may be given columns, or a query, as a text: the tree tells nothing of the expressions in it.
TABLES_OF_TEXT = {"values", "null", "generaterandom", "input", "eval", "fuzzquery", "fuzzjson"}
#: Table functions that read nothing but their arguments. Any query within them is in the tree too.
_TABLE_FUNCTIONS = {"numbers", "numbers_mt", "zeros", "zeros_mt", "generateseries", "generate_series", "view"}
#: Functions that read a dictionary or a table named by a text. While a query is analyzed, no grant is asked of them.
_BY_NAME = ("dictget", "dicthas", "dictisin", "joinget")
#: What the tree of a SHOW does not tell: expressions.
_CONDITION = re.compile(rb"\b(where|limit)\b", re.IGNORECASE)
#: System tables without anything of others' statements. Of objects they show those that the user's grants cover.
_SYSTEM_TABLES = {
    *("one", "numbers", "zeros", "databases", "tables", "columns", "settings", "functions", "formats", "time_zones"),
    *("data_type_families", "build_options", "table_engines", "keywords", "collations"),
}

# EXPLAIN AST writes one node a line, children indented by one blank more.
_NODE = re.compile(r"^(?P<indent> *)(?P<kind>\w+)(?: (?P<name>.*?))?(?: \(alias .*?\))?(?: \(children \d+\))?$")
_Opening = Callable[[], contextlib.AbstractContextManager[Any]]
_SELECTS = ("SelectWithUnionQuery", "SelectIntersectExceptQuery")
_OF_A_TABLE = ("DescribeQuery", "ExistsTableQuery", "ExistsViewQuery", "ShowCreateTableQuery", "ShowCreateViewQuery")


@contextlib.contextmanager
def within_rights(
    handle: Any, open_owner: _Opening, user: User, shape: Shape, parameters: dict[str, str], database: str
) -> Iterator[bytes]:
    """The statement to run in place of a reader's while the block runs.

    ``handle`` is the reader's, read-only, ``open_owner`` opens one that may write; ``database`` is the current one.
    Raises EngineError for what the user may not do, and what chDB raises.
    """
    tree = _tree(handle, shape.query, parameters)
    _refuse_forbidden(tree, user)
    if any(kind.lower().startswith("show") for _, kind, _ in tree) and _CONDITION.search(shape.query):
        raise denied("SHOW with a condition")
    if user.databases is None:
        yield shape.statement
    elif (database or "default") not in (*user.databases, "default"):
        # A name alone would mean a table of it, unseen by what looks at names.
        raise denied(f"SELECT ON {database}.*")
    elif tree[0][1] in _SELECTS:
        with open_owner() as owner, _as_view(handle, owner, user, shape, parameters) as statement:
            yield statement
    elif shape.query.lower().split() == [b"show", b"databases"]:
        names = ", ".join(f"'{name}'" for name in user.databases) or "''"
        yield f"select name from system.databases where name in ({names}) order by name ".encode() + shape.tail
    else:
        _refuse_elsewhere(tree, user, database)
        yield shape.statement


@contextlib.contextmanager
def _as_view(handle: Any, owner: Any, user: User, shape: Shape, parameters: dict[str, str]) -> Iterator[bytes]:
    handle.query(b"describe (\n" + shape.query + b"\n)", "Null", params=parameters)
    query = shape.query
    if parameters:
        # In a view they would be its own parameters; the engine puts their values into the text.
        query = handle.query(b"explain syntax oneline = 1 " + query, "TSVRaw", params=parameters).bytes()
    name = f"{DATABASE}.{quote_name(uuid.uuid4().hex)}"
    head = f"create view {name} definer = {quote_name(user.engine_name)} sql security definer as\n".encode()
    owner.query(head + query)
    try:
        yield f"select * from {name}\n".encode() + shape.tail
    finally:
        owner.query(f"drop view {name}")


def _tree(handle: Any, query: bytes, parameters: dict[str, str]) -> list[tuple[int, str, str]]:
    """The nodes of the statement as the engine's parser reads it: depth, kind, name."""
    lines = handle.query(b"explain ast " + query, "TSVRaw", params=parameters).bytes().decode("utf-8", "replace")
    nodes = [
        (len(match["indent"]), match["kind"], match["name"] or "")
        for match in map(_NODE.match, lines.splitlines())
        if match
    ]
    if not nodes:
        raise denied("this statement")
    return nodes


def _refuse_forbidden(tree: list[tuple[int, str, str]], user: User) -> None:
    before = (0, "", "")
    for node in tree:
        depth, kind, name = node
        # Functions may be called by name, and be passed on by it. An alias may have a line break, and then stays here.
        called = name.split(maxsplit=1)[0].lower() if name and kind in ("Function", "Identifier") else ""
        if called in _FORBIDDEN or (kind == "Function" and called in TABLES_OF_TEXT):
            raise denied(f"the function {called}")
        if kind == "ColumnsApplyTransformer":
            # What it applies is not in the tree.
            raise denied("APPLY")
        if user.databases is not None:
            is_table = before[1] == "TableExpression" and depth == before[0] + 1
            owner, _, table = name.partition(".")
            # What has a database before its name is a view with parameters; grants cover it as any view.
            if kind == "Function" and is_table and not table and called not in _TABLE_FUNCTIONS:
                raise denied(f"the table function {called}")
            if called.startswith(_BY_NAME):
                raise denied(f"the function {called}")
            # A column's name may have its table's before it.
            if kind.endswith("Identifier") and owner.lower() == "system" and table.split(".")[0] not in _SYSTEM_TABLES:
                raise denied(f"SELECT ON {name}")
        before = node


def _refuse_elsewhere(tree: list[tuple[int, str, str]], user: User, database: str) -> None:
    """Let a statement about one table, or the tables of one database, be about the user's databases only."""
    names = [name for _, kind, name in tree[1:] if kind.endswith("Identifier")]
    kinds = {kind for _, kind, _ in tree[1:]}
    if tree[0][1] in _OF_A_TABLE and kinds <= {"TableExpression", "TableIdentifier", "Identifier"} and names:
        parts = ".".join(names).split(".")
        where = parts[0] if len(parts) == 2 else database if len(parts) == 1 else ""
    elif tree[0][1] == "ShowTables" and kinds <= {"Identifier"}:
        where = names[0] if names else database
    else:
        raise denied("this statement")
    if where not in (user.databases or ()):
        raise denied(f"SHOW ON {where}")


def denied(what: str) -> EngineError:
    """The error that says what a user would need to be granted."""
    message = f"Not enough privileges. To execute this query, it's necessary to have {what}."
    return refused("ACCESS_DENIED", 497, message)
