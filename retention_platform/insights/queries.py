"""What insights read: SQL over the marts about one video, in two steps, since evidence is looked for around moments.

Counts leave ClickHouse, never viewers: no query here selects a viewer's or a session's id.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from retention_platform.report.queries import Ask, Row, UnknownVideo, marts_there, require
from retention_platform.report.reasons import SIMILAR_LENGTH_PERCENT

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client

#: A view that ends so soon after a stall or an error ended after it, in seconds of content.
AFTER_SECONDS = 15

_OF_VIDEO = "where video_id = {video_id:String}"

# How many comparable videos are finished by fewer, and what their beginnings keep.
_PEERS = f"""
with
    (select any(duration_ms) from marts.videos {_OF_VIDEO}) as own_ms,
    (select any(completion_rate) from marts.engagement_summary {_OF_VIDEO}) as own
select
    count() as videos,
    countIf(completion_rate < own) as below,
    countIf(completion_rate = own) as alike,
    quantileExactInclusive(0.5)(intro_retention_30s) as intro_retention_30s
from marts.engagement_summary as summary
inner join marts.videos as videos on summary.video_id = videos.video_id
where summary.video_id != {{video_id:String}} and summary.is_sufficient
    and abs(videos.duration_ms - own_ms) * 100 <= own_ms * {SIMILAR_LENGTH_PERCENT}
"""
_HABITS = f"""
select count() as views, countIf(content_played_s >= 1.1 * watch_time_s) as faster
from marts.sessions
{_OF_VIDEO} and is_view
"""
# Where views end right after a stall or an error. A player reports these where it stands, or a little behind.
_AFTER_TROUBLE = f"""
with
    views as (
        select session_id, assumeNotNull(exit_second) as exit_second
        from marts.sessions
        {_OF_VIDEO} and is_view
    ),
    troubles as (
        select session_id, toString(event_type) as trouble, groupArray(toInt64(position_ms)) as places
        from staging.stg_playback_events
        {_OF_VIDEO} and event_type in ('buffer_start', 'error')
        group by session_id, trouble
    )
select trouble, exit_second, count() as views
from views
inner join troubles on views.session_id = troubles.session_id
where arrayExists(
    place -> place >= (toInt64(exit_second) - {AFTER_SECONDS}) * 1000 and place <= (toInt64(exit_second) + 2) * 1000,
    places
)
group by trouble, exit_second
order by trouble, exit_second
"""
_FIRST: Mapping[str, str] = {
    "video": f"select * from marts.videos {_OF_VIDEO}",
    "summary": f"select * from marts.engagement_summary {_OF_VIDEO}",
    "peers": _PEERS,
    "curve": "select second, stopped_watching, at_risk, watching_views, skip_rate "
    f"from marts.retention_curve {_OF_VIDEO} order by second",
    "dropoffs": f"select * from marts.dropoff_points {_OF_VIDEO} order by start_second",
    "moments": f"select * from marts.key_moments {_OF_VIDEO} order by start_second, moment_id",
    "segments": "select dimension, value, views, completion_rate "
    f"from marts.engagement_by_segment {_OF_VIDEO} order by dimension, views desc, value",
    "habits": _HABITS,
    "after_trouble": _AFTER_TROUBLE,
    "quality": "select figure, sum(found) as found, sum(out_of) as out_of "
    f"from marts.data_quality {_OF_VIDEO} group by figure order by figure",
}
# Who was there in each of some stretches, and who left in it, by segment.
_EVIDENCE = f"""
select start_second, dimension, value, countIf(exit_second >= start_second) as at_risk,
    countIf(exit_second >= start_second and exit_second < end_second) as lost
from (
    select
        toInt64(assumeNotNull(entered_second)) as entered_second,
        toInt64(assumeNotNull(exit_second)) as exit_second,
        [('device_type', toString(device_type)), ('country', toString(country)),
         ('traffic_source', toString(traffic_source)), ('viewer_type', ifNull(toString(viewer_type), ''))] as segments
    from marts.sessions
    {_OF_VIDEO} and is_view
) as views
array join segments.1 as dimension, segments.2 as value
cross join (
    select stretch.1 as start_second, stretch.2 as end_second
    from (select arrayJoin(arrayZip(
            JSONExtract({{starts:String}}, 'Array(Int64)'), JSONExtract({{ends:String}}, 'Array(Int64)')
        )) as stretch)
) as stretches
where entered_second < end_second
group by start_second, dimension, value
order by start_second, dimension, value
"""
MARTS = (
    "videos",
    "engagement_summary",
    "engagement_by_segment",
    "retention_curve",
    "dropoff_points",
    "key_moments",
    "sessions",
    "data_quality",
)

Stretch = tuple[int, int]


def read_video(ask: Ask, video_id: str) -> dict[str, Sequence[Row]]:
    """The rows about a video that need no moments. Raises UnknownVideo, and ServiceError without marts."""
    require(marts_there(ask), *MARTS)
    rows: dict[str, Sequence[Row]] = {}
    for name, sql in _FIRST.items():
        rows[name] = ask(sql, {"video_id": video_id})
        if name == "video" and not rows[name]:
            raise UnknownVideo(video_id)
    return rows


def read_evidence(ask: Ask, video_id: str, stretches: Iterable[Stretch]) -> Sequence[Row]:
    """By stretch and segment: how many views were there (``at_risk``), and how many ended there (``lost``)."""
    wanted = list(stretches)
    if not wanted:
        return []
    starts, ends = (f"[{','.join(str(stretch[side]) for stretch in wanted)}]" for side in (0, 1))
    return ask(_EVIDENCE, {"video_id": video_id, "starts": starts, "ends": ends})


def videos_of(client: Client) -> list[str]:
    """The ids of all videos that have views, the most viewed first."""
    sql = "select video_id from marts.engagement_summary where views > 0 order by views desc, video_id"
    return [str(row[0]) for row in client.query(sql).result_rows]
