{{ config(materialized="view") }}

with
    days as (select * from {{ current(ref("int_engagement_days")) }} where sessions > 0),

    rejected as (select * from {{ source("raw", "rejected_events") }} final),

    happened as (
        select video_id, toDate(event_time) as day, count() as events
        from {{ ref("stg_playback_events") }}
        group by video_id, day
    ),

    -- Counted as playback_events is stored, and no source of its own: that one stands for both.
    stored as (
        select
            video_id,
            day,
            sum(deliveries.messages) as messages,
            sum(deliveries.late_messages) as late_messages
        from {{ source("raw", "playback_events").schema }}.deliveries as deliveries
        group by video_id, day
    ),

    -- Raw's time to live in days, 0 without one: dbt is not told of it, the table knows.
    kept as (
        select max(toUInt32OrZero(extract(engine_full, 'TTL .*?toIntervalDay\\((\\d+)\\)'))) as days
        from system.tables
        where
            -- On shards it is each one's own table that knows.
            database in ('{{ source("raw", "playback_events").schema }}', 'raw_local')
            and name = '{{ source("raw", "playback_events").identifier }}'
    ),

    -- A batch is counted a moment before or after its events can be read. Where the time to live
    -- took events of a day, those left tell nothing of copies.
    repeated as (
        select
            stored.video_id as video_id,
            stored.day as day,
            stored.messages as messages,
            toUInt64(greatest(toInt64(messages) - toInt64(happened.events), 0)) as copies
        from stored
        inner join happened on stored.video_id = happened.video_id and stored.day = happened.day
        where
            (select days from kept) = 0 or stored.day > toDate(now('UTC')) - (select days from kept)
    ),

    figures as (
        select
            'implausible_sessions' as figure,
            day,
            video_id,
            '' as field,
            '' as reason,
            implausible_sessions as found,
            toNullable(sessions) as out_of
        from days
        union all
        select
            'invalid_intervals' as figure,
            day,
            video_id,
            '' as field,
            '' as reason,
            toUInt64(invalid_intervals) as found,
            toNullable(intervals) as out_of
        from days
        union all
        select
            'duplicate_messages' as figure,
            day,
            video_id,
            '' as field,
            '' as reason,
            copies as found,
            toNullable(messages) as out_of
        from repeated
        union all
        select
            'late_messages' as figure,
            day,
            video_id,
            '' as field,
            '' as reason,
            late_messages as found,
            toNullable(messages) as out_of
        from stored
        union all
        select
            'rejected_messages' as figure,
            toDate(rejected_at) as day,
            '' as video_id,
            toString(rejected.field) as field,
            reason,
            count() as found,
            null as out_of
        from rejected
        group by day, field, reason
    ),

    quality as (
        select
            figure,
            day,
            video_id,
            field,
            reason,
            toUInt64(found) as found,
            cast(out_of, 'Nullable(UInt64)') as out_of
        from figures
    )

select *
from quality
