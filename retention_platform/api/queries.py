"""The API's SQL and the reading of its rows. Values travel as server-side parameters, never inside the text."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel

from retention_platform.api.models.moments import Dropoff, KeyMoment
from retention_platform.api.models.videos import Day, Segment, VideoListItem
from retention_platform.api.warehouse import Parameters, Warehouse
from retention_platform.errors import RetentionError

#: What the list of videos can be in the order of, and which way.
Sort = Literal[
    "views",
    "unique_viewers",
    "watch_time_s",
    "average_view_percentage",
    "completion_rate",
    "title",
    "duration_s",
    "published_at",
    "last_event_at",
]
Order = Literal["asc", "desc"]


def _of_video(mart: str, row: type[BaseModel], order_by: str) -> str:
    """The rows of a mart that a model describes, of one video."""
    return f"""
select {", ".join(row.model_fields)}
from marts.{mart}
where video_id = {{video_id:String}}
order by {order_by}
"""


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
        implausible_sessions, invalid_intervals, toNullable(engagement_summary.computed_at) as computed_at,
        last_ingested_at as fresh_as_of
    from marts.engagement_summary
    {only}
) as summary on videos.video_id = summary.summary_of
"""
_ONLY = "where video_id = {video_id:String}"

ONE_VIDEO = f"{_VIDEO.format(only=_ONLY)} where videos.video_id = {{video_id:String}}"

# Without a search every video matches: the empty text is in every text.
_MATCHES = """
positionCaseInsensitiveUTF8(ifNull(videos.title, ''), {search:String}) > 0
or positionCaseInsensitiveUTF8(videos.video_id, {search:String}) > 0
"""

_VIDEO_ITEMS = f"""
select {", ".join(VideoListItem.model_fields)}
from ({_VIDEO.format(only="")}) as videos
where {_MATCHES}
"""

VIDEO_TOTALS = f"""
select count() as videos, sum(views) as views, sum(watch_time_s) as watch_time_s
from ({_VIDEO.format(only="")} where {_MATCHES})
"""

DROPOFFS = _of_video("dropoff_points", Dropoff, "start_second")
MOMENTS = _of_video("key_moments", KeyMoment, "start_second, kind")
DAYS = _of_video("engagement_daily", Day, "day")
SEGMENTS = _of_video("engagement_by_segment", Segment, "dimension, views desc, value")

RAW_FRESHNESS = "select count() as events, max(ingested_at) as newest from raw.playback_events"

REJECTED = "select count() as messages from raw.rejected_events final"

MARTS_FRESHNESS = """
select count() as videos, max(computed_at) as computed, max(last_ingested_at) as newest
from marts.engagement_summary
"""


@dataclass(frozen=True)
class Table:
    """A query whose rows are the answer, and what its file is called when a browser keeps it."""

    sql: str
    parameters: Parameters = field(default_factory=dict)
    name: str = "table"


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


def video_page(search: str, sort: Sort, order: Order | None, limit: int, offset: int) -> Table:
    """A page of the videos whose title or id holds ``search``; equals by id, what has no figure last."""
    page = "limit {limit:UInt32} offset {offset:UInt32}"
    sql = f"{_VIDEO_ITEMS} order by {ordered(sort, order)} {page}"
    return Table(sql, {"search": search, "limit": limit, "offset": offset}, "videos")


def ordered(sort: Sort, order: Order | None) -> str:
    """The SQL of an order of videos: titles from A to Z and figures from the greatest down, unless told otherwise."""
    by = "lowerUTF8(title)" if sort == "title" else sort
    direction = order or ("asc" if sort == "title" else "desc")
    return f"{by} {direction} nulls last, video_id"


async def video_totals(warehouse: Warehouse, search: str) -> dict[str, Any]:
    """How many videos match, with how many views and how much watch time."""
    return (await warehouse.rows(VIDEO_TOTALS, {"search": search}))[0]


def of_video(sql: str, video_id: str, name: str) -> Table:
    """The rows of a query about one video; none for a video without."""
    return Table(sql, {"video_id": video_id}, f"{video_id}-{name}")


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


async def rejected_messages(warehouse: Warehouse) -> int | None:
    """How many messages were refused since the beginning; None when the warehouse cannot say."""
    try:
        return int((await warehouse.rows(REJECTED))[0]["messages"])
    except RetentionError:
        return None
