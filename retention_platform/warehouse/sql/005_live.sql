-- What is known seconds after an event, before any run of dbt (docs/metrics.md, section 8): who watches now, the last
-- hour's concurrency, the last hour's curve. Built by materialized views on the stream, only from what may be repeated:
-- keys that replace themselves and sets of sessions, so a batch stored twice changes nothing.
-- An interval is judged by what its own event says, since the stream does not know the catalogue; the marts, which do,
-- have the last word. Intervals of over an hour of wall time are no heartbeats, and history that is loaded is not live:
-- both stay out, so that no message makes more than 360 rows.

create database if not exists live;

create table if not exists live.events
(
    video_id String codec(ZSTD(1)),
    session_id String codec(ZSTD(1)),
    event_time DateTime64(3, 'UTC') codec(DoubleDelta, ZSTD(1)),
    event_id UUID,
    event_type LowCardinality(String),
    played_from_ms Int64 codec(ZSTD(1)) comment 'content milliseconds; 0 where nothing valid was played',
    played_to_ms Int64 codec(ZSTD(1)) comment 'content milliseconds; 0 where nothing valid was played'
)
engine = ReplacingMergeTree
partition by toStartOfHour(event_time)
order by (video_id, session_id, event_time, event_id)
ttl toDateTime(event_time) + interval 3 hour
settings non_replicated_deduplication_window = 10000, ttl_only_drop_parts = 1
comment 'Events of the last hours as they came. For the views live.viewers_now and live.retention_curve.';

create table if not exists live.ticks
(
    at DateTime('UTC') comment 'an instant of the wall clock, every 10 s',
    video_id String codec(ZSTD(1)),
    sessions AggregateFunction(uniqExact, String) comment 'that were played at the instant'
)
engine = AggregatingMergeTree
partition by toStartOfHour(at)
order by (at, video_id)
ttl at + interval 3 hour
settings non_replicated_deduplication_window = 10000, ttl_only_drop_parts = 1
comment 'Who watched at each instant of the last hours, as sets. For the view live.concurrency.';

create table if not exists live.recent
(
    video_id String,
    session_id String,
    event_time DateTime64(3, 'UTC'),
    event_id UUID,
    event_type LowCardinality(String),
    played_from_ms Int64,
    played_to_ms Int64,
    wall_us Int64 comment 'microseconds of wall time that the interval took'
)
engine = Null;

create materialized view if not exists live.judge to live.recent as
select
    video_id, session_id, event_time, event_id, event_type,
    if(is_played, from_ms, 0) as played_from_ms,
    if(is_played, least(to_ms, limit_ms), 0) as played_to_ms,
    if(is_played, toInt64(round((least(to_ms, limit_ms) - from_ms) * 1000 / playback_rate)), 0) as wall_us
from
(
    select
        video_id, session_id, event_time, event_id, event_type, playback_rate,
        ifNull(played_from_ms, -1) as from_ms,
        ifNull(played_to_ms, -1) as to_ms,
        ifNull(duration_ms, 604800000) as limit_ms,
        from_ms >= 0 and from_ms < to_ms and from_ms < limit_ms and to_ms <= limit_ms + 1000
            and to_ms - from_ms <= 3600000 * playback_rate as is_played
    from raw.playback_events
    where event_time between now64(3) - interval 3 hour and now64(3) + interval 10 minute
);

create materialized view if not exists live.store_events to live.events as
select video_id, session_id, event_time, event_id, event_type, played_from_ms, played_to_ms
from live.recent;

create materialized view if not exists live.store_ticks to live.ticks as
select
    toDateTime(arrayJoin(range(
        toUInt64(intDiv(toUnixTimestamp64Milli(event_time) * 1000 - wall_us + 9999999, 10000000)),
        toUInt64(intDiv(toUnixTimestamp64Milli(event_time) * 1000 + 9999999, 10000000))
    )) * 10, 'UTC') as at,
    video_id,
    uniqExactState(session_id) as sessions
from live.recent
where wall_us > 0
group by at, video_id;

create view if not exists live.viewers_now
(
    video_id String,
    viewers UInt64 comment 'sessions that play now: heard of in the last 30 s, and their last word was not that they stopped',
    last_event_at DateTime64(3, 'UTC')
) as
select video_id, count() as viewers, max(last_event_time) as last_event_at
from
(
    select
        video_id, session_id, max(event_time) as last_event_time,
        argMax(event_type, (event_time, event_id)) as last_event_type
    from live.events
    where event_time > now64(3) - interval 30 second and event_time <= now64(3)
    group by video_id, session_id
)
where last_event_type not in ('pause', 'ended', 'exit', 'error')
group by video_id
comment 'Who watches now, one row a video that is watched; a session is of one video, so the sum is who watches anything.';

create view if not exists live.concurrency
(
    at DateTime('UTC'),
    video_id String,
    viewers UInt64 comment 'sessions with a played interval that covers the instant'
) as
select at, video_id, uniqExactMerge(sessions) as viewers
from live.ticks
where at > now() - interval 1 hour and at <= now()
group by at, video_id
comment 'The last hour by 10 s, one row an instant and video that was watched; an instant without a row has no viewers. The last half minute is still being reported.';

create view if not exists live.retention_curve
(
    video_id String,
    second UInt32,
    views UInt64 comment 'sessions that reported playing in the last hour',
    watching_views UInt64 comment 'of these, those that played this second in the last hour'
) as
with
    sessions as
    (
        select
            video_id, session_id,
            groupUniqArrayArray(range(
                toUInt32(intDiv(played_from_ms + 999, 1000)), toUInt32(intDiv(played_to_ms + 999, 1000))
            )) as seconds
        from live.events
        where event_time > now64(3) - interval 1 hour and event_time <= now64(3) and played_to_ms > 0
        group by video_id, session_id
    ),
    videos as
    (
        select video_id, count() as views, max(arrayMax(seconds)) as last_second
        from sessions
        group by video_id
    ),
    watched as
    (
        select video_id, second, count() as watching_views
        from (select video_id, arrayJoin(seconds) as second from sessions)
        group by video_id, second
    ),
    dense as
    (
        select video_id, views, arrayJoin(range(toUInt32(last_second + 1))) as second
        from videos
    )
select dense.video_id as video_id, dense.second as second, dense.views as views, watched.watching_views as watching_views
from dense
left join watched on dense.video_id = watched.video_id and dense.second = watched.second
comment 'Of the sessions of the last hour, how many played each second: dense from 0 to the furthest second played.';
