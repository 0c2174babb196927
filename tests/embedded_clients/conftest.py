"""What the suites of real clients share: an embedded server, a database of a module, both drivers behind one face.

The suites say what ClickHouse's own Python clients may expect of a server, and use nothing of it but its address.
`EMBEDDED_CLIENTS_PORT` points them at a server that runs already, a real one too.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import os
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import clickhouse_connect
import pytest
from clickhouse_connect.driver.asyncclient import AsyncClient
from clickhouse_connect.driver.client import Client

from tests.conftest import unique

HOST = "127.0.0.1"


@pytest.fixture(scope="session")
def port(request: pytest.FixtureRequest) -> int:
    """Where the server answers."""
    chosen = os.environ.get("EMBEDDED_CLIENTS_PORT")
    return int(chosen) if chosen else request.getfixturevalue("clickhouse_port")


@pytest.fixture(scope="module")
def database(port: int) -> Iterator[str]:
    """An empty database, gone after the module."""
    name = unique("clients").replace("-", "_")
    with clickhouse_connect.get_client(host=HOST, port=port) as client:
        client.command(f"create database {name}")
        yield name
        client.command(f"drop database {name} sync")


@pytest.fixture(scope="module")
def client(port: int, database: str) -> Iterator[Client]:
    """The synchronous client, in no session, so that nothing lasts from one statement to the next."""
    with clickhouse_connect.get_client(
        host=HOST, port=port, database=database, autogenerate_session_id=False
    ) as client:
        yield client


def wait_for(condition: Callable[[], Any], seconds: float = 20) -> None:
    """Return once the condition is true. Raises AssertionError when it stays false for so many seconds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come true in time"
        time.sleep(0.05)


class Driver:
    """A client whose every method returns its answer, whether the client is asynchronous or not."""

    def __init__(self, client: Any, run: Callable[[Awaitable[Any]], Any]) -> None:
        self.client = client
        self._run = run

    def __getattr__(self, name: str) -> Any:
        attribute = getattr(self.client, name)
        if not callable(attribute):
            return attribute

        def call(*arguments: Any, **options: Any) -> Any:
            return self.wait(attribute(*arguments, **options))

        return call

    def wait(self, answer: Any) -> Any:
        """The value itself, or what an awaitable comes to."""
        return self._run(answer) if inspect.isawaitable(answer) else answer

    def drain(self, stream: Any, limit: int | None = None, meanwhile: Callable[[], Any] | None = None) -> list[Any]:
        """What a stream yields, to its end or the first ``limit`` of it; closes it.

        With ``meanwhile``: what that says after each piece, with the stream still open.
        """
        found: list[Any] = []

        def take(piece: Any) -> bool:
            found.append(meanwhile() if meanwhile else piece)
            return len(found) == limit

        async def collect() -> None:
            async with stream:
                async for piece in stream:
                    if take(piece):
                        break

        if isinstance(self.client, AsyncClient):
            self._run(collect())
        else:
            with stream if hasattr(stream, "__enter__") else contextlib.nullcontext():
                for piece in stream:
                    if take(piece):
                        break
        return found


@pytest.fixture(scope="module")
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    """An event loop that asynchronous clients of the module live on."""
    loop = asyncio.new_event_loop()
    yield loop
    loop.close()


@pytest.fixture(params=["sync", "async"])
def connect(
    request: pytest.FixtureRequest, port: int, database: str, loop: asyncio.AbstractEventLoop
) -> Iterator[Callable[..., Driver]]:
    """Makes clients of one kind and of the other, with any options; closed after the test."""
    made: list[Driver] = []

    def make(**options: Any) -> Driver:
        options = {"host": HOST, "port": port, "database": database, "autogenerate_session_id": False, **options}
        if request.param == "sync":
            driver = Driver(clickhouse_connect.get_client(**options), loop.run_until_complete)
        else:
            client = loop.run_until_complete(clickhouse_connect.get_async_client(**options))
            driver = Driver(client, loop.run_until_complete)
        made.append(driver)
        return driver

    yield make
    for driver in made:
        driver.close()


@pytest.fixture
def driver(connect: Callable[..., Driver]) -> Driver:
    """A client of one kind and then of the other."""
    return connect()


@pytest.fixture
def table(client: Client) -> Callable[..., str]:
    """Makes a table of these columns and returns its name."""

    def make(columns: str, engine: str = "MergeTree order by tuple()", **settings: Any) -> str:
        name = unique("t").replace("-", "_")
        client.command(f"create table {name} ({columns}) engine = {engine}", settings=settings)
        return name

    return make
