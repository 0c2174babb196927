"""What assets, checks and sensors are given: ClickHouse, and the settings. Read at each use, never at import."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

import dagster as dg

from retention_platform.settings import Settings, load_settings
from retention_platform.warehouse.client import connect

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client


class Warehouse(dg.ConfigurableResource):  # type: ignore[type-arg]
    """The ClickHouse that the environment, or a running stack, names at this moment."""

    def settings(self) -> Settings:
        """The settings of now: a stack may have started since this process did."""
        return load_settings()

    @contextlib.contextmanager
    def client(self) -> Iterator[Client]:
        """A client, closed afterwards. Raises ServiceError, naming host and port, when ClickHouse is away."""
        client = connect(self.settings(), timeout=5.0, client_name="retention-dagster")
        try:
            yield client
        finally:
            client.close()
