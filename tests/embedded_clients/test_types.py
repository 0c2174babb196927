"""Every type of ClickHouse, into a table and out of it in Native blocks, and as the engine's own literals."""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from ipaddress import IPv4Address, IPv6Address
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest
from clickhouse_connect.datatypes.dynamic import typed_variant
from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.exceptions import DatabaseError

from tests.embedded_clients.conftest import Driver

UUIDS = [UUID(int=0), UUID("61f0c404-5cb3-11e7-907b-a6006ad3dba0"), UUID(int=2**128 - 1)]


def _range(bits: int) -> list[tuple[str, list[int]]]:
    return [
        (f"Int{bits}", [-(2 ** (bits - 1)), -1, 0, 2 ** (bits - 1) - 1]),
        (f"UInt{bits}", [0, 1, 2**bits - 1]),
    ]


def _decimal(digits: int, scale: int) -> tuple[str, list[Decimal]]:
    nines = Decimal((0, (9,) * digits, -scale))
    return f"Decimal({digits}, {scale})", [nines.copy_negate(), Decimal((1, (1,), -scale)), Decimal(0), nines]


WHOLE: list[tuple[str, list[Any]]] = [case for bits in (8, 16, 32, 64, 128, 256) for case in _range(bits)]
SIMPLE: list[tuple[str, list[Any]]] = [
    *WHOLE,
    ("Float32", [0.0, -1.5, 2.0**100]),
    ("Float64", [0.0, -1e308, 5e-324, math.pi]),
    ("Float64", [math.inf, -math.inf]),
    ("BFloat16", [0.0, 1.5, -256.0]),
    _decimal(9, 4),
    _decimal(18, 0),
    _decimal(38, 19),
    _decimal(76, 40),
    ("Bool", [True, False]),
    ("String", ["", "plain", "é 😀 \t\n\\ '\" `", "x" * 70_000]),
    ("FixedString(5)", [b"abcde", b"a\x00\x00\x00\x00"]),
    ("UUID", UUIDS),
    ("IPv4", [IPv4Address("0.0.0.0"), IPv4Address("10.251.30.50"), IPv4Address("255.255.255.255")]),
    ("IPv6", [IPv6Address("::"), IPv6Address("2001:db8::1"), IPv6Address("ffff::ffff")]),
    ("Date", [date(1970, 1, 1), date(2024, 2, 29), date(2149, 6, 6)]),
    ("Date32", [date(1900, 1, 1), date(1969, 12, 31), date(2299, 12, 31)]),
    ("DateTime('UTC')", [datetime(1970, 1, 1), datetime(2106, 2, 7, 6, 28, 15)]),
    ("DateTime64(3, 'UTC')", [datetime(1900, 1, 1), datetime(2024, 2, 29, 23, 59, 59, 999_000)]),
    ("DateTime64(6, 'UTC')", [datetime(1969, 12, 31, 23, 59, 59, 999_999), datetime(2299, 12, 31)]),
    ("Time", [timedelta(0), timedelta(hours=999, minutes=59, seconds=59), -timedelta(hours=5)]),
    ("Time64(6)", [timedelta(0), timedelta(hours=1, microseconds=1), -timedelta(microseconds=7)]),
    ("Enum8('a' = -128, 'b' = 1, 'é \\' x' = 127)", ["a", "b", "é ' x"]),
    ("Enum16('low' = -32768, 'high' = 32767)", ["low", "high"]),
    ("Point", [(0.0, -1.5), (180.0, 90.0)]),
    ("Ring", [[(0.0, 0.0), (10.0, 0.0), (10.0, 10.0)], []]),
    ("LineString", [[(0.0, 0.0), (10.0, 0.5)]]),
    ("MultiLineString", [[[(0.0, 0.0), (1.0, 1.0)], [(2.0, 2.0)]]]),
    ("Polygon", [[[(20.0, 20.0), (50.0, 20.0)], [(30.0, 30.0)]], []]),
    ("MultiPolygon", [[[[(0.0, 0.0), (10.0, 0.0)]], [[(1.0, 1.0)]]]]),
]
NESTED: list[tuple[str, list[Any]]] = [
    ("Array(Int64)", [[], [1, -2], list(range(1000))]),
    ("Array(Array(Array(String)))", [[], [[]], [[["a", ""], []], [["é"]]]]),
    ("Array(Nullable(Decimal(10, 2)))", [[None, Decimal("1.25")], []]),
    ("Array(LowCardinality(Nullable(String)))", [["a", None, "a"], []]),
    ("Tuple(Int8, String, Array(UUID))", [(1, "x", UUIDS), (-1, "", [])]),
    ("Tuple(a Int8, `b c` Tuple(d String))", [{"a": 1, "b c": {"d": "x"}}]),
    ("Map(String, Array(Int32))", [{}, {"a": [1], "é": []}]),
    ("Map(LowCardinality(String), Map(Int32, Nullable(Float64)))", [{"x": {1: None, 2: 2.5}}, {}]),
    ("Map(UUID, Tuple(x IPv4, y Enum8('on' = 1)))", [{UUIDS[1]: {"x": IPv4Address("1.2.3.4"), "y": "on"}}]),
    ("LowCardinality(String)", ["a", "b", "a", ""]),
    ("LowCardinality(Nullable(FixedString(2)))", [b"ab", None, b"ab"]),
    ("LowCardinality(Date)", [date(2020, 1, 1), date(2020, 1, 1)]),
    ("LowCardinality(Int32)", [55, -578_328, 55]),
    ("Nested(k String, v Array(UInt8))", [[{"k": "a", "v": [1, 2]}, {"k": "b", "v": []}], []]),
    ("SimpleAggregateFunction(max, Int64)", [3, -4]),
    ("SimpleAggregateFunction(anyLast, Nullable(String))", ["x", None]),
    ("Variant(UInt64, String, Array(UInt64), UUID)", [58_322, "a string", UUIDS[1], [120, 250], None]),
    ("Variant(Bool, Int32)", [True, 57, False, -7, None]),
    ("Array(Variant(String, DateTime('UTC'), Float64))", [["a", 53.5, None], []]),
    ("Tuple(Int64, Variant(Bool, String))", [(-40, True), (7, "text")]),
    ("JSON", [{"a": 1, "b": {"c": ["x", "y"]}, "é": "ü"}, {}]),
    ("JSON(max_dynamic_paths = 4, `n` UInt8)", [{"n": 7, "rest": "r"}]),
    ("Nullable(JSON)", [{"a": "b"}, None]),
    ("Array(JSON)", [[{"a": 1}, {"b": "x"}], []]),
    ("QBit(Float32, 8)", [[1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0]]),
]
#: What may stand in Nullable: every simple type but the geometric ones.
NULLABLE = [
    (kind, values) for kind, values in SIMPLE if isinstance(values[0], str) or not isinstance(values[0], list | tuple)
]
NULLABLE = [(f"Nullable({kind})", [None, *values, None]) for kind, values in NULLABLE]


@pytest.mark.parametrize(
    ("kind", "values"), SIMPLE + NESTED + NULLABLE, ids=lambda case: case if isinstance(case, str) else ""
)
def test_values_of_every_type_come_back_as_they_went(
    client: Client, table: Callable[..., str], kind: str, values: list[Any]
) -> None:
    name = table(
        f"n UInt32, v {kind}", "MergeTree order by n", flatten_nested=0, allow_suspicious_low_cardinality_types=1
    )
    summary = client.insert(name, list(enumerate(values)), column_names=["n", "v"])
    result = client.query(f"select v from {name} order by n")
    assert [row[0] for row in result.result_rows] == values
    assert summary.written_rows == len(values)


@pytest.mark.parametrize(("kind", "values"), SIMPLE, ids=lambda case: case if isinstance(case, str) else "")
def test_the_engine_reads_what_the_driver_wrote_as_the_same_text(
    client: Client, table: Callable[..., str], kind: str, values: list[Any]
) -> None:
    name = table(f"n UInt32, v {kind}", "MergeTree order by n")
    client.insert(name, list(enumerate(values)), column_names=["n", "v"])
    text = [row[0] for row in client.query(f"select toString(v) from {name} order by n").result_rows]
    again = client.query(
        f"select arrayMap(t -> cast(t, '{_quoted(kind)}'), {{texts:Array(String)}})", parameters={"texts": text}
    ).result_rows[0][0]
    assert again == values


def _quoted(text: str) -> str:
    return text.replace("\\", "\\\\").replace("'", "\\'")


@pytest.mark.parametrize("zone", ["America/New_York", "Asia/Kolkata", "Pacific/Apia"])
@pytest.mark.parametrize("kind", ["DateTime('{zone}')", "DateTime64(6, '{zone}')", "Nullable(DateTime64(3, '{zone}'))"])
def test_moments_keep_their_time_zone(client: Client, table: Callable[..., str], kind: str, zone: str) -> None:
    moment = datetime(2024, 7, 1, 23, 30, tzinfo=ZoneInfo(zone))
    name = table(f"v {kind.format(zone=zone)}")
    client.insert(name, [[moment]], column_names=["v"])
    (found,) = client.query(f"select v from {name}").result_rows[0]
    assert found == moment
    assert found.utcoffset() == moment.utcoffset()
    epoch = client.query(f"select toUnixTimestamp64Micro(toDateTime64(v, 6)) from {name}").result_rows[0][0]
    assert epoch == int(moment.timestamp()) * 1_000_000


def test_a_query_may_be_read_in_another_time_zone(client: Client) -> None:
    query = f"select toDateTime({int(datetime(2024, 1, 1, 12, tzinfo=timezone.utc).timestamp())})"
    (found,) = client.query(query, query_tz="Asia/Tokyo").result_rows[0]
    assert found == datetime(2024, 1, 1, 12, tzinfo=timezone.utc)
    assert found.tzinfo is not None
    assert found.hour == 21


def test_the_times_of_day_of_a_session_follow_session_timezone(client: Client) -> None:
    settings = {"session_timezone": "America/New_York"}
    seconds = client.command("select toUnixTimestamp(toDateTime('2024-01-01 12:00:00'))", settings=settings)
    assert seconds == int(datetime(2024, 1, 1, 17, tzinfo=timezone.utc).timestamp())


def test_times_of_day_may_be_written_as_such(client: Client, table: Callable[..., str]) -> None:
    name = table("v Time, w Time64(3)")
    client.insert(name, [[time(13, 14, 15), time(1, 2, 3, 4_000)]], column_names=["v", "w"])
    assert client.query(f"select toString(v), toString(w) from {name}").result_rows == [("13:14:15", "01:02:03.004")]


def test_not_a_number_stays_one(client: Client, table: Callable[..., str]) -> None:
    name = table("v Float64, w Float32, b BFloat16")
    client.insert(name, [[math.nan, math.nan, math.nan]], column_names=["v", "w", "b"])
    assert all(math.isnan(value) for value in client.query(f"select * from {name}").result_rows[0])


@pytest.mark.parametrize(
    "unit",
    ["Nanosecond", "Microsecond", "Millisecond", "Second", "Minute", "Hour", "Day", "Week", "Month", "Quarter", "Year"],
)
def test_intervals_of_every_unit_are_read(client: Client, unit: str) -> None:
    assert client.query(f"select toInterval{unit}(7)").result_rows == [(7,)]


def test_nothing_is_read_as_none(client: Client) -> None:
    assert client.query("select null, [], [null]").result_rows == [(None, [], [None])]


def test_a_variant_that_is_ambiguous_is_told_its_type(client: Client, table: Callable[..., str]) -> None:
    name = table("n UInt8, v Variant(Array(UInt32), Array(String))", "MergeTree order by n")
    rows = [[1, typed_variant([1, 2], "Array(UInt32)")], [2, typed_variant([], "Array(String)")]]
    client.insert(name, rows, column_names=["n", "v"])
    result = client.query(f"select v, variantType(v) from {name} order by n")
    assert result.result_rows == [([1, 2], "Array(UInt32)"), ([], "Array(String)")]


def test_a_dynamic_value_keeps_the_type_that_the_engine_gave_it(client: Client, table: Callable[..., str]) -> None:
    name = table("n UInt8, v Dynamic", "MergeTree order by n")
    literals = ["42", "'text'", "[1, 2]", "toDate('2024-01-02')", "null"]
    for number, literal in enumerate(literals):
        client.command(f"insert into {name} select {number}, {literal}")
    values = [row[0] for row in client.query(f"select v from {name} order by n").result_rows]
    assert values == [42, "text", [1, 2], date(2024, 1, 2), None]


def test_dynamic_values_go_in_as_text(client: Client, table: Callable[..., str]) -> None:
    name = table("n UInt8, v Dynamic", "MergeTree order by n")
    client.insert(name, [[1, 58_322], [2, "a string"]], column_names=["n", "v"])
    assert client.query(f"select toString(v) from {name} order by n").result_rows == [("58322",), ("a string",)]


def test_subcolumns_of_json_are_typed(client: Client, table: Callable[..., str]) -> None:
    name = table("v JSON(`a.when` DateTime64(3, 'UTC'), skip a.secret)")
    client.insert(name, [['{"a": {"when": "2020-10-15T10:15:44.877", "secret": 1, "n": 5}}']], column_names=["v"])
    (value,) = client.query(f"select v from {name}").result_rows[0]
    assert value == {"a": {"when": datetime(2020, 10, 15, 10, 15, 44, 877_000), "n": 5}}
    assert client.query(f"select v.a.n::Int64 + 1 from {name}").result_rows == [(6,)]


def test_aggregate_states_are_kept_and_merged(client: Client, table: Callable[..., str]) -> None:
    columns = "k UInt8, u AggregateFunction(uniqExact, UInt64), q AggregateFunction(avg, Float64)"
    name = table(columns, "AggregatingMergeTree order by k")
    for first in (0, 50):
        client.command(
            f"insert into {name} select number % 2, uniqExactState(number), avgState(toFloat64(number))"
            f" from numbers({first}, 100) group by 1"
        )
    merged = client.query(f"select k, uniqExactMerge(u), avgMerge(q) from {name} group by k order by k").result_rows
    everything = [*range(100), *range(50, 150)]
    expected = []
    for remainder in (0, 1):
        numbers = [number for number in everything if number % 2 == remainder]
        expected.append((remainder, len(set(numbers)), sum(numbers) / len(numbers)))
    assert merged == expected


def test_states_travel_as_bytes_in_formats_that_have_them(client: Client, table: Callable[..., str]) -> None:
    name = table("u AggregateFunction(sum, UInt64)", "AggregatingMergeTree order by tuple()")
    client.command(f"insert into {name} select sumState(number) from numbers(10)")
    state = client.raw_query(f"select u from {name}", fmt="RowBinary")
    client.raw_insert(name, ["u"], state, fmt="RowBinary")
    assert client.query(f"select sumMerge(u) from {name}").result_rows == [(90,)]


def test_both_drivers_read_every_type_alike(driver: Driver, client: Client, table: Callable[..., str]) -> None:
    cases = [case for case in SIMPLE + NESTED if not case[0].startswith(("Nested", "Time"))]
    columns = ", ".join(f"c{number} {kind}" for number, (kind, _) in enumerate(cases))
    name = table(columns, allow_suspicious_low_cardinality_types=1)
    driver.insert(name, [[values[0] for _, values in cases]] * 3)
    rows = driver.query(f"select * from {name}").result_rows
    assert rows == [tuple(values[0] for _, values in cases)] * 3


def test_empty_results_have_their_columns_when_none_was_asked_for(driver: Driver) -> None:
    result = driver.query("select 1::UInt8 as a, 'x' as b, now() as c limit 0")
    assert result.column_names == ("a", "b", "c")
    assert [kind.name for kind in result.column_types] == ["UInt8", "String", "DateTime"]
    assert result.result_rows == []


def test_a_value_out_of_range_is_refused_and_nothing_is_stored(client: Client, table: Callable[..., str]) -> None:
    name = table("v Enum8('a' = 1)")
    with pytest.raises(DatabaseError):
        client.raw_insert(name, ["v"], b"a\nnot there\n", fmt="TSV", settings={"input_format_tsv_enum_as_number": 0})
    assert client.command(f"select count() from {name}") == 0
