"""Who watches at the same time, who watches now, and what of the stream is in no figure."""

from __future__ import annotations

from datetime import date
from typing import Literal

from pydantic import Field

from retention_platform.api.models.base import Answer, Count, Reason, Utc, VideoIdField


class Instant(Answer):
    """One instant of the wall clock."""

    at: Utc = Field(description="UTC, a multiple of 10 s", examples=["2026-03-14T20:15:10Z"])
    concurrent_viewers: Count = Field(description="sessions being played at it", examples=[37])


class ConcurrencyHead(Answer):
    """What the concurrency is of."""

    video_id: str | None = Field(description="the video; null for all videos together", examples=["intro-to-sql"])
    source: Literal["batch", "live"] = Field(description="the marts, or the stream's last hour")
    day: date | None = Field(description="UTC day; null without views, and for live", examples=["2026-03-14"])
    step_s: int = Field(10, description="seconds between two instants")
    peak: Count = Field(description="most at once, of the instants below", examples=[37])
    average: float | None = Field(ge=0, description="mean of the instants below", examples=[11.4])
    reason: Reason | None = Field(description="why there are no instants; null when there are")


class ConcurrentViewers(ConcurrencyHead):
    """How many watch at the same time: every 10 s from the first to the last instant at which anybody does."""

    instants: list[Instant] = Field(description="in their order, without gaps; 0 where nobody watched in between")


class WatchedNow(Answer):
    """One video that is watched now."""

    video_id: VideoIdField
    title: str | None = Field(description="null when the catalogue does not know the video; untrusted text")
    viewers: Count = Field(description="sessions that play now", examples=[12])
    last_event_at: Utc = Field(description="newest event of these sessions")


class ViewersNowHead(Answer):
    """When this is, and how many in all."""

    at: Utc = Field(description="when ClickHouse answered")
    viewers: Count = Field(description="sessions that play now, of all videos", examples=[31])


class ViewersNow(ViewersNowHead):
    """Who watches now: sessions heard of in the last 30 s whose last word was not that they stopped."""

    videos: list[WatchedNow] = Field(description="the most watched first")


class QualityFigure(Answer):
    """How much of what came is in no figure, or came twice or late."""

    figure: str = Field(
        description="implausible_sessions, invalid_intervals, duplicate_messages, late_messages or rejected_messages",
        examples=["rejected_messages"],
    )
    field: str = Field(description="of rejected messages the field at fault; else empty", examples=["position_ms"])
    reason: str = Field(description="of rejected messages what is wrong; else empty", examples=["is not a number"])
    found: Count = Field(description="how many", examples=[3])
    out_of: Count | None = Field(description="of how many; null for rejected messages", examples=[52_110])


class QualityHead(Answer):
    """What the figures are of."""

    video_id: str | None = Field(description="the video; null for everything", examples=["intro-to-sql"])


class DataQuality(QualityHead):
    """What is in no figure, and why."""

    figures: list[QualityFigure] = Field(description="by name")
