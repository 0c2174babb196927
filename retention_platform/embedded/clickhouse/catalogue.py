"""SHOW CREATE of the tables of ``system``, which the engine keeps in memory without their statements."""

from __future__ import annotations

from typing import Any

from retention_platform.embedded.clickhouse.sql import Shape, quote, shape_of, tokens, unquote

_SYSTEM = "system"
#: A comment as a literal, behind its keyword; nothing when there is none.
_COMMENT = r"if(comment = '', '', concat('COMMENT \'', replaceRegexpAll(comment, '([\'\\\\])', '\\\\\\1'), '\''))"
#: From the name of a table, its statement; no row when there is no such table, or the engine knows its statement.
_STATEMENT = f"""select concat(
    'CREATE TABLE {_SYSTEM}.', name, '\\n(\\n',
    (
        select arrayStringConcat(groupArray(trimRight(concat('    `', name, '` ', type, ' ', {_COMMENT}))), ',\\n')
        from (select * from system.columns where database = '{_SYSTEM}' and table = {{name}} order by position)
    ),
    '\\n)\\nENGINE = ', if(engine_full = '', engine, engine_full),
    if(comment = '', '', '\\n'), {_COMMENT}
) as statement
from system.tables where database = '{_SYSTEM}' and name = {{name}} and create_table_query = ''
"""


def shown_table(query: bytes, database: str) -> str | None:
    """Which table of ``system`` a SHOW asks the statement of, where a name alone is one of ``database``; None for any
    other SHOW.
    """
    words = [token for token in tokens(query) if token.text != b";"]
    if len(words) > 3 and words[-2].text == b".":
        database = unquote(words[-3])
        words[-3:] = words[-1:]
    asked = [word.text.lower() for word in words[1:-1]]
    if asked not in ([b"create"], [b"table"], [b"create", b"table"]):
        return None
    return unquote(words[-1]) if database == _SYSTEM else None


def in_place_of(connection: Any, shape: Shape) -> Shape:
    """The statement to run in place of one that shows what the engine does not know; others as they are. Raises what
    chDB raises.
    """
    if shape.first != "show":
        return shape
    database = connection.query(b"select currentDatabase()", "TSVRaw").bytes().decode().strip()
    name = shown_table(shape.query, database)
    if name is None:
        return shape
    statement = _STATEMENT.format(name=quote(name)).encode()
    known = connection.query(b"select count() from (" + statement + b")", "TSVRaw").bytes()
    return shape_of(statement + shape.tail) if int(known) else shape
