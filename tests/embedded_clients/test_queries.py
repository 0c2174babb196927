"""Queries as drivers send them: parameters of every kind, forms, external tables, formats, errors, ids, summaries."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Iterator
from datetime import date, datetime, timedelta
from decimal import Decimal
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import pytest
from clickhouse_connect import common
from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.exceptions import DatabaseError, ProgrammingError
from clickhouse_connect.driver.external import ExternalData
from clickhouse_connect.driver.summary import QuerySummary

from tests.embedded_clients.conftest import Driver

AWKWARD = [
    "it's",
    'say "so"',
    "a\\b",
    "tab\tand\nline\r",
    "",
    " ",
    "é😀",
    "{x:Int8}",
    "NULL",
    "\\N",
    "%s",
    "?",
    "\x00\x01",
    "-- no",
    "`",
]

#: Types, values and what comes back.
BOUND: list[tuple[str, Any, Any]] = [
    ("Int8", -128, -128),
    ("UInt256", 2**256 - 1, 2**256 - 1),
    ("Float64", 2.5, 2.5),
    ("Bool", True, True),
    ("Decimal(20, 5)", Decimal("-1.00001"), Decimal("-1.00001")),
    ("Date", date(2024, 2, 29), date(2024, 2, 29)),
    ("DateTime('UTC')", datetime(2024, 2, 29, 1, 2, 3), datetime(2024, 2, 29, 1, 2, 3)),
    ("UUID", uuid.UUID(int=7), uuid.UUID(int=7)),
    ("IPv4", IPv4Address("1.2.3.4"), IPv4Address("1.2.3.4")),
    ("Nullable(String)", None, None),
    ("Nullable(Int32)", 5, 5),
    ("Array(String)", AWKWARD[:13], AWKWARD[:13]),
    ("Array(Array(Int64))", [[1, 2], []], [[1, 2], []]),
    ("Array(Nullable(Int8))", [1, None], [1, None]),
    ("Tuple(Int8, String)", (1, "a'b"), (1, "a'b")),
    ("Map(String, Int32)", {"a": 1, "b'c": 2}, {"a": 1, "b'c": 2}),
    ("LowCardinality(String)", "x", "x"),
    ("Enum8('a' = 1, 'b' = 2)", "b", "b"),
    ("FixedString(3)", "abc", b"abc"),
]


@pytest.fixture
def dictionaries_are_maps() -> Iterator[None]:
    """The driver writes dictionaries as JSON unless told otherwise."""
    before = common.get_setting("dict_parameter_format")
    common.set_setting("dict_parameter_format", "map")
    yield
    common.set_setting("dict_parameter_format", before)


@pytest.mark.usefixtures("dictionaries_are_maps")
@pytest.mark.parametrize("form", [False, True], ids=["in the address", "in a form"])
@pytest.mark.parametrize(("kind", "value", "expected"), BOUND, ids=[kind for kind, _, _ in BOUND])
def test_the_server_binds_parameters_of_every_type(
    connect: Callable[..., Driver], kind: str, value: Any, expected: Any, form: bool
) -> None:
    driver = connect(form_encode_query_params=form)
    rows = driver.query(f"select {{v:{kind}}} as v, 1 as one", parameters={"v": value}).result_rows
    assert rows == [(expected, 1)]


@pytest.mark.parametrize("form", [False, True], ids=["in the address", "in a form"])
def test_any_text_arrives_as_it_is(connect: Callable[..., Driver], form: bool) -> None:
    driver = connect(form_encode_query_params=form)
    for text in AWKWARD:
        assert driver.query("select {v:String}", parameters={"v": text}).result_rows == [(text,)]
        assert driver.query("select %(v)s", parameters={"v": text}).result_rows == [(text,)]


def test_names_of_tables_and_columns_are_parameters_too(client: Client, table: Callable[..., str]) -> None:
    name = table("`odd name` UInt8")
    client.command("insert into {t:Identifier} values (1), (2)", parameters={"t": name})
    query = "select {c:Identifier} from {t:Identifier} order by 1"
    assert client.query(query, parameters={"c": "odd name", "t": name}).result_rows == [(1,), (2,)]


def test_a_parameter_may_be_used_often_and_others_left_alone(driver: Driver) -> None:
    rows = driver.query("select {a:Int8} + {a:Int8}, '{b:Int8}', {c:Int8}", parameters={"a": 1, "c": 3, "unused": 9})
    assert rows.result_rows == [(2, "{b:Int8}", 3)]


def test_a_missing_or_wrong_parameter_says_so(driver: Driver) -> None:
    with pytest.raises(DatabaseError) as missing:
        driver.query("select {nowhere:Int8}, {v:Int8}", parameters={"v": 1})
    assert missing.value.code == 456
    assert missing.value.name == "UNKNOWN_QUERY_PARAMETER"
    with pytest.raises(DatabaseError) as wrong:
        driver.query("select {v:Int8}", parameters={"v": "seven"})
    assert wrong.value.code in (27, 457)


@pytest.mark.parametrize("form", [False, True], ids=["in the address", "in a form"])
def test_long_lists_of_parameters_arrive(connect: Callable[..., Driver], form: bool) -> None:
    count = 20_000 if form else 5_000
    numbers = list(range(count))
    driver = connect(form_encode_query_params=form)
    query = "select length({v:Array(UInt32)}), arraySum({v:Array(UInt32)})"
    assert driver.query(query, parameters={"v": numbers}).result_rows == [(count, sum(numbers))]


def test_a_statement_of_megabytes_is_read(driver: Driver) -> None:
    text = "é" * 400_000
    assert driver.query(f"select length('{text}')", settings={"max_query_size": 10_000_000}).result_rows == [(800_000,)]
    with pytest.raises(DatabaseError) as error:
        driver.query(f"select length('{text}')")
    assert error.value.code == 62


def test_bytes_within_a_statement_arrive_as_they_are(driver: Driver) -> None:
    rows = driver.query(
        "select hex($a$) as a, col2, col1 from format(CSVWithNames, $b$)",
        parameters={"$a$": bytes(b for b in range(256) if b not in b"'\\"), "$b$": b"col1,col2\n100,700"},
    ).result_rows
    assert rows == [(bytes(b for b in range(256) if b not in b"'\\").hex().upper(), 700, 100)]


@pytest.mark.parametrize(
    ("statement", "rows"),
    [
        ("select 13;", [(13,)]),
        ("select 13; -- the end", [(13,)]),
        ("select 13; /* ; */ ;", [(13,)]),
        ("/* first */ select /* ' */ 13 -- '", [(13,)]),
        ("-- first\nselect 13", [(13,)]),
        ("(select 13)", [(13,)]),
        ("with insert as (select 13 as n) select * from insert", [(13,)]),
        ("with 13 as insert select insert", [(13,)]),
        ("select ' format JSON' -- format JSON", [(" format JSON",)]),
        ("select 13 union all select 14 order by 1", [(13,), (14,)]),
        ("select 13 settings max_threads = 1", [(13,)]),
        ("select $tag$ it's; $tag$", [(" it's; ",)]),
        ("explain syntax select 1", None),
        ("show databases like 'system'", [("system",)]),
        ("exists table system.one", [(1,)]),
        ("desc (select 1 as a)", [("a", "UInt8", "", "", "", "", "")]),
    ],
)
def test_statements_of_every_shape_are_read(driver: Driver, statement: str, rows: list[tuple[Any, ...]] | None) -> None:
    found = driver.query(statement).result_rows
    assert found == rows if rows is not None else found


def test_statements_without_a_result_answer_a_summary(driver: Driver) -> None:
    assert isinstance(driver.command("drop table if exists not_there"), QuerySummary)
    assert "query_id" in driver.query("set max_threads = 1").first_item
    assert driver.command("select 13 where 0") == ""
    assert driver.command("select 'a', 2") == ["a", "2"]
    assert driver.command("select 13") == 13


@pytest.mark.parametrize(
    "statement", ["show users", "show policies", "show grants", "show processlist", "show settings like 'max_threads'"]
)
def test_what_the_server_shows_is_a_result(driver: Driver, statement: str) -> None:
    assert not isinstance(driver.command(statement), QuerySummary)


def test_a_query_finds_external_tables(driver: Driver, tmp_path: Path) -> None:
    path = tmp_path / "films.csv"
    path.write_text("film,year\nAlien,1979\nHeat,1995\n")
    data = ExternalData(str(path), fmt="CSVWithNames", structure=["film String", "year UInt16"])
    assert driver.query("select * from films order by year desc", external_data=data).result_rows == [
        ("Heat", 1995),
        ("Alien", 1979),
    ]
    data.add_file(file_name="actors.tsv", data=b"Pacino\tHeat\nWeaver\tAlien\n", types="String,String")
    joined = "select _1, year from actors join films on _2 = film order by 1"
    assert driver.query(joined, external_data=data).result_rows == [("Pacino", 1995), ("Weaver", 1979)]
    assert driver.raw_query("select count() from films", external_data=data) == b"2\n"
    assert driver.command("select max(year) from films", external_data=data) == 1995
    with pytest.raises(DatabaseError) as gone:
        driver.query("select * from films")
    assert gone.value.code == 60


def test_external_tables_go_with_parameters_in_a_form(connect: Callable[..., Driver]) -> None:
    driver = connect(form_encode_query_params=True)
    data = ExternalData(file_name="n.tsv", data=b"1\n2\n3\n", structure="n UInt8")
    rows = driver.query(
        "select n from n where n > {least:UInt8} order by n", parameters={"least": 1}, external_data=data
    )
    assert rows.result_rows == [(2,), (3,)]


def test_an_external_table_may_be_empty_binary_or_big(driver: Driver, client: Client) -> None:
    empty = ExternalData(file_name="nothing.tsv", data=b"", structure="a String")
    assert driver.query("select * from nothing", external_data=empty).result_rows == []
    parquet = client.raw_query("select number as n, toString(number) as s from numbers(300000)", fmt="Parquet")
    data = ExternalData(file_name="big.parquet", data=parquet, fmt="Parquet", structure="n UInt64, s String")
    assert driver.query("select count(), sum(n), max(length(s)) from big", external_data=data).result_rows == [
        (300_000, sum(range(300_000)), 6)
    ]


def test_an_external_table_fills_a_real_one(driver: Driver, table: Callable[..., str]) -> None:
    name = table("n UInt8")
    data = ExternalData(file_name="more.tsv", data=b"5\n6\n", structure="n UInt8")
    driver.raw_query(f"insert into {name} select * from more", external_data=data)
    assert driver.query(f"select * from {name} order by n").result_rows == [(5,), (6,)]


def test_an_external_table_that_cannot_be_read_says_why(driver: Driver) -> None:
    data = ExternalData(file_name="bad.tsv", data=b"seven\n", structure="n UInt8")
    with pytest.raises(DatabaseError) as error:
        driver.query("select * from bad", external_data=data)
    assert error.value.code in (27, 72)


FORMATS = {
    "TabSeparated": b"0\n1\n2\n",
    "TabSeparatedWithNamesAndTypes": b"n\nUInt8\n0\n1\n2\n",
    "CSVWithNames": b'"n"\n0\n1\n2\n',
    "JSONEachRow": b'{"n":0}\n{"n":1}\n{"n":2}\n',
    "JSONCompactEachRow": b"[0]\n[1]\n[2]\n",
    "Values": b"(0),(1),(2)",
    "RowBinary": b"\x00\x01\x02",
    "RowBinaryWithNamesAndTypes": b"\x01\x01n\x05UInt8\x00\x01\x02",
    "Native": b"\x01\x03\x01n\x05UInt8\x00\x01\x02",
    "LineAsString": b"0\n1\n2\n",
    "Null": b"",
}


@pytest.mark.parametrize("output", FORMATS)
def test_answers_come_in_the_format_asked_for(driver: Driver, output: str) -> None:
    query = "select toUInt8(number) as n from numbers(3)"
    assert driver.raw_query(query, fmt=output) == FORMATS[output]
    assert driver.raw_query(f"{query} format {output}") == FORMATS[output]
    assert b"".join(driver.drain(driver.raw_stream(query, fmt=output))) == FORMATS[output]


@pytest.mark.parametrize("output", ["JSON", "JSONCompact", "JSONColumnsWithMetadata"])
def test_documents_of_json_count_what_they_hold(driver: Driver, output: str) -> None:
    document = json.loads(driver.raw_query("select arrayJoin(range(5)) as n limit 2", fmt=output))
    assert document["rows"] == 2
    assert [column["name"] for column in document["meta"]] == ["n"]
    assert document["rows_before_limit_at_least"] == 5


@pytest.mark.parametrize(
    "output",
    [
        "Parquet",
        "ORC",
        "Arrow",
        "ArrowStream",
        "Avro",
        "Npy",
        "BSONEachRow",
        "MsgPack",
        "Pretty",
        "Vertical",
        "Markdown",
        "XML",
        "SQLInsert",
    ],
)
def test_what_a_format_wrote_is_whole(driver: Driver, output: str) -> None:
    answer = driver.raw_query("select toInt64(number) as n from numbers(1000)", fmt=output)
    if output in ("Pretty", "Vertical", "Markdown", "XML", "SQLInsert"):
        assert b"999" in answer
    else:
        data = ExternalData(
            file_name="again.bin", data=answer, fmt=output, structure="n Int64" if output != "Npy" else "array Int64"
        )
        column = "array" if output == "Npy" else "n"
        assert driver.query(f"select count(), sum({column}) from again", external_data=data).result_rows == [
            (1000, 499_500)
        ]


@pytest.mark.parametrize("compress", [False, True, "gzip", "lz4", "zstd", "br"])
def test_every_compression_goes_both_ways(
    connect: Callable[..., Driver], table: Callable[..., str], compress: bool | str
) -> None:
    driver = connect(compress=compress)
    name = table("n UInt32, s String", "MergeTree order by n")
    rows = [(number, f"text {number}" * 5) for number in range(2_000)]
    driver.insert(name, rows)
    assert driver.query(f"select * from {name} order by n").result_rows == rows


ERRORS = [
    ("select * from not_there", 60, "UNKNOWN_TABLE"),
    ("select * from nowhere.not_there", 81, "UNKNOWN_DATABASE"),
    ("select not_there from system.one", 47, "UNKNOWN_IDENTIFIER"),
    ("select not_there(1)", 46, "UNKNOWN_FUNCTION"),
    ("selec 1", 62, "SYNTAX_ERROR"),
    ("select * from format(Nothing, 'x')", 73, "UNKNOWN_FORMAT"),
    ("select throwIf(1, 'my words')", 395, "FUNCTION_THROW_IF_VALUE_IS_NON_ZERO"),
    ("select 1 settings max_rows_to_read = 1, not_a_setting = 1", 115, "UNKNOWN_SETTING"),
    (
        "select * from numbers(1000000) settings max_result_rows = 10, max_block_size = 10",
        396,
        "TOO_MANY_ROWS_OR_BYTES",
    ),
    ("select count() from system.numbers settings max_rows_to_read = 1000, max_block_size = 100", 158, "TOO_MANY_ROWS"),
    (
        "select sleepEachRow(0.2) from numbers(100) settings max_execution_time = 0.3, max_block_size = 1",
        159,
        "TIMEOUT_EXCEEDED",
    ),
    ("select toInt32('x')", 6, "CANNOT_PARSE_TEXT"),
    (
        "select groupArray(number) from numbers(100000000) settings max_memory_usage = 10000000",
        241,
        "MEMORY_LIMIT_EXCEEDED",
    ),
    ("create table system.one (x Int8) engine = Memory", None, None),
    ("drop table not_there", 60, "UNKNOWN_TABLE"),
]


@pytest.mark.parametrize(("statement", "code", "name"), ERRORS, ids=[statement[:60] for statement, _, _ in ERRORS])
def test_errors_have_the_codes_and_names_of_the_server(
    driver: Driver, statement: str, code: int | None, name: str | None
) -> None:
    with pytest.raises(DatabaseError) as error:
        driver.query(statement)
    assert "Exception" in str(error.value)
    if code is not None:
        assert (error.value.code, error.value.name) == (code, name)
    assert driver.command("select 1") == 1


def test_what_an_error_says_is_readable_in_any_language(driver: Driver) -> None:
    with pytest.raises(DatabaseError, match="空"):
        driver.query("select throwIf(1, '空')")


def test_every_statement_has_an_id(driver: Driver, table: Callable[..., str]) -> None:
    name = table("n UInt8")
    assert uuid.UUID(driver.query("select 1").query_id)
    assert uuid.UUID(driver.command("drop table if exists not_there").query_id())
    assert uuid.UUID(driver.insert(name, [[1]]).query_id())
    chosen = f"chosen {uuid.uuid4()}"
    assert driver.query("select 1", settings={"query_id": chosen}).query_id == chosen


def test_the_server_makes_an_id_when_the_driver_sends_none(connect: Callable[..., Driver]) -> None:
    assert uuid.UUID(connect(autogenerate_query_id=False).query("select 1").query_id)


def test_a_statement_knows_its_own_id(driver: Driver) -> None:
    chosen = f"own {uuid.uuid4()}"
    assert driver.query("select queryID()", settings={"query_id": chosen}).result_rows == [(chosen,)]


def test_the_summary_counts_what_was_read(driver: Driver) -> None:
    summary = driver.query("select sum(number) from numbers(100000)", settings={"wait_end_of_query": 1}).summary
    assert int(summary["read_rows"]) == 100_000
    assert int(summary["read_bytes"]) == 800_000
    assert int(summary["elapsed_ns"]) > 0


def test_the_summary_counts_what_was_written(driver: Driver, table: Callable[..., str]) -> None:
    name = table("n UInt64")
    assert driver.insert(name, [[number] for number in range(1234)]).written_rows == 1234
    assert driver.command(f"insert into {name} select number from numbers(777)").written_rows == 777
    assert driver.raw_insert(name, ["n"], b"1\n2\n3\n", fmt="TSV").written_rows == 3


def test_settings_hold_for_their_statement_only(driver: Driver) -> None:
    query = "select getSetting('max_threads')"
    default = driver.command(query)
    assert driver.command(query, settings={"max_threads": 7}) == 7
    assert driver.command(query) == default


def test_settings_of_a_client_hold_for_all_its_statements(connect: Callable[..., Driver]) -> None:
    driver = connect(settings={"max_threads": 3})
    assert driver.command("select getSetting('max_threads')") == 3
    driver.set_client_setting("max_threads", 4)
    assert driver.command("select getSetting('max_threads')") == 4


def test_a_setting_nobody_knows_is_refused_by_the_driver_or_the_server(driver: Driver) -> None:
    with pytest.raises((ProgrammingError, DatabaseError)):
        driver.query("select 1", settings={"nobody_knows_this": 1})


def test_the_database_is_the_clients(connect: Callable[..., Driver], database: str) -> None:
    assert connect().command("select currentDatabase()") == database
    assert connect(database=None).command("select currentDatabase()") == "default"
    assert connect(database="system").command("select count() > 0 from tables") == 1


def test_a_database_that_is_not_there_is_an_error(driver: Driver) -> None:
    driver.client.database = "nowhere"
    with pytest.raises(DatabaseError) as error:
        driver.query("select 1")
    assert error.value.code == 81


def test_the_server_tells_its_version_and_time_zone(driver: Driver) -> None:
    assert driver.server_version == driver.command("select version()")
    assert driver.min_version("24.1")
    offset = driver.command("select timezoneOffset(now())")
    assert datetime.now(driver.server_tz).utcoffset() == timedelta(seconds=offset)
    assert driver.ping() is True


def test_blocks_say_the_time_zone_for_drivers_that_know_of_it(client: Client) -> None:
    query = "select toDateTime(0, 'Asia/Tokyo') as t format Native"
    assert b"DateTime('" not in client.raw_query(query)
    assert b"DateTime('Asia/Tokyo')" in client.raw_query(query, settings={"client_protocol_version": 54_337})


def test_columns_are_renamed_by_the_driver_alone(connect: Callable[..., Driver]) -> None:
    driver = connect(rename_response_column="to_camelcase_without_prefix")
    assert driver.query("select 1 as `a.b.c d_e`").column_names == ("cDE",)


def test_what_create_made_is_shown_again(driver: Driver, table: Callable[..., str], database: str) -> None:
    name = table("n UInt8 comment 'a number', s String default 'é' codec(ZSTD(3))", "MergeTree order by n")
    statement = driver.command(f"show create table {name}")
    assert f"CREATE TABLE {database}.{name}" in statement.replace("\\n", "\n")
    described = driver.query(f"describe table {name}").result_rows
    assert [row[:3] for row in described] == [("n", "UInt8", ""), ("s", "String", "DEFAULT")]
