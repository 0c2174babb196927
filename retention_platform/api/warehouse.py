"""The API's pooled, asynchronous way to ClickHouse: connects on first use, and tells failures by what they mean.

It knows connections and error codes. SQL is in `queries`, and what a client sees of a failure is in `errors`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import date
from typing import TYPE_CHECKING, Any

from clickhouse_connect.common import set_setting
from clickhouse_connect.driver import create_async_client
from clickhouse_connect.driver.exceptions import ClickHouseError, Error

from retention_platform.errors import ServiceError
from retention_platform.settings import Settings
from retention_platform.warehouse.client import AUTHENTICATION_FAILED, first_line

if TYPE_CHECKING:
    from clickhouse_connect.driver.asyncclient import AsyncClient

#: ClickHouse's codes for what is not there: a table, a database, a column, a view with parameters.
UNKNOWN_TABLE, UNKNOWN_DATABASE, UNKNOWN_IDENTIFIER, UNKNOWN_FUNCTION = 60, 81, 47, 46
#: Too many queries, too slow, out of memory: the same request may succeed later.
_BUSY = {159, 160, 202, 209, 241}

CONNECT_SECONDS = 2.0
QUERY_SECONDS = 15.0
#: Connections to ClickHouse at most; further requests wait for a free one.
CONNECTIONS = 20
#: A connection idle for longer is not used again: ClickHouse closes it after 30, maybe just when a query is sent.
IDLE_SECONDS = 10.0


class WarehouseAway(ServiceError):
    """ClickHouse does not answer, or refuses us."""


class WarehouseBusy(ServiceError):
    """ClickHouse answers, but has no room for this query now."""


class MartsMissing(ServiceError):
    """ClickHouse answers, but the marts are not there, or are those of another version."""


#: What a query is given beside its text; a sequence fills an ``Array(String)``.
Parameters = Mapping[str, "str | int | date | Sequence[str]"]


def escaped(parameters: Parameters) -> dict[str, bytes | int | date | list[bytes]]:
    """Parameters so that the driver escapes every byte of a text.

    As text it would leave tabs and line ends as they are, and to a ClickHouse server these end a value (code 457).
    """
    return {name: _bytes(value) for name, value in parameters.items()}


def _bytes(value: str | int | date | Sequence[str]) -> bytes | int | date | list[bytes]:
    if isinstance(value, int | date):
        return value
    return value.encode() if isinstance(value, str) else [text.encode() for text in value]


class Warehouse:
    """ClickHouse as the API uses it. One per application; belongs to one event loop."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._where = f"{settings.clickhouse_host}:{settings.clickhouse_port}"
        self._client: AsyncClient | None = None
        self._connecting: asyncio.Task[AsyncClient] | None = None

    async def rows(self, sql: str, parameters: Parameters | None = None) -> list[dict[str, Any]]:
        """The rows of a query, as column name to value; ``parameters`` fill its ``{name:Type}`` places.

        Raises WarehouseAway, WarehouseBusy or MartsMissing; any other refusal is a fault of ours and passes through.
        """
        async with self._errors_told():
            client = self._client or await self._connect()
            return list((await client.query(sql, parameters=escaped(parameters or {}))).named_results())

    async def raw(self, sql: str, parameters: Parameters, fmt: str, settings: Mapping[str, str | int]) -> bytes:
        """The rows of a query as ClickHouse writes them in the format ``fmt``. Raises as `rows` does."""
        async with self._errors_told():
            client = self._client or await self._connect()
            return bytes(await client.raw_query(sql, escaped(parameters), dict(settings), fmt))

    @asynccontextmanager
    async def _errors_told(self) -> AsyncIterator[None]:
        try:
            yield
        except ClickHouseError as error:
            meaning = self._meaning(error)
            if meaning is None:
                raise
            raise meaning from error
        except OSError as error:
            raise self._away() from error

    async def close(self) -> None:
        """Give back all connections."""
        if self._connecting is not None:
            self._connecting.cancel()
            await asyncio.gather(self._connecting, return_exceptions=True)
        if self._client is not None:
            await self._client.close()

    async def _connect(self) -> AsyncClient:
        """One attempt that all requests waiting for a connection share, so that they do not queue for their own."""
        if self._connecting is None:
            self._connecting = asyncio.create_task(self._open())
            self._connecting.add_done_callback(self._connected)
        return await asyncio.shield(self._connecting)

    def _connected(self, attempt: asyncio.Task[AsyncClient]) -> None:
        self._connecting = None
        if not attempt.cancelled() and attempt.exception() is None:
            self._client = attempt.result()

    async def _open(self) -> AsyncClient:
        # Whether a reader may set how values are written is ClickHouse's to say. The driver would refuse by itself what
        # system.settings calls read-only, or warn of it with every query.
        set_setting("invalid_setting_action", "send")
        logging.getLogger("clickhouse_connect").setLevel(logging.ERROR)
        return await create_async_client(
            host=self._settings.clickhouse_host,
            port=self._settings.clickhouse_port,
            username=self._settings.clickhouse_user,
            password=self._settings.clickhouse_password.get_secret_value(),
            **self._settings.clickhouse_tls(),
            connect_timeout=CONNECT_SECONDS,
            send_receive_timeout=QUERY_SECONDS,
            connector_limit_per_host=CONNECTIONS,
            keepalive_timeout=IDLE_SECONDS,
            autogenerate_session_id=False,
            client_name="retention-api",
        )

    def _meaning(self, error: ClickHouseError) -> ServiceError | None:
        """What the driver's error says about the warehouse; None when it says something about our SQL."""
        code = error.code if isinstance(error, Error) else None
        if code is None:
            return self._away()
        if code == AUTHENTICATION_FAILED:
            user = self._settings.clickhouse_user
            return WarehouseAway(
                f"ClickHouse at {self._where} refuses user {user!r}: check CLICKHOUSE_USER and CLICKHOUSE_PASSWORD"
            )
        if code in _BUSY:
            return WarehouseBusy(f"ClickHouse has no room for this query now ({first_line(error)})")
        if code in {UNKNOWN_TABLE, UNKNOWN_DATABASE}:
            return MartsMissing("the marts are not built yet: materialize them in Dagster or run `retention refresh`")
        if code in {UNKNOWN_IDENTIFIER, UNKNOWN_FUNCTION}:
            return MartsMissing("the marts were built by another version: run `retention refresh --full`")
        return None

    def _away(self) -> WarehouseAway:
        return WarehouseAway(
            f"ClickHouse at {self._where} does not answer: start it with `retention up`, or set CLICKHOUSE_HOST/PORT"
        )
