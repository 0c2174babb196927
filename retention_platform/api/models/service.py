"""What this service is, and whether it can be used."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from retention_platform.api.models.base import Answer, Count, Seconds, Utc


class Index(Answer):
    """What this service is and where to go from here."""

    name: str = Field(description="of this software", examples=["retention"])
    version: str = Field(description="of this software", examples=["0.1.0"])
    description: str = Field(description="what it is for")
    links: dict[str, str] = Field(description="paths, with {video_id} to be filled in and percent-encoded")


class Dependency(Answer):
    """One part that the answers depend on."""

    status: Literal["up", "down", "unknown"] = Field(description="unknown: no address is configured, so nobody asked")
    required: bool = Field(description="whether the API is of no use without it")
    detail: str = Field(description="what it said, or what is wrong and what to do")


class Dependencies(Answer):
    """Every part the answers depend on."""

    clickhouse: Dependency = Field(description="where everything is stored")
    marts: Dependency = Field(description="the tables that the answers come from")
    kafka: Dependency = Field(description="the broker that events come through")
    dagster: Dependency = Field(description="what refreshes the marts")


class Freshness(Answer):
    """How old the figures are. All null while nothing was ingested or the marts were never built."""

    newest_ingested_at: Utc | None = Field(description="when the newest raw event was stored")
    marts_computed_at: Utc | None = Field(description="when the marts were last computed")
    marts_newest_ingested_at: Utc | None = Field(description="when the newest event that the marts contain was stored")
    marts_lag_s: Seconds | None = Field(
        description="seconds of stored events the marts do not contain yet: newest_ingested_at - "
        "marts_newest_ingested_at; 0 when they contain all",
        examples=[4.2],
    )
    ingest_lag_messages: Count | None = Field(
        description="messages in the topics not stored yet; null when no broker is known or it is away", examples=[0]
    )


class Health(Answer):
    """Whether the API can be used, and how fresh its figures are."""

    status: Literal["ok", "degraded", "unavailable"] = Field(
        description="ok: everything is up; degraded: usable, but something is down; unavailable: ClickHouse is away"
    )
    version: str = Field(description="of this software", examples=["0.1.0"])
    checked_at: Utc = Field(description="when the parts were asked")
    dependencies: Dependencies = Field(description="every part the answers depend on")
    freshness: Freshness = Field(description="how old the figures are")
