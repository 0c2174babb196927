"""What flows through the embedded server: results and data in pieces, cut off, cancelled, limited."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import json
import os
import signal
import socket
import threading
import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import httpx
import psutil
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retention_platform.embedded.clickhouse import running
from retention_platform.embedded.clickhouse.blocks import BlockDecoder, BlockEncoder
from retention_platform.embedded.clickhouse.server import Server
from retention_platform.embedded.clickhouse.users import users_of

# One client: each new one reads all of the machine's certificates.
HTTP = httpx.Client(timeout=120)


@pytest.fixture
def url(clickhouse_port: int) -> str:
    return f"http://127.0.0.1:{clickhouse_port}"


@pytest.fixture
def database(url: str) -> Iterator[str]:
    name = f"streams_{uuid.uuid4().hex}"
    assert ask(url, f"create database {name}").status_code == 200
    yield name
    assert ask(url, f"drop database {name}").status_code == 200


def ask(url: str, content: Any, **parameters: Any) -> httpx.Response:
    return HTTP.post(url, content=content, params=parameters, headers={"Accept-Encoding": "identity"})


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def runs(url: str, query_id: str) -> bool:
    query = "select count() from system.processes where query_id = {id:String}"
    return ask(url, query, param_id=query_id).text == "1\n"


@contextlib.contextmanager
def raw(url: str, body: bytes, head: str = "", **parameters: Any) -> Iterator[socket.socket]:
    """A connection that a request is sent on, as bytes."""
    address = httpx.URL(url)
    with socket.create_connection((address.host, address.port or 0), timeout=60) as connection:
        length = "" if "Transfer-Encoding" in head else f"Content-Length: {len(body)}\r\n"
        lines = f"POST /?{urlencode(parameters)} HTTP/1.1\r\nHost: x\r\n{head}{length}\r\n"
        connection.sendall(lines.encode() + body)
        yield connection


def to_the_end(connection: socket.socket) -> bytes:
    pieces = []
    while piece := connection.recv(1 << 20):
        pieces.append(piece)
    return b"".join(pieces)


STRING = st.sampled_from(["'format CSV'", "'it''s; \\''", "$$ values ( ' $$", "'into outfile'", "'-- no'"])
GAP = st.sampled_from([" ", "\n", "/* format XML */", " -- format TSV\n", "\t\n "])
FORMAT = st.sampled_from(["JSONCompact", "TSV", "CSVWithNames", "RowBinary", "Native", "Parquet", ""])


@settings(max_examples=40, deadline=None)
@given(string=STRING, gaps=st.lists(GAP, min_size=3, max_size=3), name=FORMAT, ended=st.booleans())
def test_a_format_is_found_where_the_engine_finds_it(
    clickhouse_port: int, string: str, gaps: list[str], name: str, ended: bool
) -> None:
    url = f"http://127.0.0.1:{clickhouse_port}"
    query = f"select{gaps[0]}length({string}) as format,{gaps[1]}number from numbers(2) limit 1"
    text = query + (f"{gaps[2]}format {name}" if name else "") + (gaps[2] + ";" if ended else "")
    answer = ask(url, text, default_format="JSONCompactEachRow")
    assert answer.status_code == 200, answer.text
    assert answer.headers["X-ClickHouse-Format"] == (name or "JSONCompactEachRow")
    # The engine is given the same by its own setting.
    again = ask(url, query, default_format=name or "JSONCompactEachRow")
    if name != "JSONCompact":
        assert answer.content == again.content
    else:
        assert answer.json()["data"] == again.json()["data"]


@pytest.mark.parametrize("name", ["Native", "RowBinaryWithNamesAndTypes"])
def test_a_result_of_any_size_takes_little_memory(url: str, tmp_path: Path, name: str) -> None:
    query = f"select number, toString(number) as text from numbers(12000000) format {name}"
    with running(tmp_path / "data") as server:
        ask(server.url, f"{query[: -len(name)]}{name} settings limit = 10")
        process = psutil.Process(server.pid)
        before = process.memory_info().rss
        most = size = 0
        with HTTP.stream("POST", server.url, content=query, headers={"Accept-Encoding": "identity"}) as answer:
            for piece in answer.iter_raw(1 << 20):
                size += len(piece)
                most = max(most, process.memory_info().rss) if size % 16 == 0 else most
        most = max(most, process.memory_info().rss)
    assert size > 180_000_000
    assert most - before < 150_000_000


def test_the_data_of_an_insert_of_any_size_takes_little_memory(tmp_path: Path) -> None:
    rows = b"".join(b"%d,%d\n" % (n, n) for n in range(100_000))

    def pieces() -> Iterator[bytes]:
        for _ in range(100):
            yield rows

    with running(tmp_path / "data") as server:
        ask(server.url, "create table default.n (a UInt64, b String) engine = Null")
        process = psutil.Process(server.pid)
        before = process.memory_info().rss
        answer = ask(server.url, pieces(), query="insert into default.n format CSV")
        summary = json.loads(answer.headers["X-ClickHouse-Summary"])
        assert (answer.status_code, summary["written_rows"]) == (200, "10000000")
        assert process.memory_info().rss - before < 250_000_000


BIG = 1_000_000


@pytest.mark.parametrize("head", ["", "Expect: 100-continue\r\n"])
def test_a_big_body_is_taken_to_its_last_byte_and_not_further(url: str, database: str, head: str) -> None:
    assert ask(url, f"create table {database}.t (a UInt32, b String) engine = Memory").status_code == 200
    body = b"".join(b"%d\tviewer %d\n" % (n, n) for n in range(BIG))
    following = b"GET /?query=select+7 HTTP/1.1\r\nHost: x\r\n\r\n"
    query = f"insert into {database}.t format TSV"
    parameters = {"query": query, "wait_end_of_query": 1}
    with raw(url, body, head, **parameters) as connection:
        connection.sendall(following + following)
        answer = b""
        while not answer.endswith(b"\r\n\r\n7\n") or answer.count(b"\r\n\r\n7\n") < 2:
            more = connection.recv(10_000)
            assert more, f"the connection ended after {answer!r}"
            answer += more
    assert b'"written_rows":"1000000"' in answer.replace(b'": "', b'":"')
    stored = ask(url, f"select count(), sum(a), sum(length(b)) from {database}.t").text
    assert stored == f"{BIG}\t{BIG * (BIG - 1) // 2}\t{sum(len(f'viewer {n}') for n in range(BIG))}\n"


def test_what_is_wrong_in_a_big_body_is_told_and_the_connection_lives_on(url: str, database: str) -> None:
    assert ask(url, f"create table {database}.t (a UInt32) engine = Memory").status_code == 200
    body = b"no number\n" + b"1\n" * 8_000_000
    with httpx.Client(timeout=120) as client:
        for _ in range(2):
            answer = client.post(url, params={"query": f"insert into {database}.t format TSV"}, content=body)
            assert (answer.status_code, answer.headers["X-ClickHouse-Exception-Code"]) == (400, "27"), answer.text
        assert client.post(url, content=f"select count() from {database}.t").text == "0\n"


def test_a_big_body_cut_off_is_not_taken_for_the_whole(url: str, database: str) -> None:
    assert ask(url, f"create table {database}.t (a UInt32) engine = MergeTree order by a").status_code == 200
    query_id = uuid.uuid4().hex
    address = httpx.URL(url)
    target = urlencode({"query": f"insert into {database}.t format TSV", "query_id": query_id})
    with socket.create_connection((address.host, address.port or 0), timeout=60) as connection:
        connection.sendall(f"POST /?{target} HTTP/1.1\r\nHost: x\r\nContent-Length: 100000000\r\n\r\n".encode())
        connection.sendall(b"1\n" * 400_000)
        wait_for(lambda: runs(url, query_id))
    wait_for(lambda: not runs(url, query_id))
    assert ask(url, f"select count() from {database}.t").text == "0\n"


def test_an_error_amid_a_result_is_marked_and_the_result_not_ended(url: str) -> None:
    query = b"select number, throwIf(number = 3000000, 'my words') from numbers(5000000) format TSV"
    with raw(url, query) as connection:
        answer = to_the_end(connection)
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 ")
    tag = head.lower().partition(b"x-clickhouse-exception-tag: ")[2][:16]
    assert body.startswith(b"10000\r\n0\t0\n1\t0\n") or b"0\t0\n1\t0\n" in body[:100]
    _, mark, told = body.partition(b"\r\n__exception__\r\n" + tag + b"\r\n")
    assert mark
    message, _, rest = told.rpartition(b"\n%d " % (told.index(b"(official build))\n") + len(b"(official build))\n")))
    assert message.startswith(b"Code: 395. DB::Exception: ")
    assert rest.startswith(tag + b"\r\n__exception__\r\n")
    assert not answer.endswith(b"0\r\n\r\n")


def test_an_error_before_anything_is_sent_has_its_status(url: str) -> None:
    query = "select throwIf(number = 900, 'my words') from numbers(1000) format JSON"
    answer = ask(url, query)
    assert (answer.status_code, answer.headers["X-ClickHouse-Exception-Code"]) == (500, "395")
    late = "select number, throwIf(number = 3000000, 'my words') from numbers(5000000) format TSV"
    answer = ask(url, late, wait_end_of_query=1)
    assert (answer.status_code, answer.headers["X-ClickHouse-Exception-Code"]) == (500, "395")


def test_a_result_waited_for_has_true_counts(url: str) -> None:
    query = "select sleepEachRow(0.05), number from numbers(20) settings max_block_size = 1"
    answer = ask(url, query, wait_end_of_query=1)
    summary = json.loads(answer.headers["X-ClickHouse-Summary"])
    assert (summary["read_rows"], summary["result_rows"]) == ("20", "20")
    assert int(summary["elapsed_ns"]) >= 1e9


@pytest.mark.parametrize(
    ("statement", "rows"),
    [("format CSV\n1\n2\n3\n", 3), ("values (4), (5)", 2), ("select number from numbers(10)", 10)],
)
def test_an_insert_tells_what_it_has_read_and_written(url: str, database: str, statement: str, rows: int) -> None:
    assert ask(url, f"create table {database}.t (a Int32) engine = MergeTree order by a").status_code == 200
    summary = json.loads(ask(url, f"insert into {database}.t {statement}").headers["X-ClickHouse-Summary"])
    assert [int(summary[name]) for name in ("read_rows", "written_rows", "result_rows")] == [rows] * 3
    # Four bytes for each Int32.
    assert int(summary["written_bytes"]) == int(summary["result_bytes"]) == rows * 4
    assert ask(url, f"select count() from {database}.t").text == f"{rows}\n"


def test_progress_comes_in_headers_while_the_query_runs_and_the_connection_lives_on(url: str) -> None:
    query = b"select sleepEachRow(0.2) from numbers(5) settings max_block_size = 1"
    wanted = {"send_progress_in_http_headers": 1, "http_headers_progress_interval_ms": 150, "wait_end_of_query": 1}
    with raw(url, query, **wanted) as connection:
        first = connection.recv(10_000)
        assert b"X-ClickHouse-Progress: {" in first
        assert b"\r\n\r\n" not in first
        answer = first
        while not answer.endswith(b"0\r\n\r\n"):
            answer += connection.recv(10_000)
        head, _, body = answer.partition(b"\r\n\r\n")
        told = [json.loads(line.partition(b": ")[2]) for line in head.splitlines() if b"Progress" in line]
        assert [int(one["read_rows"]) for one in told] == sorted(int(one["read_rows"]) for one in told)
        assert body == b"a\r\n" + b"0\n" * 5 + b"\r\n0\r\n\r\n"
        connection.sendall(b"GET /?query=select+7 HTTP/1.1\r\nHost: x\r\n\r\n")
        answer = b""
        while not answer.endswith(b"\r\n\r\n7\n"):
            more = connection.recv(10_000)
            assert more, f"the connection ended after {answer!r}"
            answer += more
    with raw(url, b"select sleep(0.5), throwIf(1, 'my words')", **wanted) as connection:
        answer = to_the_end(connection)
    assert b"X-ClickHouse-Exception-Code: 395" in answer
    assert b"__exception__" in answer


@pytest.mark.parametrize(
    "statement",
    [
        "select count() from system.numbers",
        "select number from system.numbers format Native",
        "select number from system.numbers format JSON",
        "insert into function null('n UInt64') select number from system.numbers",
    ],
)
def test_a_client_that_goes_away_cancels_its_query(url: str, statement: str) -> None:
    query_id = uuid.uuid4().hex
    with raw(url, statement.encode(), query_id=query_id):
        wait_for(lambda: runs(url, query_id))
    wait_for(lambda: not runs(url, query_id))


@pytest.mark.parametrize("asynchronous", [0, 1])
def test_data_cut_off_by_a_client_that_goes_away_is_not_taken_for_the_whole(
    url: str, database: str, asynchronous: int
) -> None:
    assert ask(url, f"create table {database}.t (a Int32) engine = MergeTree order by a").status_code == 200
    query_id = uuid.uuid4().hex
    query = f"insert into {database}.t format CSV"
    body = b"5\r\n1\n2\n3\r\n"
    head = "Transfer-Encoding: chunked\r\n"
    with raw(url, body, head, query=query, query_id=query_id, async_insert=asynchronous):
        wait_for(lambda: runs(url, query_id))
    wait_for(lambda: not runs(url, query_id))
    assert ask(url, f"select count() from {database}.t").text == "0\n"


def test_a_query_is_killed_by_the_id_that_its_client_gave_it(url: str) -> None:
    query_id = f"to be killed {uuid.uuid4().hex}"
    answers = []
    thread = threading.Thread(
        target=lambda: answers.append(ask(url, "select count() from system.numbers", query_id=query_id))
    )
    thread.start()
    wait_for(lambda: runs(url, query_id))
    same = ask(url, "select 1", query_id=query_id)
    assert same.headers["X-ClickHouse-Exception-Code"] == "216"
    killed = ask(url, "kill query where query_id = {id:String} sync format JSON", param_id=query_id)
    assert [row["query_id"] for row in killed.json()["data"]] == [query_id]
    thread.join(60)
    assert answers[0].headers["X-ClickHouse-Exception-Code"] == "394"
    assert ask(url, "kill query where query_id = 'no such'").text == ""


@pytest.mark.parametrize("size", [6, 5_000_000])
def test_an_insert_whose_client_stalls_can_be_killed(url: str, database: str, size: int) -> None:
    assert ask(url, f"create table {database}.t (a Int32) engine = MergeTree order by a").status_code == 200
    query_id = uuid.uuid4().hex
    address = httpx.URL(url)
    head = urlencode({"query": f"insert into {database}.t format CSV", "query_id": query_id})
    with socket.create_connection((address.host, address.port or 0), timeout=60) as connection:
        # As long as is promised, it may go from the socket to the engine without being looked at; half of it comes.
        connection.sendall(f"POST /?{head} HTTP/1.1\r\nHost: x\r\nContent-Length: {size}\r\n\r\n".encode())
        connection.sendall(b"1\n" * (size // 4))
        wait_for(lambda: runs(url, query_id))
        killed = ask(url, "kill query where query_id = {id:String} sync format JSON", param_id=query_id)
        assert [row["query_id"] for row in killed.json()["data"]] == [query_id]
        answer = connection.recv(1 << 20)
    assert b"\r\nx-clickhouse-exception-code: 394\r\n" in answer.lower()
    assert not runs(url, query_id)
    assert ask(url, f"select count() from {database}.t").text == "0\n"


@pytest.mark.parametrize("size", [6, 5_000_000])
@pytest.mark.parametrize("in_url", [True, False])
def test_a_client_that_stops_to_send_is_not_waited_for_without_end(
    url: str, database: str, size: int, in_url: bool
) -> None:
    assert ask(url, f"create table {database}.t (a Int32) engine = MergeTree order by a").status_code == 200
    query_id = uuid.uuid4().hex
    insert = f"insert into {database}.t format CSV"
    body = b"1\n" * (size // 4)
    if not in_url:
        body = f"{insert}\n".encode() + body
    asked = {"query_id": query_id, "http_receive_timeout": "0.5"} | ({"query": insert} if in_url else {})
    address = httpx.URL(url)
    with socket.create_connection((address.host, address.port or 0), timeout=60) as connection:
        head = f"POST /?{urlencode(asked)} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body) + size}\r\n\r\n"
        connection.sendall(head.encode() + body)
        answer = connection.recv(1 << 20)
    assert answer.startswith(b"HTTP/1.1 503 ")
    assert b"\r\nx-clickhouse-exception-code: 209\r\n" in answer.lower()
    wait_for(lambda: not runs(url, query_id))
    assert ask(url, f"select count() from {database}.t").text == "0\n"


def test_a_client_that_sends_slowly_is_waited_for(url: str, database: str) -> None:
    assert ask(url, f"create table {database}.t (a Int32) engine = MergeTree order by a").status_code == 200

    def pieces() -> Iterator[bytes]:
        for number in range(5):
            time.sleep(0.5)
            yield b"%d\n" % number

    answer = ask(url, pieces(), query=f"insert into {database}.t format CSV", http_receive_timeout=2)
    assert answer.status_code == 200, answer.text
    assert ask(url, f"select count() from {database}.t").text == "5\n"


def test_a_client_that_stops_to_read_is_not_waited_for_without_end(url: str) -> None:
    query_id = uuid.uuid4().hex
    with raw(url, b"select * from system.numbers format RowBinary", query_id=query_id, http_send_timeout=1):
        wait_for(lambda: runs(url, query_id))
        wait_for(lambda: not runs(url, query_id))


def test_the_id_of_a_query_is_what_its_client_gave_it_wherever_it_is_told(url: str) -> None:
    query_id = f"it's {uuid.uuid4().hex}"
    answer = ask(url, "select queryID(), query_id() as q, 'queryID()'", query_id=query_id, default_format="JSONCompact")
    assert answer.headers["X-ClickHouse-Query-Id"] == query_id
    assert answer.json()["data"] == [[query_id, query_id, "queryID()"]]
    assert answer.json()["meta"][0]["name"] == "queryID()"
    own = "select query_id from system.processes where query_id = {id:String}"
    assert ask(url, own, query_id=query_id, param_id=query_id, default_format="TSVRaw").text == f"{query_id}\n"
    ask(url, "system flush logs")
    logged = "select count() from system.query_log where query_id = {id:String} and type = 'QueryFinish'"
    assert ask(url, logged, param_id=query_id).text == "2\n"


def test_limits_have_the_server_s_codes(url: str) -> None:
    def refused(query: str, **parameters: Any) -> str:
        return ask(url, query, **parameters).headers["X-ClickHouse-Exception-Code"]

    slow = "select sleepEachRow(0.5) from numbers(20) settings max_block_size = 1"
    assert refused(slow, max_execution_time=1, wait_end_of_query=1) == "159"
    assert refused("select groupArray(number) from numbers(10000000)", max_memory_usage="10000000") == "241"
    assert refused("select number from numbers(1000)", max_result_rows=10, wait_end_of_query=1) == "396"
    assert refused("select 1", session_timeout="no", session_id="x") == "374"
    assert refused("select 1", session_timeout="999999", session_id="x") == "374"


def test_more_queries_than_allowed_are_refused_not_queued() -> None:
    begun, may_end = threading.Event(), threading.Event()

    class Engine:
        version, timezone = "0", "UTC"

        def open(self) -> Any:
            begun.set()
            may_end.wait(60)
            raise RuntimeError("Code: 1. DB::Exception: the first (UNSUPPORTED_METHOD)")

    async def one(server: Server) -> tuple[int, bytes]:
        answers: list[Any] = []
        messages = [{"type": "http.request", "body": b"select 1", "more_body": False}]

        async def receive() -> Any:
            return messages.pop() if messages else await asyncio.Event().wait()

        async def send(message: Any) -> None:
            answers.append(message)

        scope = {"type": "http", "method": "POST", "path": "/", "query_string": b"", "headers": []}
        await server(scope, receive, send)
        start, body = answers
        return start["status"], body["body"]

    async def both() -> list[tuple[int, bytes]]:
        server = Server(Engine(), users_of({}), max_queries=1)  # type: ignore[arg-type]
        first = asyncio.create_task(one(server))
        await asyncio.to_thread(begun.wait)
        second = await one(server)
        may_end.set()
        return [await first, second]

    first, second = asyncio.run(both())
    assert b"the first" in first[1]
    assert second[0] == 500
    assert second[1].startswith(b"Code: 202. DB::Exception: Too many simultaneous queries. Maximum: 1. ")


def test_many_clients_at_once_are_all_answered(url: str) -> None:
    async def ask_all() -> list[str]:
        async with httpx.AsyncClient(timeout=120, limits=httpx.Limits(max_connections=None)) as client:
            answers = await asyncio.gather(
                *(client.post(url, content=f"select {number}, sleep(0.2)") for number in range(200))
            )
        return [answer.text for answer in answers]

    assert asyncio.run(ask_all()) == [f"{number}\t0\n" for number in range(200)]


def test_tables_come_with_a_query_and_go_with_it(url: str) -> None:
    rows = "".join(f"{number},{number * number}\n" for number in range(5000))
    query = "select sum(s._2), count() from squares as s join few as f on s._1 = f.n where f.t != {x:String}"
    files = {"squares": rows.encode(), "few": b'{"n": 2, "t": "a"}\n{"n": 3, "t": "b"}\n{"n": 4, "t": "c"}\n'}
    described = {
        "squares_format": "CSV",
        "squares_types": "UInt32,Decimal(18, 2)",
        "few_format": "JSONEachRow",
        "few_structure": "n UInt32, t String",
    }
    for parameters in ({}, {"session_id": uuid.uuid4().hex}):
        for fields, in_url in (({"query": query, "param_x": "c"}, {}), ({}, {"query": query, "param_x": "c"})):
            answer = HTTP.post(url, params={**described, **in_url, **parameters}, data=fields, files=files)
            assert answer.text == "13\t2\n", answer.text
        assert ask(url, "select * from few", **parameters).status_code == 404
    missing = HTTP.post(url, params={"query": "select 1"}, files={"t": b"1"})
    assert missing.headers["X-ClickHouse-Exception-Code"] == "36"


@pytest.mark.parametrize("name", ["CSV", "Native", "Parquet", "Arrow", "JSONEachRow", "RowBinary"])
def test_an_insert_s_query_reads_its_data_by_input(url: str, database: str, name: str) -> None:
    assert ask(url, f"create table {database}.t (a Int32, b String) engine = Memory").status_code == 200
    data = ask(url, f"select toInt32(number) as x, toString(number) as y from numbers(3000) format {name}").content
    query = f"insert into {database}.t select x * 2, upper(y) from input('x Int32, y String') where x > 0 format {name}"
    assert ask(url, data, query=query).status_code == 200
    assert ask(url, query.encode() + b"\n" + data).status_code == 200
    assert ask(url, f"select count(), sum(a) from {database}.t").text == f"{2 * 2999}\t{2 * 2999 * 3000}\n"


def test_clickhouse_s_own_compression_goes_both_ways_and_within_another(url: str, database: str) -> None:
    assert ask(url, f"create table {database}.t (a Int32) engine = Memory").status_code == 200
    stage = BlockEncoder()
    packed = stage.feed(b"1\n2\n3\n") + stage.finish()
    query = f"insert into {database}.t format TSV"
    assert ask(url, packed, query=query, decompress=1).status_code == 200
    doubly = HTTP.post(
        url,
        params={"query": query, "decompress": 1},
        content=gzip.compress(packed),
        headers={"Content-Encoding": "gzip"},
    )
    assert doubly.status_code == 200
    answer = ask(url, f"select a from {database}.t order by a", compress=1)
    assert BlockDecoder().feed(answer.content) == b"1\n1\n2\n2\n3\n3\n"


def test_files_of_the_server_are_neither_read_nor_written_by_insert_and_select(url: str, database: str) -> None:
    assert ask(url, f"create table {database}.t (a String) engine = Memory").status_code == 200
    read = ask(url, f"insert into {database}.t from infile '/etc/hostname' format LineAsString")
    assert read.headers["X-ClickHouse-Exception-Code"] == "78"
    assert ask(url, f"select count() from {database}.t").text == "0\n"
    written = ask(url, "select 1 into outfile '/tmp/never-written'")
    assert written.headers["X-ClickHouse-Exception-Code"] == "228"


def test_what_gives_no_result_names_no_format(url: str, database: str) -> None:
    for statement in (f"create table {database}.t (a Int8) engine = Memory", f"insert into {database}.t values (1)"):
        assert "X-ClickHouse-Format" not in ask(url, statement).headers
    assert ask(url, f"select * from {database}.t where 0").headers["X-ClickHouse-Format"] == "TabSeparated"


def test_acknowledged_inserts_of_every_kind_survive_a_kill(tmp_path: Path) -> None:
    async def insert(client: httpx.AsyncClient, url: str, number: int) -> int:
        # The engine's default gathers small inserts; what it acknowledges must be stored all the same.
        parameters = {"async_insert": str(number % 2)} if number % 3 else {}
        answer = await client.post(url, content=f"insert into default.t values ({number})", params=parameters)
        assert answer.status_code == 200
        return number

    async def insert_until_killed(url: str, pid: int) -> set[int]:
        acknowledged: set[int] = set()
        async with httpx.AsyncClient(timeout=60) as client:

            async def numbers(first: int) -> AsyncIterator[int]:
                for number in range(first, 100_000, 8):
                    yield number

            async def work(first: int) -> None:
                async for number in numbers(first):
                    acknowledged.add(await insert(client, url, number))
                    if len(acknowledged) == 200:
                        os.kill(pid, signal.SIGKILL)

            await asyncio.gather(*(work(first) for first in range(8)), return_exceptions=True)
        return acknowledged

    with running(tmp_path / "data") as server:
        ask(server.url, "create table default.t (a UInt32) engine = MergeTree order by a")
        acknowledged = asyncio.run(insert_until_killed(server.url, server.pid))
    assert len(acknowledged) >= 200
    with running(tmp_path / "data") as server:
        stored = set(map(int, ask(server.url, "select a from default.t").text.split()))
    assert acknowledged <= stored


@pytest.mark.parametrize("form", ["JSONEachRow", "JSONStringsEachRow", "JSONCompactEachRow", "JSONLines"])
def test_rows_of_several_blocks_are_one_array_where_one_is_wished_for(url: str, form: str) -> None:
    query = f"select number from numbers(10) settings max_block_size = 2 format {form}"
    wished = HTTP.get(url, params={"query": query, "output_format_json_array_of_rows": 1}).text
    plain = HTTP.get(url, params={"query": query}).text
    assert [list(map(int, row.values() if isinstance(row, dict) else row)) for row in rows_of(wished)] == [
        [number] for number in range(10)
    ]
    assert len(plain.splitlines()) == 10


def rows_of(text: str) -> list[Any]:
    return json.loads(text) if text.startswith("[\n") else [json.loads(line) for line in text.splitlines()]
