"""The API's SQL and the reading of its rows. Values travel as server-side parameters, never inside the text."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from retention_platform.api.models import CurvePoint, Dropoff
from retention_platform.api.warehouse import Warehouse

_CURVE_COLUMNS = ", ".join(CurvePoint.model_fields)
_DROPOFF_COLUMNS = ", ".join(Dropoff.model_fields)

# A video that a half-done refresh has no summary of yet reads as one without views that was never computed.
_VIDEO = """
select
    videos.video_id as video_id,
    videos.title as title,
    videos.category as category,
    videos.published_at as published_at,
    videos.chapters as chapters,
    videos.duration_s as duration_s,
    videos.duration_source as duration_source,
    summary.*
from marts.videos as videos
left join (
    select
        video_id as summary_of, views, unique_viewers, engaged_views, watch_time_s, content_played_s, content_watched_s,
        average_view_duration_s, average_view_percentage, completion_rate, hook_retention_3s, intro_retention_30s,
        rewatch_rate, seeks_per_view, peak_concurrent_viewers, first_event_at, last_event_at, is_sufficient, sessions,
        implausible_sessions, invalid_intervals, toNullable(engagement_summary.computed_at) as computed_at
    from marts.engagement_summary
    {only}
) as summary on videos.video_id = summary.summary_of
"""
_ONLY = "where video_id = {video_id:String}"

ONE_VIDEO = f"{_VIDEO.format(only=_ONLY)} where videos.video_id = {{video_id:String}}"

VIDEO_PAGE = f"""
{_VIDEO.format(only="")}
order by views desc, videos.video_id
limit {{limit:UInt32}} offset {{offset:UInt32}}
"""

VIDEO_COUNT = "select count() as total from marts.videos"

CURVE = f"""
select views, {_CURVE_COLUMNS}
from marts.retention_curve
where video_id = {{video_id:String}}
order by second
"""

DROPOFFS = f"""
select {_DROPOFF_COLUMNS}
from marts.dropoff_points
where video_id = {{video_id:String}}
order by start_second
"""

RAW_FRESHNESS = "select count() as events, max(ingested_at) as newest from raw.playback_events"

MARTS_FRESHNESS = """
select count() as videos, max(computed_at) as computed, max(last_ingested_at) as newest
from marts.engagement_summary
"""


@dataclass(frozen=True)
class RawFreshness:
    """How many events are stored, and when the newest was; None when there are none."""

    events: int
    newest: datetime | None


@dataclass(frozen=True)
class MartsFreshness:
    """How many videos the marts know, when they were computed, and how new their newest event is."""

    videos: int
    computed: datetime | None
    newest: datetime | None


async def video(warehouse: Warehouse, video_id: str) -> dict[str, Any] | None:
    """Description and summary of one video; None when there is no such video."""
    found = await warehouse.rows(ONE_VIDEO, {"video_id": video_id})
    return found[0] if found else None


async def video_page(warehouse: Warehouse, limit: int, offset: int) -> list[dict[str, Any]]:
    """A page of the videos, the most viewed first, equals by id."""
    return await warehouse.rows(VIDEO_PAGE, {"limit": limit, "offset": offset})


async def video_count(warehouse: Warehouse) -> int:
    """How many videos there are."""
    return int((await warehouse.rows(VIDEO_COUNT))[0]["total"])


async def curve(warehouse: Warehouse, video_id: str) -> list[dict[str, Any]]:
    """The curve's rows in the order of seconds; none for a video without views."""
    return await warehouse.rows(CURVE, {"video_id": video_id})


async def dropoffs(warehouse: Warehouse, video_id: str) -> list[dict[str, Any]]:
    """The significant dropoffs in the order of the video."""
    return await warehouse.rows(DROPOFFS, {"video_id": video_id})


async def raw_freshness(warehouse: Warehouse) -> RawFreshness:
    """What is stored of the stream."""
    row = (await warehouse.rows(RAW_FRESHNESS))[0]
    # An aggregate over no rows is the epoch, not null.
    return RawFreshness(int(row["events"]), row["newest"] if row["events"] else None)


async def marts_freshness(warehouse: Warehouse) -> MartsFreshness:
    """What the marts were computed from, and when."""
    row = (await warehouse.rows(MARTS_FRESHNESS))[0]
    known = int(row["videos"])
    return MartsFreshness(known, row["computed"] if known else None, row["newest"])
