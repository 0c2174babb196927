"""Pooled connections: who asks gives an idle one up before who answers closes it, and so never asks on a closed one."""

from __future__ import annotations

import asyncio
import time

import pytest

from retention_platform.api import __main__ as api
from retention_platform.api import warehouse
from retention_platform.api.warehouse import Warehouse
from retention_platform.dashboard import client as dashboard
from retention_platform.embedded.clickhouse import process
from retention_platform.settings import load_settings


def test_who_asks_gives_an_idle_connection_up_before_who_answers_does() -> None:
    assert 2 * warehouse.IDLE_SECONDS < process.KEEP_ALIVE_SECONDS
    # What httpx was told is in its pool alone.
    pool = dashboard.Api("http://127.0.0.1")._client._transport._pool  # type: ignore[attr-defined]
    assert 2 * pool._keepalive_expiry < api.server_config(load_settings()).timeout_keep_alive


class ClosesIdleConnections:
    """Stands in for ClickHouse: passes everything on to it, and closes a connection that was idle for a while."""

    def __init__(self, port: int, idle_seconds: float) -> None:
        self._port = port
        self._idle_seconds = idle_seconds
        self.closed = 0

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        from_server, to_server = await asyncio.open_connection("127.0.0.1", self._port)
        heard = time.monotonic()

        async def answers() -> None:
            nonlocal heard
            while data := await from_server.read(65536):
                heard = time.monotonic()
                writer.write(data)

        passing = asyncio.create_task(answers())
        while True:
            try:
                data = await asyncio.wait_for(reader.read(65536), self._idle_seconds / 10)
            except asyncio.TimeoutError:
                if time.monotonic() - heard > self._idle_seconds:
                    self.closed += 1
                    break
                continue
            if not data:
                break
            heard = float("inf")
            to_server.write(data)
        passing.cancel()
        writer.close()
        to_server.close()


def test_the_server_never_has_to_close_a_connection_that_rests(
    clickhouse_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(warehouse, "IDLE_SECONDS", 0.5)

    async def run() -> int:
        stands_in = ClosesIdleConnections(clickhouse_port, 1.5)
        server = await asyncio.start_server(stands_in, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        asked = Warehouse(load_settings(clickhouse_host="127.0.0.1", clickhouse_port=port))
        try:
            for _ in range(2):
                many = await asyncio.gather(*(asked.rows("select 1 as one") for _ in range(8)))
                assert many == [[{"one": 1}]] * 8
                await asyncio.sleep(2.5)
        finally:
            await asked.close()
            server.close()
        return stands_in.closed

    assert asyncio.run(run()) == 0
