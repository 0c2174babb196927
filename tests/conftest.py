"""Real parts for the tests: ClickHouse, a Kafka broker, a state folder, all of their own and gone afterwards."""

from __future__ import annotations

import itertools
import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings as hypothesis_settings

from retention_platform.embedded import broker as embedded_broker
from retention_platform.embedded import clickhouse as embedded_clickhouse
from retention_platform.settings import Settings, get_settings, load_settings
from retention_platform.warehouse.client import connect
from retention_platform.warehouse.migrate import migrate

# How long an example takes is the machine's business: no test is timed.
hypothesis_settings.register_profile("retention", deadline=None)
hypothesis_settings.load_profile("retention")

# Dagster treats SIGTERM as SIGINT is treated. Where that is ignored, as in what a shell starts in the background, so
# would SIGTERM be from its first run in this process on, by every process a test starts as well.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

_numbers = itertools.count()

#: Databases that the tests fill, emptied between tests.
DATABASES = ("raw", "live", "staging", "marts")


@pytest.fixture(autouse=True)
def no_running_stack(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No test sees the addresses, credentials or state of a stack that runs on this machine."""
    for name in list(os.environ):
        if name.startswith(
            (
                "CLICKHOUSE_",
                "KAFKA_",
                "RETENTION_",
                "API_",
                "DAGSTER_",
                "DASHBOARD_",
                "DOCS_",
                "OPENAI_",
                "INSIGHTS_",
                "ALERT_",
                "VIEWER_ID_",
                "LOG_FORMAT",
            )
        ):
            monkeypatch.delenv(name)
    monkeypatch.setenv("RETENTION_HOME", str(tmp_path_factory.getbasetemp() / "home"))
    get_settings.cache_clear()
    yield
    get_settings.cache_clear()


@dataclass(frozen=True)
class Warehouse:
    """A ClickHouse server with the schema in place."""

    settings: Settings

    def command(self, sql: str) -> None:
        """Run a statement."""
        client = connect(self.settings)
        try:
            client.command(sql)
        finally:
            client.close()

    def rows(self, sql: str, **parameters: Any) -> list[tuple[Any, ...]]:
        """The rows of a query."""
        client = connect(self.settings)
        try:
            return [tuple(row) for row in client.query(sql, parameters=parameters).result_rows]
        finally:
            client.close()


@pytest.fixture(scope="session")
def clickhouse_port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """The port of an embedded ClickHouse that lives as long as the test session."""
    folder = tmp_path_factory.mktemp("clickhouse")
    with embedded_clickhouse.running(folder / "data") as server:
        yield server.port


@pytest.fixture
def empty_warehouse(clickhouse_port: int, tmp_path: Path) -> Warehouse:
    """A ClickHouse whose tables are there and empty."""
    settings = load_settings(retention_home=tmp_path, clickhouse_host="127.0.0.1", clickhouse_port=clickhouse_port)
    client = connect(settings)
    for database in DATABASES:
        client.command(f"drop database if exists {database} sync")
    migrate(client)
    client.close()
    return Warehouse(settings)


@pytest.fixture(scope="session")
def broker_address() -> Iterator[str]:
    """The address of a development broker that lives as long as the test session."""
    with embedded_broker.running() as address:
        yield address


@pytest.fixture
def broker(broker_address: str) -> str:
    """A broker's address."""
    return broker_address


def unique(prefix: str) -> str:
    """A name no other test of this session has."""
    return f"{prefix}-{os.getpid()}-{next(_numbers)}"
