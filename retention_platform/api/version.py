"""The version of what the marts hold: another whenever their data is, so that answers can be kept until then."""

from __future__ import annotations

import asyncio
import time

from retention_platform.api.warehouse import Warehouse

#: For so long a version is believed. An answer that is newer than its version does no harm: who has it asks again.
KEEP_SECONDS = 1.0

# The content's own hashes: a table that is built anew with the same part names has others.
VERSION = """
select lower(hex(sum(cityHash64(database, table, name, hash_of_all_files)))) as version
from system.parts
where active and database in ('marts', 'staging')
"""


class MartsVersion:
    """Asks at most once a second, however many requests come; those that come meanwhile share the outcome."""

    def __init__(self, warehouse: Warehouse) -> None:
        self._warehouse = warehouse
        self._asking: asyncio.Task[str] | None = None
        self._asked_at = float("-inf")

    async def __call__(self) -> str:
        """The version of now, or of a second ago. Raises what the warehouse raises."""
        if self._asking is None or (self._asking.done() and time.monotonic() - self._asked_at > KEEP_SECONDS):
            self._asking = asyncio.create_task(self._ask())
            self._asking.add_done_callback(self._asked)
        return await asyncio.shield(self._asking)

    async def _ask(self) -> str:
        self._asked_at = time.monotonic()
        return str((await self._warehouse.rows(VERSION))[0]["version"])

    def _asked(self, asking: asyncio.Task[str]) -> None:
        # A failure is of those who wait for it; the next request asks again.
        if asking.cancelled() or asking.exception() is not None:
            self._asking = None
