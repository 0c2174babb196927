"""Where an INSERT's data begins, what format a query names: against statements whose parts are known."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retention_platform.embedded.clickhouse.sql import (
    format_of,
    insert_of,
    is_kill,
    shape_of,
    split_list,
    with_names,
)

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


@given(gaps=st.lists(GAP, min_size=4, max_size=4), name=NAME, string=STRING, data=DATA)
def test_the_data_that_a_query_reads_by_input_begins_behind_the_line_of_its_format(
    gaps: list[str], name: str, string: str, data: bytes
) -> None:
    query = f"select a, format, {string} as format from{gaps[0]}input{gaps[1]}('a Int8, b String'){gaps[2]}where a > 1"
    text = f"insert into {name} {query}{gaps[3]}format CSV\n".encode()
    insert = insert_of(text + data)
    assert insert is not None
    assert (insert.format, insert.data) == ("CSV", len(text))
    read = insert.from_descriptor(7)
    assert "file('/dev/fd/7', 'CSV', 'a Int8, b String')" in read
    assert "input" not in read.lower().replace("/* insert into x format csv */", "")
    assert insert_of(f"insert into {name} {query}".encode()) is None


@given(gap=GAP, string=STRING, settings=SETTINGS)
def test_a_result_is_redirected_before_its_format_and_behind_all_else(gap: str, string: str, settings: str) -> None:
    query = f"select {string} {settings}{gap}"
    shape = shape_of(f"{query}format JSON settings a = 1;{gap}".encode())
    target = b"into outfile '/dev/fd/5' truncate compression 'none'"
    redirected = shape.redirected(5, "TSV")
    assert redirected.count(target) == 1
    before, after = redirected.split(target)
    assert before.startswith(query.encode())
    assert after.split() == [b"format", b"JSON", b"settings", b"a", b"=", b"1"]
    plain = shape_of(query.encode()).redirected(5, "TSV")
    # A comment at the end must not swallow it.
    assert [token for token in plain.splitlines() if token][-2:] == [target, b"format TSV"]


@given(gap=GAP, string=STRING)
def test_files_of_the_server_are_seen_where_they_are_named_and_only_there(gap: str, string: str) -> None:
    assert shape_of(f"select {string}{gap}into{gap}outfile 'x' format CSV".encode()).file == "OUTFILE"
    assert shape_of(f"insert into t from{gap}infile 'x' format CSV".encode()).file == "INFILE"
    for harmless in (f"select {string}, 'into outfile'", "select into, outfile from t", "select (into outfile)"):
        assert shape_of(harmless.encode()).file == ""


@given(gap=GAP, string=STRING)
def test_names_are_put_otherwise_but_never_within_strings(gap: str, string: str) -> None:
    names = {(b"system", b".", b"processes"): b"mine.p", (b"queryid", b"(", b")"): b"id"}
    text = f"select{gap}queryID(), {string}, 'system.processes' from SYSTEM.`processes`{gap}where queryID = 'queryID()'"
    expected = f"select{gap}id, {string}, 'system.processes' from mine.p{gap}where queryID = 'queryID()'"
    assert with_names(text.encode(), names).decode() == expected


@given(st.binary(max_size=80))
def test_any_bytes_stay_as_they_are_where_no_name_is(text: bytes) -> None:
    assert with_names(text, {(b"no", b"such", b"tokens"): b"x"}) == text


def test_a_kill_is_told_from_what_only_speaks_of_one() -> None:
    assert is_kill(b"/* now */ Kill -- it\n query where 1")
    assert not is_kill(b"select 'kill query'")
    assert not is_kill(b"kill mutation where 1")


def test_lists_are_split_at_their_own_commas() -> None:
    assert split_list("Decimal(3, 2), Enum8('a,b' = 1), Map(String, Array(Int8))") == [
        "Decimal(3, 2)",
        "Enum8('a,b' = 1)",
        "Map(String, Array(Int8))",
    ]
