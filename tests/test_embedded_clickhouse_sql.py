"""Where an INSERT's data begins, what format a query names: against statements whose parts are known."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retention_platform.embedded.clickhouse.sql import format_of, insert_of, shape_of

GAP = st.lists(
    st.sampled_from([" ", "\n", "\t", "/* insert into x format CSV */", "-- values; ' \"\n", "# format `\n"]),
    min_size=1,
).map(lambda parts: " " + "".join(parts) + " ")
NAME = st.sampled_from(
    ["t", "values", "format", "settings", "a.b", "`we``ird; values`", '"sel\\"ect"', "`a`.`format X`"]
)
COLUMNS = st.sampled_from(["", "()", "(x)", "(x, `values (`, select)", "(* except (a))", "(with, from)"])
SETTINGS = st.sampled_from(
    ["", "settings a = 1", "settings a = 'x format CSV', b = 2", "settings a='it''s \\' values'"]
)
STRING = st.sampled_from(["'format CSV'", "'it''s; \\''", "$$ values ( ' $$", "$x$ $$ format TSV $x$", "`format`"])
DATA = st.binary(max_size=40)


@given(gaps=st.lists(GAP, min_size=6, max_size=6), name=NAME, columns=COLUMNS, settings=SETTINGS, data=DATA)
def test_the_data_of_an_insert_begins_behind_the_line_of_its_format(
    gaps: list[str], name: str, columns: str, settings: str, data: bytes
) -> None:
    before = f"{gaps[0]}insert{gaps[1]}into{gaps[2]}{name}{gaps[3]}{columns}"
    text = f"{before}{gaps[4]}{settings}{gaps[5]}format RowBinary \r\n".encode()
    insert = insert_of(text + data)
    assert insert is not None
    assert (insert.format, insert.data, insert.settings.startswith(settings)) == ("RowBinary", len(text), True)
    assert insert.into.startswith(before.strip())
    values = f"{before}{gaps[4]}{settings}{gaps[5]}values".encode()
    insert = insert_of(values + b" " + data)
    assert insert is not None
    assert (insert.format, insert.data) == ("Values", len(values))


@given(gap=GAP, name=NAME, string=STRING)
def test_an_insert_from_a_query_has_no_data(gap: str, name: str, string: str) -> None:
    for select in (f"select {string}", f"(select {string})", f"with {string} as a select a", f"((select {string}))"):
        assert insert_of(f"insert into {name}{gap}{select} format CSV".encode()) is None
    assert insert_of(f"with 1 as a insert into {name}{gap}select {string}".encode()) is None
    assert insert_of(f"select {string}{gap}format CSV".encode()) is None


@given(st.binary(max_size=60))
def test_any_bytes_are_read_to_the_end(text: bytes) -> None:
    insert = insert_of(b"insert into t " + text)
    assert insert is None or insert.data <= len(text) + 14
    format_of(text)
    shape_of(text)


@given(gap=GAP, string=STRING, settings=SETTINGS)
def test_the_format_of_a_query_is_the_one_at_its_end(gap: str, string: str, settings: str) -> None:
    query = f"select {string}, format({string}), (select 1 format XML){gap}"
    assert format_of(query.encode()) is None
    assert format_of(f"{query} format JSON {settings}{gap};".encode()) == "JSON"
    assert format_of(f"{query} {settings} format JSON{gap}".encode()) == "JSON"
    assert format_of(f"select format from {string} {gap}".encode()) is None


@given(gap=GAP, string=STRING)
def test_a_semicolon_in_a_string_or_at_the_end_makes_no_second_statement(gap: str, string: str) -> None:
    assert shape_of(f"select {string}{gap};{gap}; {gap}".encode()).single
    assert not shape_of(f"select {string}{gap};{gap}select 1".encode()).single


@pytest.mark.parametrize("text", [b"", b" ; -- select 1", b"/* select 1 */\n"])
def test_comments_and_semicolons_alone_are_blank(text: bytes) -> None:
    assert shape_of(text).blank
    assert not shape_of(text + b"\nselect").blank
