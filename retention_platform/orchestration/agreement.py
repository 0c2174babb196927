"""Do the marts agree with raw, and how far behind are they? Pure judgements, and the two queries they rest on.

The count from raw goes its own way: no staging, no intermediate table, no `final`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from retention_platform.orchestration.raw_mark import unreadable, utc

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client

#: Sessions and views a video by METRICS.md 1 and 2, of everything that was stored up to the newest row the marts know.
_FROM_RAW = """
with
    events as (
        select
            video_id,
            session_id,
            event_id,
            any(toUnixTimestamp64Milli(event_time)) as at_ms,
            any(played_from_ms) as from_ms,
            any(played_to_ms) as to_ms
        from raw.playback_events
        where ingested_at <= {as_of:DateTime64(3, 'UTC')}
        group by video_id, session_id, event_id
    ),
    sessions as (
        select
            events.video_id as video_id,
            session_id,
            sumIf(
                least(to_ms, durations.duration_ms) - from_ms,
                from_ms >= 0 and from_ms < to_ms and from_ms < durations.duration_ms
                and to_ms <= durations.duration_ms + 1000
            ) as played_ms,
            max(at_ms) - min(at_ms) as span_ms
        from events
        left join (select video_id, ifNull(duration_ms, 0) as duration_ms from marts.videos) as durations
            on events.video_id = durations.video_id
        group by video_id, session_id
    )
select
    video_id,
    count() as sessions,
    countIf(ifNull(played_ms, 0) > 0 and played_ms <= span_ms * 16 + 30000) as views
from sessions
group by video_id
"""
_FROM_MARTS = "select video_id, sessions, views from marts.engagement_summary where sessions > 0"
_AS_OF = "select max(last_ingested_at) from marts.engagement_summary"

_FRESHNESS = """
with (select max(computed_at) from marts.engagement_summary) as computed
select computed, minOrNull(ingested_at), count(), now64(3, 'UTC')
from raw.playback_events
where ingested_at > computed
"""

Counts = tuple[int, int]


@dataclass(frozen=True)
class Freshness:
    """When the marts were computed, and how long the oldest event after that has waited (None: there is none)."""

    computed: datetime
    events_after: int
    waiting: timedelta | None


def differences(raw: Mapping[str, Counts], marts: Mapping[str, Counts]) -> list[str]:
    """One line a video whose (sessions, views) differ, in the order of video ids; no tolerance."""
    return [
        f"{video}: raw has {raw.get(video, (0, 0))[0]} sessions and {raw.get(video, (0, 0))[1]} views, "
        f"the marts {marts.get(video, (0, 0))[0]} and {marts.get(video, (0, 0))[1]}"
        for video in sorted(raw.keys() | marts.keys())
        if raw.get(video, (0, 0)) != marts.get(video, (0, 0))
    ]


def read_counts(client: Client) -> tuple[dict[str, Counts], dict[str, Counts]]:
    """Video to (sessions, views), from raw as far as the marts know it, and from the marts. Raises ServiceError."""
    try:
        as_of = client.query(_AS_OF).result_rows[0][0]
        marts = client.query(_FROM_MARTS).result_rows
        raw = client.query(_FROM_RAW, parameters={"as_of": utc(as_of)}).result_rows if as_of else []
    except Exception as error:
        raise unreadable(error) from None
    return _by_video(raw), _by_video(marts)


def _by_video(rows: object) -> dict[str, Counts]:
    assert isinstance(rows, (list, tuple))
    return {str(video): (int(sessions), int(views)) for video, sessions, views in rows}


def read_freshness(client: Client) -> Freshness:
    """How far the marts are behind the raw events. Raises ServiceError."""
    try:
        computed, oldest, after, now = client.query(_FRESHNESS).result_rows[0]
    except Exception as error:
        raise unreadable(error) from None
    return Freshness(
        computed=utc(computed), events_after=int(after), waiting=utc(now) - utc(oldest) if oldest is not None else None
    )
