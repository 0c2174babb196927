"""Whether each part is up and how fresh the figures are: asks, each for two seconds at most, and changes nothing."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone

import httpx
from starlette.concurrency import run_in_threadpool

from retention_platform import __version__
from retention_platform.api import queries
from retention_platform.api.models.service import Dependencies, Dependency, Freshness, Health
from retention_platform.api.queries import MartsFreshness, RawFreshness
from retention_platform.api.warehouse import MartsMissing, Warehouse, WarehouseAway, WarehouseBusy
from retention_platform.errors import RetentionError
from retention_platform.ingest.broker import group_lag
from retention_platform.settings import Settings

ASK_SECONDS = 2.0
#: An answer is given again for so long, since whoever polls must not open a broker connection each time.
KEEP_SECONDS = 1.0


@dataclass(frozen=True)
class Findings:
    """What the parts said; an error in place of what they could not say."""

    raw: RawFreshness | RetentionError
    marts: MartsFreshness | RetentionError
    #: Messages not stored yet; None when no broker is known.
    kafka: int | RetentionError | None
    #: The web server's version.
    dagster: str | RetentionError


class HealthCheck:
    """Asks all parts at once; requests that come together share one round of questions."""

    def __init__(self, settings: Settings, warehouse: Warehouse) -> None:
        self._settings = settings
        self._warehouse = warehouse
        self._lock = asyncio.Lock()
        self._last: Health | None = None
        self._asked_at = 0.0

    async def __call__(self) -> Health:
        """The health of now, or of a second ago."""
        async with self._lock:
            if self._last is None or time.monotonic() - self._asked_at > KEEP_SECONDS:
                self._last = judge(await self._ask(), self._settings, datetime.now(timezone.utc))
                self._asked_at = time.monotonic()
            return self._last

    async def _ask(self) -> Findings:
        raw, marts, kafka, dagster = await asyncio.gather(self._raw(), self._marts(), self._kafka(), self._dagster())
        return Findings(raw, marts, kafka, dagster)

    async def _raw(self) -> RawFreshness | RetentionError:
        try:
            return await queries.raw_freshness(self._warehouse)
        except MartsMissing:
            return MartsMissing("the raw tables are not there yet: run `retention migrate`")
        except RetentionError as error:
            return error

    async def _marts(self) -> MartsFreshness | RetentionError:
        try:
            return await queries.marts_freshness(self._warehouse)
        except RetentionError as error:
            return error

    async def _kafka(self) -> int | RetentionError | None:
        if not self._settings.kafka_bootstrap_servers:
            return None
        try:
            places = await run_in_threadpool(group_lag, self._settings, timeout=ASK_SECONDS)
            return sum(place.lag for place in places)
        except RetentionError as error:
            return error

    async def _dagster(self) -> str | RetentionError:
        base = self._settings.dagster_url
        try:
            async with httpx.AsyncClient(timeout=ASK_SECONDS, trust_env=False) as client:
                answer = (await client.get(f"{base}/server_info")).raise_for_status().json()
            return str(answer["dagster_webserver_version"])
        except (httpx.HTTPError, ValueError, KeyError, TypeError):
            return RetentionError(f"Dagster at {base} does not answer: start it with `retention up`")


def judge(found: Findings, settings: Settings, now: datetime) -> Health:
    """What the findings mean. Only ClickHouse is required: without the others the figures stay, and grow old."""
    dependencies = Dependencies(
        clickhouse=_clickhouse(found, settings),
        marts=_marts(found),
        kafka=_kafka(found, settings),
        dagster=_dagster(found, settings),
    )
    parts = (dependencies.clickhouse, dependencies.marts, dependencies.kafka, dependencies.dagster)
    status = "ok"
    if any(part.status == "down" for part in parts):
        status = "unavailable" if dependencies.clickhouse.status == "down" else "degraded"
    return Health.model_validate(
        {
            "status": status,
            "version": __version__,
            "checked_at": now,
            "dependencies": dependencies,
            "freshness": freshness(found),
        }
    )


def freshness(found: Findings) -> Freshness:
    """How new the figures are, as far as anybody could say."""
    newest = found.raw.newest if isinstance(found.raw, RawFreshness) else None
    marts = found.marts if isinstance(found.marts, MartsFreshness) else MartsFreshness(0, None, None)
    lag = None
    if newest is not None and marts.newest is not None:
        lag = max(0.0, (newest - marts.newest) / timedelta(seconds=1))
    return Freshness(
        newest_ingested_at=newest,
        marts_computed_at=marts.computed,
        marts_newest_ingested_at=marts.newest,
        marts_lag_s=lag,
        ingest_lag_messages=found.kafka if isinstance(found.kafka, int) else None,
    )


def _clickhouse(found: Findings, settings: Settings) -> Dependency:
    where = f"{settings.clickhouse_host}:{settings.clickhouse_port}"
    # A warehouse that answers "no such table" or "no room" is up.
    gone = found.raw if isinstance(found.raw, WarehouseAway) else found.marts
    if isinstance(gone, WarehouseAway):
        return Dependency(status="down", required=True, detail=str(gone))
    if isinstance(found.raw, RawFreshness):
        return Dependency(status="up", required=True, detail=f"{where}; {found.raw.events:,} events stored")
    return Dependency(status="up", required=True, detail=f"{where}; {found.raw}")


def _marts(found: Findings) -> Dependency:
    if isinstance(found.marts, MartsFreshness):
        return Dependency(status="up", required=False, detail=f"{found.marts.videos:,} videos")
    status = "unknown" if isinstance(found.marts, (WarehouseAway, WarehouseBusy)) else "down"
    return Dependency.model_validate({"status": status, "required": False, "detail": str(found.marts)})


def _kafka(found: Findings, settings: Settings) -> Dependency:
    if found.kafka is None:
        detail = "KAFKA_BOOTSTRAP_SERVERS is not set"
        return Dependency(status="unknown", required=False, detail=detail)
    if isinstance(found.kafka, int):
        detail = f"{settings.kafka_bootstrap_servers}; {found.kafka:,} messages not stored yet"
        return Dependency(status="up", required=False, detail=detail)
    return Dependency(status="down", required=False, detail=str(found.kafka))


def _dagster(found: Findings, settings: Settings) -> Dependency:
    if isinstance(found.dagster, str):
        where = f"{settings.dagster_host}:{settings.dagster_port}"
        return Dependency(status="up", required=False, detail=f"{where}; version {found.dagster}")
    return Dependency(status="down", required=False, detail=str(found.dagster))
