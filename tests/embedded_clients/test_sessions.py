"""Sessions and what they keep, streams and how they end, statements that are stopped, drivers that share threads."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import clickhouse_connect
import pytest
from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.exceptions import (
    DatabaseError,
    OperationalError,
    ProgrammingError,
    StreamClosedError,
    StreamFailureError,
)

from tests.embedded_clients.conftest import HOST, Driver, wait_for

#: Fails at its hundredth block, after what came before it has been sent.
BREAKS = "select number, repeat('x', 20000), throwIf(number = 100, 'my words') from numbers(200)"
IN_PIECES = {"max_block_size": 1, "wait_end_of_query": 0, "http_response_buffer_size": 0, "max_threads": 1}
SLEEPY = "max_block_size = 1, max_threads = 1, function_sleep_max_microseconds_per_block = 0"
SLOW = f"select sum(sleepEachRow(0.05)) from numbers(1200) settings {SLEEPY}"


def running(client: Client, query_id: str) -> bool:
    query = "select count() from system.processes where query_id = {id:String}"
    return bool(client.query(query, parameters={"id": query_id}).result_rows[0][0])


def test_temporary_tables_live_in_their_session(connect: Callable[..., Driver]) -> None:
    one, other = (connect(session_id=str(uuid.uuid4())) for _ in range(2))
    one.command("create temporary table mine (n UInt8, s String)")
    one.insert("mine", [[1, "a"], [2, "b"]], column_names=["n", "s"], column_type_names=["UInt8", "String"])
    one.command("insert into mine values (3, 'c')")
    frame = one.query_df("select * from mine order by n")
    assert frame["n"].tolist() == [1, 2, 3]
    one.insert_df("mine", frame)
    assert one.command("select count() from mine") == 6
    with pytest.raises(DatabaseError) as error:
        other.query("select * from mine")
    assert error.value.code == 60
    one.command("drop table mine")


def test_set_and_use_last_in_their_session(connect: Callable[..., Driver]) -> None:
    one, other = (connect(session_id=str(uuid.uuid4()), database=None) for _ in range(2))
    one.command("set max_threads = 5")
    one.command("use system")
    assert one.command("select getSetting('max_threads'), currentDatabase()") == ["5", "system"]
    assert other.command("select getSetting('max_threads') = 5, currentDatabase()") == ["0", "default"]


def test_parameters_set_in_a_session_stay(connect: Callable[..., Driver]) -> None:
    driver = connect(session_id=str(uuid.uuid4()))
    driver.command("set param_remembered = 42")
    assert driver.command("select {remembered:Int32}") == 42


def test_a_session_that_is_not_there_is_an_error_when_it_must_be(driver: Driver) -> None:
    with pytest.raises(DatabaseError) as error:
        driver.query("select 1", settings={"session_id": str(uuid.uuid4()), "session_check": 1})
    assert (error.value.code, error.value.name) == (372, "SESSION_NOT_FOUND")


def test_a_session_is_forgotten_after_its_time(driver: Driver) -> None:
    settings = {"session_id": str(uuid.uuid4()), "session_timeout": 1}
    driver.command("create temporary table brief (n UInt8)", settings=settings)

    def gone() -> bool:
        try:
            driver.query("select 1", settings={**settings, "session_check": 1})
        except DatabaseError as error:
            return error.code == 372
        time.sleep(2)
        return False

    wait_for(gone)


def test_a_session_does_one_thing_at_a_time(client: Client, port: int, loop: asyncio.AbstractEventLoop) -> None:
    async def both() -> list[Any]:
        session = str(uuid.uuid4())
        async with await clickhouse_connect.get_async_client(host=HOST, port=port, session_id=session) as one:
            slow = asyncio.create_task(one.query("select sleep(3), 1", settings={"query_id": session}))
            await asyncio.to_thread(wait_for, lambda: running(client, session))
            return list(await asyncio.gather(one.query("select 1"), slow, return_exceptions=True))

    refused, answered = loop.run_until_complete(both())
    assert isinstance(refused, DatabaseError | ProgrammingError)
    assert "session" in str(refused).lower()
    assert answered.result_rows == [(0, 1)]


def test_a_session_that_the_server_holds_is_locked(client: Client, port: int) -> None:
    session, other = str(uuid.uuid4()), str(uuid.uuid4())
    settings = {"session_id": session, "query_id": other}
    with ThreadPoolExecutor(1) as pool:
        slow = pool.submit(lambda: client.command("select sleep(2)", settings=settings))
        with clickhouse_connect.get_client(host=HOST, port=port, autogenerate_session_id=False) as second:
            wait_for(lambda: running(second, other))
            with pytest.raises(DatabaseError) as error:
                second.command("select 1", settings={"session_id": session})
            assert (error.value.code, error.value.name) == (373, "SESSION_IS_LOCKED")
        assert slow.result() == 0


@pytest.mark.parametrize("method", ["query_rows_stream", "query_row_block_stream", "query_column_block_stream"])
def test_streams_yield_everything_in_pieces(driver: Driver, method: str) -> None:
    query = "select number, randomPrintableASCII(50) from numbers(10000)"
    stream = getattr(driver, method)(query, settings={"max_block_size": 4000})
    pieces = driver.drain(stream)
    if method == "query_rows_stream":
        numbers = [row[0] for row in pieces]
    elif method == "query_row_block_stream":
        numbers = [row[0] for block in pieces for row in block]
    else:
        numbers = [number for block in pieces for number in block[0]]
    assert sorted(numbers) == list(range(10_000))
    assert len(pieces) > 1


def test_a_stream_is_read_once(driver: Driver) -> None:
    stream = driver.query_rows_stream("select number from numbers(10)")
    assert len(driver.drain(stream)) == 10
    with pytest.raises(StreamClosedError):
        driver.drain(stream)


def test_raw_streams_yield_the_bytes_of_a_format(driver: Driver) -> None:
    pieces = driver.drain(driver.raw_stream("select number from numbers(300000)", fmt="TabSeparated"))
    assert b"".join(pieces) == b"".join(b"%d\n" % number for number in range(300_000))
    assert len(pieces) > 1


def test_frames_and_arrow_are_streamed_too(driver: Driver) -> None:
    query, settings = "select number as n, toString(number) as s from numbers(30000)", {"max_block_size": 10_000}
    frames = driver.drain(driver.query_df_stream(query, settings=settings))
    arrays = driver.drain(driver.query_np_stream("select number as n from numbers(30000)", settings=settings))
    batches = driver.drain(driver.query_arrow_stream(query, settings=settings))
    assert sum(int(frame["n"].sum()) for frame in frames) == sum(range(30_000))
    assert sum(int(array.sum()) for array in arrays) == sum(range(30_000))
    assert sum(batch.num_rows for batch in batches) == 30_000
    assert len(frames) > 1
    assert len(batches) > 1


def test_a_stream_left_early_harms_nobody(driver: Driver) -> None:
    for _ in range(3):
        stream = driver.query_rows_stream(
            "select number, repeat('x', 1000) from numbers(100000)", settings={"max_block_size": 1000}
        )
        assert len(driver.drain(stream, limit=1000)) == 1000
        assert driver.query("select 1").result_rows == [(1,)]


# The synchronous driver reads a stream that it leaves to its end.
only_asynchronous = pytest.mark.parametrize("connect", ["async"], indirect=True)


@only_asynchronous
def test_a_stream_left_early_stops_its_query(driver: Driver, client: Client) -> None:
    chosen = str(uuid.uuid4())
    stream = driver.query_row_block_stream(
        "select number from system.numbers", settings={"query_id": chosen, "max_block_size": 1000}
    )
    driver.drain(stream, limit=3)
    wait_for(lambda: not running(client, chosen))


@only_asynchronous
def test_the_first_rows_come_before_the_last_are_made(connect: Callable[..., Driver], client: Client) -> None:
    chosen = str(uuid.uuid4())
    driver = connect(compress=False)
    query = f"select number, repeat('x', 100000), sleepEachRow(0.1) from numbers(600) settings {SLEEPY}"
    stream = driver.query_row_block_stream(query, settings={**IN_PIECES, "query_id": chosen})
    assert driver.drain(stream, limit=1, meanwhile=lambda: running(client, chosen)) == [True]
    wait_for(lambda: not running(client, chosen))


@pytest.mark.parametrize("compress", [False, "gzip", "lz4", "zstd"])
def test_an_error_amid_a_stream_is_told(connect: Callable[..., Driver], compress: bool | str) -> None:
    driver = connect(compress=compress)
    with pytest.raises(StreamFailureError, match="my words"):
        driver.drain(driver.query_rows_stream(BREAKS, settings=IN_PIECES))
    assert driver.command("select 1") == 1


def test_an_error_amid_a_result_is_told(driver: Driver) -> None:
    with pytest.raises(DatabaseError, match="my words") as error:
        assert driver.query(BREAKS, settings=IN_PIECES).result_rows
    assert "395" in str(error.value)
    assert driver.command("select 1") == 1


def test_rows_before_an_error_are_still_read(client: Client) -> None:
    found = []
    with pytest.raises(StreamFailureError), client.query_row_block_stream(BREAKS, settings=IN_PIECES) as stream:
        for block in stream:
            found += [row[0] for row in block]
    assert found == list(range(len(found)))
    assert 0 < len(found) <= 100


def test_a_query_is_killed_by_its_id(driver: Driver, client: Client) -> None:
    chosen = f"to be killed {uuid.uuid4()}"
    with ThreadPoolExecutor(1) as pool:

        def slow() -> Any:
            return driver.command(SLOW, settings={"query_id": chosen})

        waiting = pool.submit(slow)
        wait_for(lambda: running(client, chosen))
        killed = client.query("kill query where query_id = {id:String} sync", parameters={"id": chosen})
        assert chosen in killed.result_rows[0]
        with pytest.raises(DatabaseError) as error:
            waiting.result(30)
    assert (error.value.code, error.value.name) == (394, "QUERY_WAS_CANCELLED")


def test_an_id_that_runs_cannot_be_used_again(client: Client, port: int) -> None:
    chosen = str(uuid.uuid4())
    with (
        ThreadPoolExecutor(1) as pool,
        clickhouse_connect.get_client(host=HOST, port=port, autogenerate_session_id=False) as other,
    ):
        slow = pool.submit(lambda: client.command("select sleep(2)", settings={"query_id": chosen}))
        wait_for(lambda: running(other, chosen))
        with pytest.raises(DatabaseError) as error:
            other.command("select 1", settings={"query_id": chosen})
        assert (error.value.code, error.value.name) == (216, "QUERY_WITH_SAME_ID_IS_ALREADY_RUNNING")
        assert slow.result() == 0


def test_a_client_that_hangs_up_cancels_its_query(client: Client, port: int) -> None:
    chosen = str(uuid.uuid4())
    body = SLOW.encode()
    with socket.create_connection((HOST, port)) as connection:
        connection.sendall(
            f"POST /?query_id={chosen}&cancel_http_readonly_queries_on_client_close=1 HTTP/1.1\r\n"
            f"Host: x\r\nContent-Length: {len(body)}\r\n\r\n".encode()
            + body
        )
        wait_for(lambda: running(client, chosen))
    wait_for(lambda: not running(client, chosen))


def test_a_driver_that_gives_up_can_go_on(connect: Callable[..., Driver]) -> None:
    driver = connect(send_receive_timeout=3, query_retries=0)
    with pytest.raises((TimeoutError, OperationalError)):
        driver.query(SLOW)
    assert driver.query("select 1").result_rows == [(1,)]


def test_many_threads_share_one_client(client: Client, table: Callable[..., str]) -> None:
    name = table("thread UInt8, n UInt32")

    def work(thread: int) -> int:
        for start in range(0, 300, 100):
            client.insert(name, [[thread, start + n] for n in range(100)], column_names=["thread", "n"])
        query = f"select sum(n) from {name} where thread = {{thread:UInt8}}"
        return int(client.query(query, parameters={"thread": thread}).result_rows[0][0])

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(work, range(16))) == [sum(range(300))] * 16
    assert client.command(f"select count() from {name}") == 16 * 300


def test_asynchronous_statements_run_side_by_side(port: int, loop: asyncio.AbstractEventLoop) -> None:
    async def ask() -> list[Any]:
        async with await clickhouse_connect.get_async_client(
            host=HOST, port=port, autogenerate_session_id=False, connector_limit=50, connector_limit_per_host=50
        ) as client:
            met = "select {n:UInt8}, sleep(0.5), uniqExact(query_id) >= 2 from system.processes"
            answers = await asyncio.gather(
                *(client.query(met, parameters={"n": n}) for n in range(8)), return_exceptions=True
            )
            failing = await asyncio.gather(
                client.query("select 1"), client.query("selec 1"), client.query("select 2"), return_exceptions=True
            )
            return [answers, failing]

    answers, failing = loop.run_until_complete(ask())
    assert [answer.result_rows[0][0] for answer in answers] == list(range(8))
    assert any(answer.result_rows[0][2] for answer in answers)
    assert [failing[0].result_rows, failing[2].result_rows] == [[(1,)], [(2,)]]
    assert isinstance(failing[1], DatabaseError)


@pytest.fixture
def busy(client: Client) -> Iterator[str]:
    """A statement that takes its time, while the test runs."""
    chosen = str(uuid.uuid4())
    ended = threading.Event()

    def work() -> None:
        try:
            client.command(SLOW, settings={"query_id": chosen})
        except DatabaseError:
            ended.set()

    thread = threading.Thread(target=work)
    thread.start()
    wait_for(lambda: running(client, chosen))
    yield chosen
    client.command("kill query where query_id = {id:String} sync", parameters={"id": chosen})
    thread.join(30)
    assert ended.is_set()


def test_a_slow_statement_keeps_nobody_waiting(driver: Driver, client: Client, busy: str) -> None:
    assert driver.ping()
    assert driver.command("select 1") == 1
    assert running(client, busy)
    assert (
        client.query(
            "select query from system.processes where query_id = {id:String}", parameters={"id": busy}
        ).row_count
        == 1
    )
