"""The driver's DB API, which pandas, SQL clients and hooks of schedulers build on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pandas as pd
import pytest
from clickhouse_connect import dbapi
from clickhouse_connect.driver.exceptions import DatabaseError, Error

from tests.embedded_clients.conftest import HOST


@pytest.fixture
def connection(port: int, database: str) -> Iterator[Any]:
    connection = dbapi.connect(host=HOST, port=port, database=database)
    yield connection
    connection.close()


def test_rows_are_fetched_one_some_and_all(connection: Any) -> None:
    cursor = connection.cursor()
    cursor.execute("select number, toString(number) from numbers(10) order by 1")
    assert cursor.rowcount == 10
    assert cursor.fetchone() == (0, "0")
    assert list(cursor.fetchmany(3)) == [(1, "1"), (2, "2"), (3, "3")]
    assert list(cursor.fetchall()) == [(n, str(n)) for n in range(4, 10)]
    assert cursor.fetchone() is None
    cursor.close()


def test_the_description_names_columns_and_types(connection: Any, table: Callable[..., str]) -> None:
    name = table("d Decimal(18, 4), t DateTime64(3), n Nullable(UInt64)")
    cursor = connection.cursor()
    cursor.execute(f"select * from {name}")
    assert [column[:2] for column in cursor.description] == [
        ("d", "Decimal(18, 4)"),
        ("t", "DateTime64(3)"),
        ("n", "Nullable(UInt64)"),
    ]


@pytest.mark.parametrize("named", [False, True])
def test_many_rows_are_inserted_at_once(connection: Any, table: Callable[..., str], named: bool) -> None:
    name = table("id UInt32, s String")
    rows = [(1, "it's"), (2, "b")]
    cursor = connection.cursor()
    if named:
        statement = f"insert into {name} (id, s) values (%(id)s, %(s)s)"
        cursor.executemany(statement, [{"id": number, "s": text} for number, text in rows])
    else:
        cursor.executemany(f"insert into {name} (id, s) values (%s, %s)", rows)
    cursor.execute(f"select * from {name} order by id")
    assert list(cursor.fetchall()) == rows


def test_parameters_are_values_and_nothing_else(connection: Any) -> None:
    cursor = connection.cursor()
    awkward = "'; drop table system.one; --"
    cursor.execute("select %(text)s, %(list)s, %(none)s", {"text": awkward, "list": [1, 2], "none": None})
    assert cursor.fetchall() == [(awkward, [1, 2], None)]


def test_an_error_is_of_the_standards_kinds(connection: Any) -> None:
    cursor = connection.cursor()
    with pytest.raises(Error) as error:
        cursor.execute("select * from not_there")
    assert isinstance(error.value, DatabaseError)
    cursor.execute("select 1")
    assert cursor.fetchall() == [(1,)]


def test_commit_is_allowed_and_means_nothing(connection: Any) -> None:
    connection.commit()
    connection.rollback()
    assert connection.cursor().execute("select 1") is None


def test_pandas_reads_over_it(connection: Any) -> None:
    with pytest.warns(UserWarning, match="SQLAlchemy"):
        frame = pd.read_sql("select number as n from numbers(5)", connection)
    assert frame["n"].tolist() == [0, 1, 2, 3, 4]
