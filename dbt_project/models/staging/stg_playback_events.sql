with
    source as (select * from {{ source("raw", "playback_events") }} final),

    -- Epoch milliseconds, so that every later step is integer arithmetic.
    events as (
        select
            event_id,
            event_type,
            event_time,
            toUnixTimestamp64Milli(event_time) as event_ms,
            session_id,
            viewer_id,
            video_id,
            position_ms,
            played_from_ms,
            played_to_ms,
            duration_ms,
            playback_rate,
            device_type,
            os,
            browser,
            country,
            traffic_source,
            player,
            is_live,
            ingested_at
        from source
    )

select *
from events
