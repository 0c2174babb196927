"""Inserts as drivers make them: rows, columns, frames, Arrow, files, raw bytes in many formats, small and big."""

from __future__ import annotations

import gzip
import io
import json
import random
from collections.abc import Callable, Iterator
from datetime import datetime, timezone
from decimal import Decimal
from pathlib import Path
from typing import Any

import lz4.frame
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from backports import zstd
from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.exceptions import DatabaseError, DataError, ProgrammingError
from clickhouse_connect.driver.tools import insert_file

from tests.embedded_clients.conftest import Driver, wait_for

COLUMNS = "n UInt32, s Nullable(String), d Decimal(10, 2), t DateTime64(3, 'UTC'), a Array(Int16)"
ROWS = [
    (1, "one", Decimal("1.25"), datetime(2024, 1, 1), [1, 2]),
    (2, None, Decimal("-0.01"), datetime(1999, 12, 31, 23, 59, 59, 999_000), []),
    (3, "é\n\t\\'", Decimal(0), datetime(2038, 1, 19, 3, 14, 8), [-32768, 32767]),
]


def rows_of(driver: Driver | Client, name: str) -> list[tuple[Any, ...]]:
    return list(driver.query(f"select * from {name} order by 1").result_rows)


def test_rows_and_columns_are_inserted_alike(driver: Driver, table: Callable[..., str]) -> None:
    by_row, by_column = table(COLUMNS), table(COLUMNS)
    driver.insert(by_row, ROWS)
    driver.insert(by_column, [list(column) for column in zip(*ROWS, strict=True)], column_oriented=True)
    assert rows_of(driver, by_row) == rows_of(driver, by_column) == ROWS


def test_columns_may_be_named_in_any_order_and_the_rest_has_its_defaults(
    driver: Driver, table: Callable[..., str]
) -> None:
    name = table(
        "n UInt32, m UInt32 default n * 2, s String default 'x', w UInt32 materialized n + 1, a UInt32 alias n + 2"
    )
    driver.insert(name, [["later", 5]], column_names=["s", "n"])
    assert driver.query(f"select n, m, s, w, a from {name}").result_rows == [(5, 10, "later", 6, 7)]


def test_contexts_are_used_again(driver: Driver, table: Callable[..., str]) -> None:
    name = table("n UInt32, s String")
    context = driver.create_insert_context(name, ["n", "s"], column_type_names=["UInt32", "String"])
    for start in range(0, 300, 100):
        driver.insert(data=[[start + n, str(start + n)] for n in range(100)], context=context)
    assert rows_of(driver, name) == [(n, str(n)) for n in range(300)]


def test_tables_of_odd_names_are_found(driver: Driver, client: Client, database: str) -> None:
    for odd in ("with space", "back`tick", "quo'te", "dot.dot", "é", "select", "%s", "FORMAT"):
        quoted = "`" + odd.replace("`", "\\`") + "`"
        client.command(f"create table if not exists {quoted} (`{odd.replace('`', '')} c` UInt8) engine = Memory")
        driver.insert(f"{database}.{quoted}", [[7]])
        assert driver.query(f"select * from {quoted}").result_rows == [(7,)]
        client.command(f"drop table {quoted}")


def test_a_million_rows_arrive(client: Client, table: Callable[..., str]) -> None:
    name = table("n UInt64, s String")
    numbers = np.arange(1_000_000, dtype=np.uint64)
    summary = client.insert_df(name, pd.DataFrame({"n": numbers, "s": numbers.astype(str)}))
    assert summary.written_rows == len(numbers)
    found = client.query(f"select count(), sum(n), sum(length(s)), uniqExact(s) from {name}").result_rows
    assert found == [(1_000_000, int(numbers.sum()), sum(len(str(n)) for n in range(1_000_000)), 1_000_000)]


def test_a_body_comes_in_pieces_of_unknown_length(client: Client, table: Callable[..., str]) -> None:
    def lines() -> Iterator[bytes]:
        for start in range(0, 200_000, 1000):
            yield b"".join(b"%d\n" % n for n in range(start, start + 1000))

    name = table("n UInt32")
    summary = client.raw_insert(name, ["n"], lines(), fmt="CSV")
    assert summary.written_rows == 200_000
    assert client.query(f"select count(), sum(n) from {name}").result_rows == [(200_000, sum(range(200_000)))]


def test_inserts_from_files_arrive(client: Client, table: Callable[..., str], tmp_path: Path) -> None:
    name = table("n UInt32, s String")
    path = tmp_path / "rows.csv"
    path.write_text("n,s\n1,one\n2,two\n")
    insert_file(client, name, str(path))
    parquet = tmp_path / "rows.parquet"
    pl.DataFrame({"n": [3], "s": ["three"]}).write_parquet(parquet)
    insert_file(client, name, str(parquet), "Parquet")
    zipped = tmp_path / "rows.csv.gz"
    zipped.write_bytes(gzip.compress(b"4,four\n"))
    insert_file(client, name, str(zipped), "CSV", column_names=["n", "s"], compression="gzip")
    assert rows_of(client, name) == [(1, "one"), (2, "two"), (3, "three"), (4, "four")]


def parquet() -> bytes:
    buffer = io.BytesIO()
    pl.DataFrame({"n": [1, 2], "s": ["a", "b"]}).write_parquet(buffer)
    return buffer.getvalue()


RAW: dict[str, bytes] = {
    "CSV": b'1,a\n2,"b"\n',
    "CSVWithNames": b"s,n\na,1\nb,2\n",
    "TSV": b"1\ta\n2\tb\n",
    "TabSeparatedWithNamesAndTypes": b"n\ts\nUInt32\tString\n1\ta\n2\tb\n",
    "CustomSeparated": b"1\ta\n2\tb\n",
    "JSONEachRow": b'{"n": 1, "s": "a"}\n{"s": "b", "n": 2, "other": 3}\n',
    "JSONCompactEachRow": b'[1, "a"]\n[2, "b"]\n',
    "JSON": json.dumps(
        {
            "meta": [{"name": "n", "type": "UInt32"}, {"name": "s", "type": "String"}],
            "data": [{"n": 1, "s": "a"}, {"n": 2, "s": "b"}],
            "rows": 2,
        }
    ).encode(),
    "JSONColumns": b'{"n": [1, 2], "s": ["a", "b"]}',
    "Values": b"(1, 'a'), (2, concat('b', ''))",
    "RowBinary": b"\x01\0\0\0\x01a\x02\0\0\0\x01b",
    "RowBinaryWithNamesAndTypes": b"\x02\x01n\x01s\x06UInt32\x06String\x01\0\0\0\x01a\x02\0\0\0\x01b",
    "Native": b"\x02\x02\x01n\x06UInt32\x01\0\0\0\x02\0\0\0\x01s\x06String\x01a\x01b",
    "Parquet": parquet(),
    "MsgPack": b"\x01\xa1a\x02\xa1b",
}
CODECS: dict[str, Callable[[bytes], bytes]] = {
    "": bytes,
    "gzip": gzip.compress,
    "lz4": lz4.frame.compress,
    "zstd": zstd.compress,
}


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("fmt", RAW)
def test_raw_bytes_of_every_format_and_compression_arrive(
    client: Client, table: Callable[..., str], fmt: str, codec: str
) -> None:
    name = table("n UInt32, s String")
    client.raw_insert(
        name,
        None,
        CODECS[codec](RAW[fmt]),
        fmt=fmt,
        compression=codec or None,
        settings={"input_format_skip_unknown_fields": 1},
    )
    assert rows_of(client, name) == [(1, "a"), (2, "b")]


def test_raw_bytes_are_inserted_by_both_drivers(driver: Driver, table: Callable[..., str]) -> None:
    name = table("`weir'd` String, value String")
    driver.raw_insert(name, ["`weir'd`", "value"], "a\tb\\n\nc\td\n", fmt="TSV")
    driver.raw_insert(name, ["value"], b"e\n", fmt="CSV")
    driver.raw_insert(insert_block=f"insert into {name} format CSV\nf,g\n".encode())
    assert sorted(rows_of(driver, name)) == [("", "e"), ("a", "b\n"), ("c", "d"), ("f", "g")]


def test_data_within_a_statement_keeps_what_looks_like_sql(driver: Driver, table: Callable[..., str]) -> None:
    name = table("s String")
    driver.command(f"insert into {name} (s) format TabSeparated\nvalue;\n-- no comment\n'\n/*\n")
    driver.command(f"insert into {name} values ('; format CSV'), ('--'), ($$it's$$)")
    assert sorted(row[0] for row in rows_of(driver, name)) == sorted(
        ["value;", "-- no comment", "'", "/*", "; format CSV", "--", "it's"]
    )


def test_a_query_fills_a_table(driver: Driver, table: Callable[..., str]) -> None:
    name = table("n UInt32, s String")
    driver.command(f"insert into {name} select number, 'format CSV' from numbers({{n:UInt32}})", parameters={"n": 3})
    driver.command(f"insert into {name} with 10 as x select x, 'cte'")
    driver.command(f"with 11 as x insert into {name} select x, 'before'")
    driver.command(f"insert into {name} (s, n) select 'named', 12")
    assert rows_of(driver, name) == [
        (0, "format CSV"),
        (1, "format CSV"),
        (2, "format CSV"),
        (10, "cte"),
        (11, "before"),
        (12, "named"),
    ]


def test_data_may_be_computed_with_while_it_is_inserted(client: Client, table: Callable[..., str]) -> None:
    name = table("n UInt32, s String")
    block = f"insert into {name} select n * 2, upper(s) from input('n UInt32, s String') format CSV\n1,a\n2,b\n"
    client.raw_insert(insert_block=block.encode())
    assert rows_of(client, name) == [(2, "A"), (4, "B")]


def test_broken_lines_may_be_passed_over(driver: Driver, table: Callable[..., str]) -> None:
    name = table("n UInt32")
    settings = {"input_format_allow_errors_num": 2, "input_format_parallel_parsing": 0}
    driver.raw_insert(name, ["n"], b"1\nx\n2\ny\n3\n", fmt="CSV", settings=settings)
    assert [row[0] for row in rows_of(driver, name)] == [1, 2, 3]


BROKEN = [
    ("CSV", b"1\nseven\n", {27, 117}),
    ("JSONEachRow", b'{"n": 1}\n{"n": "x"}\n', {26, 27, 72, 117}),
    ("RowBinary", b"\x01\x00\x00\x00\x02\x00", {32, 33}),
    ("Native", b"\x01\x02\x01n\x06UInt32\x01\0\0\0", {32, 33}),
    ("Parquet", b"this is no parquet at all", {27, 33, 636, 1001, 117}),
    ("NoSuchFormat", b"1", {73}),
]


@pytest.mark.parametrize(("fmt", "body", "codes"), BROKEN, ids=[fmt for fmt, _, _ in BROKEN])
def test_what_cannot_be_read_is_refused_whole(
    driver: Driver, table: Callable[..., str], fmt: str, body: bytes, codes: set[int]
) -> None:
    name = table("n UInt32")
    with pytest.raises(DatabaseError) as error:
        driver.raw_insert(name, ["n"], body, fmt=fmt)
    assert error.value.code in codes
    assert rows_of(driver, name) == []


def test_a_table_that_is_not_there_is_an_error_before_any_data(driver: Driver) -> None:
    with pytest.raises(DatabaseError) as error:
        driver.insert("not_there", [[1]], column_names=["n"], column_type_names=["UInt8"])
    assert error.value.code == 60
    with pytest.raises((DatabaseError, ProgrammingError)):
        driver.insert("not_there", [[1]])


def test_values_that_are_not_of_the_type_are_refused_by_the_driver(driver: Driver, table: Callable[..., str]) -> None:
    name = table("n Int32, f Float64")
    with pytest.raises((DataError, TypeError, ValueError)):
        driver.insert(name, [[1, 3.5], [2, "no number"]])
    assert rows_of(driver, name) == []


def test_the_same_block_is_stored_once_where_the_table_remembers(driver: Driver, table: Callable[..., str]) -> None:
    name = table("n UInt8", "MergeTree order by n settings non_replicated_deduplication_window = 100")
    for token in ("a", "a", "b"):
        driver.insert(name, [[1]], settings={"insert_deduplication_token": token, "insert_deduplicate": 1})
    assert rows_of(driver, name) == [(1,), (1,)]


@pytest.mark.parametrize("wait", [0, 1])
def test_asynchronous_inserts_arrive(driver: Driver, table: Callable[..., str], wait: int) -> None:
    name = table("n UInt32, s String", "MergeTree order by n")
    for n in range(5):
        driver.insert(
            name,
            [[n, "x"]],
            settings={"async_insert": 1, "wait_for_async_insert": wait, "async_insert_busy_timeout_max_ms": 100},
        )
    wait_for(lambda: driver.command(f"select count() from {name}") == 5)
    assert rows_of(driver, name) == [(n, "x") for n in range(5)]


FRAME_TYPES = {
    "i": ("Int64", [1, -2, 2**40]),
    "u": ("UInt8", [0, 1, 255]),
    "f": ("Float64", [0.5, -1.5, 1e300]),
    "s": ("String", ["a", "", "é"]),
    "b": ("Bool", [True, False, True]),
    "t": (
        "DateTime64(6, 'UTC')",
        [
            datetime(2024, 1, 1, tzinfo=timezone.utc),
            datetime(1999, 1, 1, 1, 1, 1, 7, tzinfo=timezone.utc),
            datetime(2100, 1, 1, tzinfo=timezone.utc),
        ],
    ),
    "m": ("Nullable(Float64)", [1.0, None, 3.0]),
    "l": ("LowCardinality(String)", ["x", "y", "x"]),
    "a": ("Array(Int64)", [[1], [], [2, 3]]),
}
FRAME_COLUMNS = ", ".join(f"{name} {kind}" for name, (kind, _) in FRAME_TYPES.items())
FRAME_ROWS = list(zip(*(values for _, values in FRAME_TYPES.values()), strict=True))


def written(driver: Driver | Client, name: str) -> list[tuple[Any, ...]]:
    rows = driver.query(f"select * from {name} order by indexOf([1, -2, {2**40}], i)").result_rows
    return [tuple(v.replace(tzinfo=timezone.utc) if isinstance(v, datetime) else v for v in row) for row in rows]


def test_frames_of_pandas_go_both_ways(driver: Driver, table: Callable[..., str]) -> None:
    name = table(FRAME_COLUMNS)
    driver.insert_df(name, pd.DataFrame({column: values for column, (_, values) in FRAME_TYPES.items()}))
    assert written(driver, name) == FRAME_ROWS
    frame = driver.query_df(f"select * from {name} order by indexOf([1, -2, {2**40}], i)")
    assert list(frame.columns) == list(FRAME_TYPES)
    assert frame["u"].dtype == np.uint8
    assert frame["m"].isna().tolist() == [False, True, False]
    assert [stamp.to_pydatetime().replace(tzinfo=timezone.utc) for stamp in frame["t"]] == FRAME_TYPES["t"][1]


def test_arrow_goes_both_ways(driver: Driver, table: Callable[..., str]) -> None:
    name = table(FRAME_COLUMNS)
    schema = {"i": pa.int64(), "u": pa.uint8(), "b": pa.bool_(), "t": pa.timestamp("us", "UTC"), "l": pa.string()}
    arrow = pa.table({column: pa.array(values, schema.get(column)) for column, (_, values) in FRAME_TYPES.items()})
    driver.insert_arrow(name, arrow)
    assert written(driver, name) == FRAME_ROWS
    back = driver.query_arrow(
        f"select i, u, f, s, m, a from {name} order by indexOf([1, -2, {2**40}], i)", use_strings=True
    )
    assert back.to_pydict() == {column: FRAME_TYPES[column][1] for column in ("i", "u", "f", "s", "m", "a")}


@pytest.mark.parametrize("library", ["pandas", "polars"])
def test_frames_over_arrow_go_both_ways(driver: Driver, table: Callable[..., str], library: str) -> None:
    name = table("i Int64, s String, m Nullable(Float64)", "MergeTree order by i")
    values = {"i": [1, 2, 3], "s": ["a", "", "é"], "m": [1.0, None, 3.0]}
    frame: Any
    frame = pl.DataFrame(values) if library == "polars" else pa.table(values).to_pandas(types_mapper=pd.ArrowDtype)
    driver.insert_df_arrow(name, frame)
    assert rows_of(driver, name) == list(zip(*values.values(), strict=True))
    back = driver.query_df_arrow(f"select * from {name} order by i", dataframe_library=library)
    found = (
        back.to_dict(as_series=False)
        if library == "polars"
        else {c: [None if pd.isna(v) else v for v in back[c]] for c in back}
    )
    assert found == values
    pieces = driver.drain(driver.query_df_arrow_stream(f"select * from {name}", dataframe_library=library))
    assert sum(len(piece) for piece in pieces) == 3


def test_numpy_goes_both_ways(driver: Driver, table: Callable[..., str]) -> None:
    name = table("a Int32, b Float64, c String", "MergeTree order by a")
    array = np.array([(1, 1.5, "x"), (2, -2.5, "é")], dtype=[("a", "i4"), ("b", "f8"), ("c", "U5")])
    driver.insert(name, array)
    back = driver.query_np(f"select * from {name} order by a")
    assert back["a"].tolist() == [1, 2]
    assert back["b"].tolist() == [1.5, -2.5]
    assert back["c"].tolist() == ["x", "é"]
    matrix = driver.query_np("select number::Float64 as x, number * 2.0 as y from numbers(3)")
    assert np.asarray(matrix.tolist()).tolist() == [[0, 0], [1, 2], [2, 4]]


def test_random_rows_of_random_types_come_back(client: Client, table: Callable[..., str]) -> None:
    chance = random.Random(7)
    scalars: list[tuple[str, Callable[[], Any]]] = [
        ("Int64", lambda: chance.randrange(-(2**63), 2**63)),
        ("UInt128", lambda: chance.getrandbits(128)),
        (
            "String",
            lambda: "".join(chr(chance.choice([9, 10, 39, 92, 65, 233, 128_512])) for _ in range(chance.randrange(9))),
        ),
        ("Float64", lambda: chance.uniform(-1e9, 1e9)),
        ("Bool", lambda: chance.random() < 0.5),
        ("Decimal(18, 3)", lambda: Decimal(chance.randrange(-(10**18) + 1, 10**18)).scaleb(-3)),
    ]

    def kind(depth: int) -> tuple[str, Callable[[], Any]]:
        name, make = chance.choice(scalars)
        shape = chance.choice(["", "Nullable", "Array", "Tuple", "Map"]) if depth < 3 else ""
        if shape == "Nullable":
            return f"Nullable({name})", lambda: None if chance.random() < 0.3 else make()
        if shape == "Array":
            inner, of = kind(depth + 1)
            return f"Array({inner})", lambda: [of() for _ in range(chance.randrange(4))]
        if shape == "Tuple":
            parts = [kind(depth + 1) for _ in range(chance.randrange(1, 4))]
            return f"Tuple({', '.join(part for part, _ in parts)})", lambda: tuple(of() for _, of in parts)
        if shape == "Map":
            inner, of = kind(depth + 1)
            return f"Map(String, {inner})", lambda: {f"k{n}": of() for n in range(chance.randrange(4))}
        return name, make

    for _ in range(15):
        kinds = [kind(0) for _ in range(chance.randrange(1, 8))]
        columns = ", ".join(f"c{number} {name}" for number, (name, _) in enumerate(kinds))
        rows = [(number, *(make() for _, make in kinds)) for number in range(chance.randrange(1, 200))]
        name = table(f"n UInt32, {columns}", "MergeTree order by n")
        client.insert(name, rows)
        assert rows_of(client, name) == rows, columns
