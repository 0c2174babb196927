"""The embedded server as its clients see it: clickhouse-connect, curl-like requests, and its process."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path

import clickhouse_connect
import httpx
import lz4.frame
import pytest
from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.exceptions import DatabaseError

from retention_platform.embedded.clickhouse import catalogue, running
from retention_platform.embedded.clickhouse.process import FINISH_SECONDS, serve
from retention_platform.embedded.clickhouse.session import Session
from retention_platform.embedded.clickhouse.sql import shape_of
from retention_platform.embedded.clickhouse.users import users_of
from retention_platform.errors import RetentionError

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd


@pytest.fixture
def url(clickhouse_port: int) -> str:
    return f"http://127.0.0.1:{clickhouse_port}"


@pytest.fixture
def client(clickhouse_port: int) -> Iterator[Client]:
    client = clickhouse_connect.get_client(host="127.0.0.1", port=clickhouse_port)
    client.command("drop database if exists protocol")
    client.command("create database protocol")
    client.command("create table protocol.t (x Int32, y String) engine = MergeTree order by x")
    yield client
    client.command("drop database protocol")
    client.close()


def post(url: str, content: str | bytes, **parameters: str) -> httpx.Response:
    return httpx.post(url, content=content, params=parameters, timeout=30)


def test_it_says_ok_where_the_server_does(url: str) -> None:
    for path in ("/ping", "/", "/replicas_status"):
        answer = httpx.get(url + path)
        assert (answer.status_code, answer.text) == (200, "Ok.\n")


def test_a_browser_is_told_what_pages_may_ask(url: str) -> None:
    for path in ("/", "/?query=select+1", "/ping"):
        answer = httpx.options(f"{url}{path}", headers={"Origin": "http://a.example", "X-ClickHouse-User": "nobody"})
        assert (answer.status_code, answer.content) == (204, b"")
        assert answer.headers["Access-Control-Allow-Origin"] == "*"
        assert answer.headers["Access-Control-Allow-Methods"] == "POST, GET, OPTIONS"
        assert "x-clickhouse-key" in answer.headers["Access-Control-Allow-Headers"]
        assert answer.headers["Connection"] == "close"


def test_the_asynchronous_driver_works_too(clickhouse_port: int) -> None:
    async def ask() -> list[int]:
        async with await clickhouse_connect.get_async_client(host="127.0.0.1", port=clickhouse_port) as client:
            answers = await asyncio.gather(
                *(
                    client.query("select {n:Int32} + 1", parameters={"n": n}, settings={"max_threads": 1})
                    for n in range(9)
                )
            )
        return [answer.result_rows[0][0] for answer in answers]

    assert asyncio.run(ask()) == list(range(1, 10))


def test_parameters_arrive_as_they_were_sent(client: Client) -> None:
    values = ["it's", "a\\b", "tab\tand\nline", "", "é😀", "{x}", "NULL"]
    query = client.query("select {a:Array(String)}, {d:DateTime}", parameters={"a": values, "d": datetime(2020, 1, 2)})
    assert query.result_rows == [(values, datetime(2020, 1, 2))]
    for value in values:
        assert client.query("select {v:String}", parameters={"v": value}).result_rows == [(value,)]


def test_inserts_of_the_driver_arrive(client: Client) -> None:
    client.insert("protocol.t", [[1, "a"], [2, "b'\\\t"]], column_names=["x", "y"])
    assert client.query("select * from protocol.t order by x").result_rows == [(1, "a"), (2, "b'\\\t")]


@pytest.mark.parametrize(
    ("query", "body"),
    [
        ("", b"insert into protocol.t (x, y) format CSV\n7,seven\n"),
        ("", b'insert into protocol.t format JSONEachRow {"x": 7, "y": "seven"}'),
        ("", b"insert into protocol.t values (7, 'seven')"),
        ("", b"insert into protocol.t settings async_insert = 0 format CSV\n7,seven\n"),
        ("", b"insert into protocol.t select 7, 'seven'"),
        ("insert into protocol.t (x, y) format CSV", b"7,seven\n"),
        ("insert into protocol.t values", b"(7, 'seven')"),
        ("insert into protocol.t format RowBinary", b"\x07\x00\x00\x00\x05seven"),
        ("", b"insert into protocol.t format RowBinary\n\x07\x00\x00\x00\x05seven"),
    ],
)
def test_inserts_in_every_form_arrive(client: Client, url: str, query: str, body: bytes) -> None:
    answer = post(url, body, **({"query": query} if query else {}))
    assert answer.status_code == 200, answer.text
    assert client.query("select * from protocol.t").result_rows == [(7, "seven")]


def test_binary_data_that_begins_with_a_line_break_keeps_it(client: Client, url: str) -> None:
    body = b"insert into protocol.t format RowBinary\n" + b"\x0a\x0a\x0d\x00\x02ab"
    assert post(url, body).status_code == 200
    assert client.query("select * from protocol.t").result_rows == [(0x0D0A0A, "ab")]


@pytest.mark.parametrize(
    ("encoding", "compress"), [("gzip", gzip.compress), ("lz4", lz4.frame.compress), ("zstd", zstd.compress)]
)
def test_compressed_bodies_are_read_and_answers_compressed(url: str, encoding: str, compress: object) -> None:
    assert callable(compress)
    answer = httpx.post(url, content=compress(b"select 1 + 1"), headers={"Content-Encoding": encoding})
    assert answer.text == "2\n"
    answer = httpx.post(
        url,
        params={"enable_http_compression": "1"},
        content="select number from numbers(1000)",
        headers={"Accept-Encoding": "gzip"},
    )
    assert answer.headers["Content-Encoding"] == "gzip"
    assert answer.text.split() == [str(n) for n in range(1000)]


@pytest.mark.parametrize(("encoding", "compress"), [("gzip", gzip.compress), ("lz4", lz4.frame.compress)])
def test_a_body_of_several_frames_is_read_and_one_cut_short_refused(
    client: Client, url: str, encoding: str, compress: Callable[[bytes], bytes]
) -> None:
    query, headers = {"query": "insert into protocol.t format CSV"}, {"Content-Encoding": encoding}
    frames = compress(b"1,a\n") + compress(b"2,b\n")
    assert httpx.post(url, params=query, content=frames, headers=headers).status_code == 200
    assert client.query("select count() from protocol.t").result_rows == [(2,)]
    cut = httpx.post(url, params=query, content=frames[:-3], headers=headers)
    assert cut.headers["X-ClickHouse-Exception-Code"] == "271"
    assert client.query("select count() from protocol.t").result_rows == [(2,)]


def test_a_large_insert_is_counted_in_the_summary(client: Client, url: str) -> None:
    rows = 300_000
    answer = post(url, "insert into protocol.t values " + ",".join(f"({n},'a;b')" for n in range(rows)))
    assert json.loads(answer.headers["X-ClickHouse-Summary"])["written_rows"] == str(rows)
    total, texts = client.query("select sum(x), groupUniqArray(y) from protocol.t").result_rows[0]
    assert (total, texts) == (rows * (rows - 1) // 2, ["a;b"])


def test_query_parameters_also_reach_an_insert(client: Client, url: str) -> None:
    answer = post(
        url,
        "insert into {t:Identifier}.t values ({x:Int32}, {y:String})",
        param_t="protocol",
        param_x="3",
        param_y="it's",
    )
    assert answer.status_code == 200, answer.text
    assert client.query("select * from protocol.t").result_rows == [(3, "it's")]


def test_headers_tell_format_rows_and_time_zone(url: str) -> None:
    answer = post(url, "select 1 as a", default_format="JSONCompact", query_id="my-query")
    assert answer.headers["X-ClickHouse-Format"] == "JSONCompact"
    assert answer.headers["X-ClickHouse-Query-Id"] == "my-query"
    assert answer.headers["X-ClickHouse-Timezone"] == "UTC"
    assert answer.json()["data"] == [[1]]
    named = post(url, "select 1 as a format TSVWithNames")
    assert (named.headers["X-ClickHouse-Format"], named.text) == ("TSVWithNames", "a\n1\n")


def test_errors_have_the_servers_codes_statuses_and_texts(url: str, client: Client) -> None:
    missing = post(url, "select * from protocol.nothing")
    assert (missing.status_code, missing.headers["X-ClickHouse-Exception-Code"]) == (404, "60")
    assert "DB::Exception" in missing.text
    assert "UNKNOWN_TABLE" in missing.text
    assert post(url, "selec 1").status_code == 400
    for text in ("", "-- nothing", "select 1; select 2"):
        refused = post(url, text)
        assert (refused.status_code, refused.headers["X-ClickHouse-Exception-Code"]) == (400, "62"), text
    assert post(url, "select ';'; -- the end").text == ";\n"
    broken = post(url, "insert into protocol.t format CSV\n1,a\nzz,b\n")
    assert broken.headers["X-ClickHouse-Exception-Code"] == "27"
    assert "(at row 2)" in broken.text
    assert "/" not in broken.text, "a path of the server's machine"
    unknown = post(url, "select 1", no_such_setting="1")
    assert unknown.headers["X-ClickHouse-Exception-Code"] == "115"
    with pytest.raises(DatabaseError, match="UNKNOWN_TABLE"):
        client.query("select * from protocol.nothing")


def test_get_may_only_read(url: str, client: Client) -> None:
    refused = httpx.get(url, params={"query": "create database no"})
    assert refused.headers["X-ClickHouse-Exception-Code"] == "164"
    assert httpx.get(url, params={"query": "select 1"}).text == "1\n"


def test_settings_of_one_request_never_leak_into_the_next(url: str) -> None:
    assert post(url, "select getSetting('max_threads')", max_threads="1").text == "1\n"
    assert post(url, "set max_threads = 1").status_code == 200
    assert post(url, "select getSetting('max_threads') = 1 and 0").text == "0\n"
    assert post(url, "select changed from system.settings where name = 'max_threads'").text == "0\n"


def test_a_session_keeps_its_temporary_tables_and_is_locked_while_busy(url: str) -> None:
    assert post(url, "create temporary table mine (a Int8)", session_id="one").status_code == 200
    assert post(url, "insert into mine values (5)", session_id="one").status_code == 200
    assert post(url, "select * from mine", session_id="one").text == "5\n"
    assert post(url, "select * from mine", session_id="two").status_code == 404
    assert post(url, "select 1", session_id="none", session_check="1").headers["X-ClickHouse-Exception-Code"] == "372"
    slow = threading.Thread(target=post, args=(url, "select sleep(1)"), kwargs={"session_id": "one"})
    slow.start()
    time.sleep(0.3)
    assert post(url, "select 1", session_id="one").headers["X-ClickHouse-Exception-Code"] == "373"
    slow.join()


def test_a_session_opens_no_handle_that_nobody_uses() -> None:
    opened: list[object] = []

    def open_handle() -> object:
        opened.append(object())
        return opened[-1]

    session = Session(open_handle, 60)
    session.close()
    assert not opened
    assert session.handle is session.handle is opened[0] and len(opened) == 1


def test_a_user_may_not_have_sessions_without_end(tmp_path: Path) -> None:
    with running(tmp_path / "data") as server, httpx.Client(base_url=server.url) as client:

        def code(number: int, user: str = "api", **parameters: str) -> str | None:
            session = {"session_id": str(number), "session_timeout": "3600", "user": user, **parameters}
            answer = client.post("/", content="select 1", params=session)
            return answer.headers.get("X-ClickHouse-Exception-Code")

        assert {code(number) for number in range(1000)} == {None}
        assert (code(1000), code(1000, "default"), code(999)) == ("700", None, None)
        assert code(999, close_session="1") is None
        assert code(1000) is None


def test_what_a_request_sets_by_url_does_not_stay_in_its_session(url: str) -> None:
    def ask(query: str, **parameters: str) -> str:
        return post(url, query, session_id="url", **parameters).text.strip()

    value = "select getSetting('max_block_size')"
    default = ask(value)
    assert ask(value, max_block_size="1000") == "1000"
    assert ask(value) == default
    assert ask("set max_block_size = 2000", max_block_size="1000") == ""
    assert ask(value) == "2000"
    assert ask(value, max_block_size="1000", max_threads="1") == "1000"
    assert ask(value, max_threads="1") == "2000"
    assert "UNKNOWN_SETTING" in ask("select 1", no_such_setting="1")
    assert ask("select changed from system.settings where name = 'max_threads'") == "0"
    assert ask("select currentDatabase()", database="system") == "system"
    assert ask("select currentDatabase()") == "default"
    assert ask("use system", database="default") == ""
    assert ask("select currentDatabase()") == "system"


def test_get_in_a_session_may_only_read_and_leaves_it_writable(url: str, client: Client) -> None:
    session = {"session_id": "get"}
    for query in ("with 1 as a insert into protocol.t select a, 'b'", "drop table protocol.t"):
        refused = httpx.get(url, params={**session, "query": query})
        assert refused.headers["X-ClickHouse-Exception-Code"] == "164"
    assert httpx.get(url, params={**session, "query": "select count() from protocol.t"}).text == "0\n"
    assert post(url, "insert into protocol.t values (1, 'a')", **session).status_code == 200


def test_a_slow_query_blocks_neither_ping_nor_others(url: str) -> None:
    slow = threading.Thread(target=post, args=(url, "select sleepEachRow(1) from numbers(2)"))
    slow.start()
    time.sleep(0.2)
    assert httpx.get(f"{url}/ping").text == "Ok.\n"
    assert post(url, "select 1").text == "1\n"
    assert slow.is_alive()
    slow.join()


def test_a_password_is_asked_for(tmp_path: Path) -> None:
    with running(tmp_path / "data", password="secret") as server:
        assert httpx.get(f"{server.url}/ping").status_code == 200
        wrong = post(server.url, "select 1")
        assert (wrong.status_code, wrong.headers["X-ClickHouse-Exception-Code"]) == (403, "516")
        assert httpx.post(server.url, content="select 1", auth=("default", "secret")).text == "1\n"
        key = {"X-ClickHouse-User": "default", "X-ClickHouse-Key": "secret"}
        assert httpx.post(server.url, content="select 1", headers=key).text == "1\n"
        assert post(server.url, "select 1", user="default", password="secret").text == "1\n"
        assert post(server.url, "select 1", user="root", password="secret").status_code == 403


def test_it_stops_within_five_seconds_whatever_runs_and_says_so_to_who_waits(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "retention_platform.embedded.clickhouse", "--path", str(tmp_path / "data")]
    with subprocess.Popen([*command, "--port", "0"], stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        url = "http://" + server.stdout.readline().split()[-1]

        answers: list[httpx.Response] = []

        def endless() -> None:
            answers.append(post(url, "select count() from system.numbers"))

        client = threading.Thread(target=endless)
        client.start()
        while post(url, "select count() from system.processes where query like '%numbers'").text != "1\n":
            time.sleep(0.05)
        began = time.monotonic()
        server.terminate()
        assert server.wait(10) == 0
        assert time.monotonic() - began < 5
        client.join()
    assert answers[0].headers["X-ClickHouse-Exception-Code"] == "394"


def test_what_begins_while_it_stops_is_cancelled_too_and_told_so(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "retention_platform.embedded.clickhouse", "--path", str(tmp_path / "data")]
    statement = b"select count() from system.numbers"
    with subprocess.Popen([*command, "--port", "0"], stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        host, port = server.stdout.readline().split()[-1].split(":")
        with socket.create_connection((host, int(port)), timeout=10) as connection:
            connection.sendall(f"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: {len(statement)}\r\n\r\n".encode())
            connection.sendall(statement[:-1])
            time.sleep(0.3)
            server.terminate()
            # Those that ran when it was stopped are cancelled by now.
            time.sleep(FINISH_SECONDS + 0.15)
            connection.sendall(statement[-1:])
            answer = connection.makefile("rb").read()
        assert server.wait(10) == 0
    assert b"x-clickhouse-exception-code: 394" in answer.lower(), answer


def test_another_address_than_loopback_asks_for_a_password(tmp_path: Path) -> None:
    with pytest.raises(RetentionError, match="CLICKHOUSE_PASSWORD"):
        serve(tmp_path / "data", "0.0.0.0", 0, None, users_of({}))
    assert not (tmp_path / "data").exists()


def test_what_was_inserted_survives_a_kill(tmp_path: Path) -> None:
    with running(tmp_path / "data") as server:
        assert post(server.url, "create table default.t (x Int32) engine = MergeTree order by x").status_code == 200
        assert post(server.url, "insert into default.t values (1), (2)", async_insert="0").status_code == 200
        os.kill(server.pid, signal.SIGKILL)
    with running(tmp_path / "data") as server:
        assert post(server.url, "select sum(x) from default.t").text == "3\n"


def test_a_definition_that_a_full_disk_would_cut_short_is_refused(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=200m", "tmpfs", str(disk)], capture_output=True, text=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"a small disk cannot be mounted here: {mounted.stderr.strip()}")
    try:
        with running(disk / "data") as server:
            assert post(server.url, "create database d").status_code == 200
            assert post(server.url, "create view d.one as select 1 as x").status_code == 200
            with (disk / "filler").open("wb") as filler:
                os.posix_fallocate(filler.fileno(), 0, shutil.disk_usage(disk).free - (1 << 20))
            for statement in (
                "create or replace view d.one as select 2 as x",
                "create table d.t (x Int32) engine = MergeTree order by x",
                "/* to another name */ rename table d.one to d.other",
            ):
                answer = post(server.url, statement)
                assert answer.headers["X-ClickHouse-Exception-Code"] == "243", answer.text
                assert "NOT_ENOUGH_SPACE" in answer.text
            assert post(server.url, "select x from d.one").text == "1\n"
            # What makes room is not refused.
            assert post(server.url, "drop view d.one").status_code == 200
            (disk / "filler").unlink()
            assert post(server.url, "create view d.one as select 3 as x").status_code == 200
            os.kill(server.pid, signal.SIGKILL)
        with running(disk / "data") as server:
            assert post(server.url, "select x from d.one").text == "3\n"
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)


@pytest.mark.parametrize("left", [0, 40])
def test_a_definition_that_was_cut_short_is_put_aside_and_the_rest_opens(
    tmp_path: Path, left: int, capfd: pytest.CaptureFixture[str]
) -> None:
    with running(tmp_path / "data") as server:
        for statement in (
            "create database d",
            "create table d.kept (x Int32) engine = MergeTree order by x",
            "insert into d.kept values (1)",
            "create view d.cut as select 1 as x",
        ):
            assert post(server.url, statement).status_code == 200
        os.kill(server.pid, signal.SIGKILL)
    (definition,) = (tmp_path / "data").glob("store/*/*/cut.sql")
    os.truncate(definition, left)
    with running(tmp_path / "data") as server:
        assert post(server.url, "select x from d.kept").text == "1\n"
        assert post(server.url, "show tables from d").text == "kept\n"
        assert post(server.url, "create view d.cut as select 2 as x").status_code == 200
        assert post(server.url, "select x from d.cut").text == "2\n"
    assert f"{definition.relative_to(tmp_path / 'data')} was cut short" in capfd.readouterr().err
    (aside,) = (tmp_path / "data" / "cut_definitions").iterdir()
    assert (aside.name, aside.stat().st_size) == (f"{definition.parent.name}.cut.sql", left)


@pytest.mark.parametrize("what", ["folder", "port"])
def test_a_folder_or_port_in_use_is_told_in_one_line(tmp_path: Path, what: str) -> None:
    with running(tmp_path / "data") as server:
        path = tmp_path / "data" if what == "folder" else tmp_path / "other"
        port = "0" if what == "folder" else str(server.port)
        second = subprocess.run(
            [sys.executable, "-m", "retention_platform.embedded.clickhouse", "--path", str(path), "--port", port],
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
    assert second.returncode == 1
    assert len(second.stderr.strip().splitlines()) == 1
    assert second.stderr.startswith("error: ")


def test_a_repeated_token_is_stored_once_also_behind_materialized_views(client: Client, url: str) -> None:
    client.command("create table protocol.inbox (x Int32) engine = Null")
    for name in ("odd", "even"):
        client.command(
            f"create table protocol.{name} (x Int32) engine = MergeTree order by x "
            "settings non_replicated_deduplication_window = 100"
        )
    client.command(
        "create materialized view protocol.o to protocol.odd as select x from protocol.inbox where x % 2 = 1"
    )
    client.command(
        "create materialized view protocol.e to protocol.even as select x from protocol.inbox where x % 2 = 0"
    )

    def insert(values: str, token: str) -> None:
        answer = post(
            url,
            values,
            query="insert into protocol.inbox format CSV",
            async_insert="0",
            insert_deduplication_token=token,
            deduplicate_blocks_in_dependent_materialized_views="1",
        )
        assert answer.status_code == 200, answer.text

    for _ in range(3):
        insert("1\n2\n3\n", "first")
    insert("1\n2\n3\n", "second")
    assert client.query("select count() from protocol.odd").result_rows == [(4,)]
    assert client.query("select count() from protocol.even").result_rows == [(2,)]


def test_parameters_too_long_for_a_url_arrive_in_a_form(client: Client, url: str) -> None:
    ids = [f"0193e000-0000-7000-8000-{number:012d}" for number in range(2000)]
    query = client.query("select length({ids:Array(String)}), {ids:Array(String)}[2000]", parameters={"ids": ids})
    assert query.result_rows == [(2000, ids[-1])]


@pytest.mark.parametrize(("size", "status"), [(70_000, 200), (250_000, 200), (1_100_000, 400)])
def test_a_query_in_the_url_may_be_as_long_as_a_server_s(clickhouse_port: int, size: int, status: int) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", clickhouse_port, timeout=30)
    with contextlib.closing(connection):
        connection.request("GET", f"/?query=select+%27{'x' * (size - 30)}%27")
        answer = connection.getresponse()
        assert answer.status == status
        assert (len(answer.read()) == size - 30 + 1) == (status == 200)


@pytest.mark.parametrize(("encoded", "told"), [("%FF", "FF"), ("%C3%A9", "C3A9"), ("%00", "00"), ("+", "20")])
def test_bytes_in_the_url_arrive_as_they_are(url: str, encoded: str, told: str) -> None:
    assert httpx.get(f"{url}/?query=select+hex(%27{encoded}%27)").text == f"{told}\n"


def test_a_setting_that_is_no_text_is_refused_by_name(url: str) -> None:
    answer = httpx.get(f"{url}/?query=select+1&max_threads=%FF")
    assert answer.status_code == 400 and "'max_threads' is not UTF-8" in answer.text


def test_a_get_that_writes_is_told_to_use_post(url: str) -> None:
    statement = {"query": "create table default.never (x Int8) engine = Memory"}
    for reader in ("default", "api"):
        by_get = httpx.get(url, params=statement | {"user": reader})
        assert "method GET implies readonly" in by_get.text
        assert by_get.headers["X-ClickHouse-Exception-Code"] == "164"
    by_post = httpx.post(url, params=statement | {"user": "api"})
    assert "in readonly mode. (READONLY)" in by_post.text


def test_a_role_is_refused_as_there_are_none(url: str) -> None:
    answer = httpx.get(url, params={"query": "select 1", "role": "analyst"})
    assert answer.headers["X-ClickHouse-Exception-Code"] == "511"
    assert "There is no role `analyst`" in answer.text


def test_how_to_write_is_told_of_nothing_but_writing(url: str) -> None:
    setting = httpx.get(url, params={"query": "select 1", "user": "api", "url_base": "x"})
    assert setting.headers["X-ClickHouse-Exception-Code"] == "164" and "method GET" not in setting.text
    column = httpx.get(url, params={"query": "select `in readonly mode.`"})
    assert column.status_code == 404 and "method GET" not in column.text


@pytest.mark.parametrize("asked", ["user=%FF", "password=%FF", "user=default&password=%ED%A0%80", "user=%00"])
def test_credentials_that_are_no_text_are_wrong_ones(url: str, asked: str) -> None:
    answer = httpx.get(f"{url}/?query=select+1&{asked}")
    assert (answer.status_code, answer.headers.get("X-ClickHouse-Exception-Code")) == (403, "516")


@pytest.mark.parametrize("user", ["default", "api"])
@pytest.mark.parametrize("name", ["%FF", "param_%FF"])
def test_a_parameter_whose_name_is_no_text_is_refused(url: str, user: str, name: str) -> None:
    answer = httpx.get(f"{url}/?query=select+1&user={user}&{name}=1")
    assert (answer.status_code, answer.headers.get("X-ClickHouse-Exception-Code")) == (400, "36")
    assert "udcff' is not UTF-8" in answer.text


@pytest.mark.parametrize(
    "statement", ["show create table system.{}", "show create system.`{}`;", "SHOW TABLE system . {} format TSVRaw"]
)
def test_tables_of_the_system_show_a_statement_that_says_what_they_are(url: str, statement: str) -> None:
    for table in ("one", "tables", "errors"):
        shown = post(url, statement.format(table), default_format="TSVRaw").text
        # A table of another name made by it has the same columns.
        made = shown.replace(f"system.{table}", "default.likewise").partition("\nENGINE = ")[0] + " ENGINE = Memory"
        assert post(url, made).status_code == 200, made
        columns = (
            "select name, type, comment from system.columns where (database, table) = ('{}', '{}') order by position"
        )
        likewise = post(url, columns.format("default", "likewise")).text
        assert post(url, "drop table default.likewise").status_code == 200
        assert likewise == post(url, columns.format("system", table)).text != ""
    unknown = post(url, statement.format("nowhere"))
    assert unknown.headers["X-ClickHouse-Exception-Code"] == "60"
    for table in ("processes", "query_log"):
        for user in ("default", "api"):
            shown = post(url, statement.format(table), default_format="TSVRaw", user=user).text
            assert shown.startswith(f"CREATE TABLE system.{table}\n"), shown


def test_a_table_of_the_current_database_system_is_shown_by_its_name_alone(url: str) -> None:
    wanted = post(url, "show create table system.one").text
    for user in ("default", "api"):
        session = {"session_id": "of the system", "user": user}
        assert post(url, "show create one", database="system", user=user).text == wanted
        assert post(url, "use system", **session).status_code == 200
        assert post(url, "show table `one`;", **session).text == wanted
        assert post(url, "show create table default.one", **session).status_code != 200
    assert post(url, "show create table one").status_code != 200


def test_the_words_of_a_statement_are_listed_for_none_but_a_show(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(query: bytes, database: str) -> str | None:
        raise AssertionError(query)

    monkeypatch.setattr(catalogue, "shown_table", never)
    shape = shape_of(b"select 1, 'show create table system.one'")
    assert catalogue.in_place_of(None, shape) is shape


def test_the_statement_of_a_system_table_comes_in_blocks_of_the_client_s_revision(client: Client) -> None:
    result = client.query("show create table system.one")
    assert result.column_names == ("statement",)
    assert result.result_rows[0][0].startswith("CREATE TABLE system.one\n(\n    `dummy` UInt8\n)\nENGINE = SystemOne")


def test_the_size_of_a_result_is_told_in_every_format(url: str) -> None:
    for name in ("TSV", "JSON", "Parquet"):
        answer = post(url, "select number from numbers(10)", default_format=name)
        assert json.loads(answer.headers["X-ClickHouse-Summary"])["result_bytes"] == str(len(answer.content))
