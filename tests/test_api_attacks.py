"""Hostile requests over a real connection to a real API on a real warehouse: nothing is run, read or echoed."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING
from urllib.parse import quote

import pytest
import uvicorn

from retention_platform.api.app import create_app
from tests.api_support import free_port
from tests.delivery.world import wait_until

if TYPE_CHECKING:
    from tests.conftest import Warehouse

INJECTIONS = [
    "' or 1=1 --",
    "'; drop table raw.playback_events; --",
    "a' union all select create_table_query from system.tables --",
    "\\'; select sleep(3) --",
    "{video_id:String}",
    "a\tb\nc",
    "%27%20or%20%271%27=%271",
    "1); insert into function file('x') select 1 --",
    "\u0000",
    "😀'\"`",
]
TRAVERSALS = [
    "/../../etc/passwd",
    "/video/../../../../etc/passwd",
    "/video/%2e%2e%2f%2e%2e%2f%2e%2e%2fetc%2fpasswd/report",
    "/video/..%5c..%5cetc%5cpasswd/report",
    "/docs/%2e%2e/%2e%2e/etc/passwd",
    "//etc/passwd",
    "/static/..%2f..%2f..%2fetc%2fpasswd",
]


@pytest.fixture
def api(empty_warehouse: Warehouse) -> Iterator[int]:
    """The port of an API served as in production, over an empty warehouse."""
    port = free_port()
    config = uvicorn.Config(create_app(empty_warehouse.settings), port=port, log_level="critical")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        wait_until(lambda: server.started, "the API to listen")
        yield port
    finally:
        server.should_exit = True
        thread.join(30)


def ask(port: int, request: bytes) -> tuple[int, bytes, bytes]:
    """Send bytes as they are; status, head and body of the answer. The connection is closed by the server."""
    with socket.create_connection(("127.0.0.1", port), 60) as connection:
        answer = b""
        # A server that has had enough says so before all is sent.
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            connection.sendall(request)
        with contextlib.suppress(ConnectionResetError):
            while data := connection.recv(1 << 16):
                answer += data
    head, _, body = answer.partition(b"\r\n\r\n")
    return int(head.split(b" ")[1]) if head else 0, head, body


def get(port: int, path: str, *headers: str) -> tuple[int, bytes, bytes]:
    lines = [f"GET {path} HTTP/1.1", "Connection: close", *(headers or ("Host: localhost",))]
    return ask(port, ("\r\n".join(lines) + "\r\n\r\n").encode())


def parameters(port: int) -> list[tuple[str, list[str]]]:
    """Every path that is read, with the names of its query parameters, as the API itself documents them."""
    _, _, body = get(port, "/openapi.json")
    paths = json.loads(body)["paths"]
    found = [
        (path, [one["name"] for one in methods["get"].get("parameters", []) if one["in"] == "query"])
        for path, methods in paths.items()
        if "get" in methods
    ]
    assert len(found) > 8 and any("{video_id}" in path for path, _ in found)
    return found


def test_sql_in_any_parameter_is_a_value_and_nothing_else(api: int, empty_warehouse: Warehouse) -> None:
    before = empty_warehouse.rows(
        "select database, name, total_rows from system.tables where database = 'raw' order by 2"
    )
    for path, names in parameters(api):
        for text in INJECTIONS:
            value = quote(text, safe="")
            asked = [path.replace("{video_id}", value)] if "{" in path else []
            asked += [f"{path.replace('{video_id}', 'v')}?{name}={value}" for name in names]
            for one in asked:
                status, _, body = get(api, one)
                # The marts of an empty warehouse are not there: 503 is its answer to what is a proper question.
                assert status in (200, 404, 422, 503), (one, status, body[:200])
                assert b"DB::Exception" not in body and b"Traceback" not in body, one
                assert b"create table" not in body.lower(), one
    after = empty_warehouse.rows(
        "select database, name, total_rows from system.tables where database = 'raw' order by 2"
    )
    assert before == after


@pytest.mark.parametrize("path", TRAVERSALS)
def test_no_path_leads_out_of_the_api(api: int, path: str) -> None:
    status, _, body = get(api, path)
    assert status in (400, 404, 503)
    assert b"root:" not in body


def test_what_is_too_long_is_refused_and_the_api_lives(api: int) -> None:
    long = "x" * 200_000
    for request in (
        f"GET /videos?search={long} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
        f"GET /videos HTTP/1.1\r\nHost: a\r\nX-Long: {long}\r\nConnection: close\r\n\r\n",
        f"GET /{long} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
    ):
        status, _, body = ask(api, request.encode())
        assert 400 <= status < 500 or status == 503, status
        assert len(body) < 10_000, "what was too long is not sent back"
    assert get(api, "/openapi.json")[0] == 200


def test_a_body_is_not_read_and_nothing_can_be_written(api: int) -> None:
    for method in ("POST", "PUT", "PATCH", "DELETE"):
        head = f"{method} /videos HTTP/1.1\r\nHost: a\r\nContent-Length: 10000000000\r\nConnection: close\r\n\r\n"
        status, _, _ = ask(api, head.encode() + b"x" * 100_000)
        assert status == 405, method
    assert get(api, "/openapi.json")[0] == 200


@pytest.mark.parametrize(
    "headers",
    [
        ("Host: evil.example",),
        ("Host: a", "X-Forwarded-Host: evil.example", "X-Forwarded-Proto: evil", "X-Forwarded-Prefix: //evil.example"),
        ("Host: a", "Forwarded: for=1.2.3.4;host=evil.example"),
        ("Host: a", "X-Original-URL: /metrics/evil.example", "X-Rewrite-URL: /metrics/evil.example"),
        ("Host: a", "X-HTTP-Method-Override: DELETE"),
    ],
)
def test_headers_that_lie_about_the_address_change_no_answer(api: int, headers: tuple[str, ...]) -> None:
    for path in ("/", "/openapi.json", "/videos/", "/docs/", "/nowhere"):
        status, head, body = get(api, path, *headers)
        plain = get(api, path)
        assert status == plain[0], path
        assert b"evil.example" not in body, path
        # A redirect to the host that was asked for is a client's own; one to a host that a proxy's header names is not.
        if headers[0] == "Host: a":
            assert b"evil" not in head, path


def test_line_ends_in_a_path_or_header_make_no_header_of_their_own(api: int) -> None:
    for path in (
        "/video/%0d%0aX-Injected:%20yes/report",
        "/videos?search=%0d%0aSet-Cookie:%20a=b",
        "/%0d%0aX-Injected: y",
    ):
        _, head, _ = get(api, path.replace(" ", "%20"))
        assert b"x-injected" not in head.lower() and b"set-cookie" not in head.lower()
    _, head, _ = get(api, "/", "Host: a", "X-Request-ID: a\u000bX-Injected")
    assert b"\x0b" not in head


def test_a_request_smuggled_behind_another_is_refused(api: int) -> None:
    smuggled = (
        b"GET /videos HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n"
        b"0\r\n\r\nGET /metrics HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", api), 60) as connection:
        connection.sendall(smuggled)
        connection.shutdown(socket.SHUT_WR)
        answer = b""
        while data := connection.recv(1 << 16):
            answer += data
    assert answer.startswith(b"HTTP/1.1 4"), answer[:200]
    assert answer.count(b"HTTP/1.1 ") == 1
