{{ config(materialized="view") }}

with
    days as (select * from {{ current(ref("int_engagement_days")) }} where sessions > 0),

    rejected as (select * from {{ source("raw", "rejected_events") }} final),

    -- One row an event. In the order they are stored in, so that memory does not grow with them.
    events as (
        select
            video_id,
            session_id,
            event_time,
            event_id,
            toDate(event_time) as day,
            count() as copies,
            max(ingested_at) as stored_at
        from {{ source("raw", "playback_events") }}
        group by
            video_id, session_id, event_time, event_id settings optimize_aggregation_in_order = 1
    ),

    deliveries as (
        select
            video_id,
            day,
            count() as events,
            sum(copies) as rows,
            countIf(
                stored_at > event_time + toIntervalSecond({{ var("late_after_seconds") }})
            ) as late
        from events
        group by video_id, day
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
            'duplicate_events' as figure,
            day,
            video_id,
            '' as field,
            '' as reason,
            rows - events as found,
            toNullable(rows) as out_of
        from deliveries
        union all
        select
            'late_events' as figure,
            day,
            video_id,
            '' as field,
            '' as reason,
            late as found,
            toNullable(events) as out_of
        from deliveries
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
            toLowCardinality(figure) as figure,
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
