{{ config(materialized="view") }}

with
    judged as (select * from {{ current(ref("int_views")) }}),

    first_views as (
        select video_id, session_id, true as is_first from {{ ref("int_first_views") }}
    ),

    -- What only an interval can tell is null where none is valid.
    sessions as (
        select
            judged.video_id as video_id,
            judged.day as day,
            judged.session_id as session_id,
            judged.viewer_id as viewer_id,
            toLowCardinality(
                multiIf(not is_view, null, is_first, 'new', 'returning')
            ) as viewer_type,
            judged.device_type as device_type,
            judged.os as os,
            judged.browser as browser,
            judged.country as country,
            judged.traffic_source as traffic_source,
            judged.player as player,
            judged.is_live as is_live,
            fromUnixTimestamp64Milli(judged.first_event_ms, 'UTC') as first_event_at,
            fromUnixTimestamp64Milli(judged.last_event_ms, 'UTC') as last_event_at,
            toBool(judged.is_view) as is_view,
            toBool(judged.is_implausible) as is_implausible,
            toBool(is_view and {{ is_engaged("judged") }}) as is_engaged,
            toBool(is_view and {{ is_completed("judged") }}) as is_completed,
            toBool(is_view and {{ is_rewatched("judged") }}) as is_rewatched,
            toBool(is_view and {{ is_watched_at("judged", 3) }}) as is_watching_at_3s,
            toBool(is_view and {{ is_watched_at("judged", 30) }}) as is_watching_at_30s,
            nullIf(judged.duration_ms, 0) / 1000 as duration_s,
            judged.watch_time_us / 1000000 as watch_time_s,
            judged.content_played_ms / 1000 as content_played_s,
            judged.content_watched_ms / 1000 as content_watched_s,
            100 * judged.content_watched_ms / nullIf(judged.duration_ms, 0) as percentage_watched,
            judged.content_played_ms > 0 as has_played,
            if(has_played, judged.started_second, null) as started_second,
            if(has_played, judged.entered_second, null) as entered_second,
            if(has_played, judged.exit_second, null) as exit_second,
            if(has_played, judged.furthest_ms / 1000, null) as furthest_s,
            judged.seeks as seeks,
            judged.events as events,
            judged.intervals as intervals,
            judged.invalid_intervals as invalid_intervals,
            judged.concurrent_ticks as concurrent_ticks,
            judged.last_ingested_at as last_ingested_at
        from judged
        left join
            first_views
            on judged.video_id = first_views.video_id
            and judged.session_id = first_views.session_id
    )

select * except (has_played)
from sessions
