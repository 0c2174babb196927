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


def shown_table(query: bytes) -> str | None:
    """Which table of ``system`` a statement asks the statement of; None for any other statement."""
    words = [token for token in tokens(query) if token.text != b";"]
    if len(words) < 4 or not words[0].is_word(b"show"):
        return None
    between, (owner, dot, table) = words[1:-3], words[-3:]
    asked = [word.text.lower() for word in between]
    if asked not in ([b"create"], [b"table"], [b"create", b"table"]) or dot.text != b".":
        return None
    return unquote(table) if unquote(owner) == _SYSTEM else None


def in_place_of(connection: Any, shape: Shape) -> Shape:
    """The statement to run in place of one that shows what the engine does not know; others as they are. Raises what
    chDB raises.
    """
    name = shown_table(shape.query)
    if name is None:
        return shape
    statement = _STATEMENT.format(name=quote(name)).encode()
    known = connection.query(b"select count() from (" + statement + b")", "TSVRaw").bytes()
    return shape_of(statement + shape.tail) if int(known) else shape
