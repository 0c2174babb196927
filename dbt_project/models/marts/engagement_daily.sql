{{ config(materialized="view") }}

with
    days as (select * from {{ current(ref("int_engagement_days")) }} where sessions > 0),

    daily as (
        select
            video_id,
            day,
            {{ engagement_figures("days") }},
            fromUnixTimestamp64Milli(first_event_ms, 'UTC') as first_event_at,
            fromUnixTimestamp64Milli(last_event_ms, 'UTC') as last_event_at,
            toBool(views >= {{ var("sufficient_views") }}) as is_sufficient,
            days.sessions as sessions,
            days.implausible_sessions as implausible_sessions,
            days.intervals as intervals,
            days.invalid_intervals as invalid_intervals
        from days
    )

select *
from daily
