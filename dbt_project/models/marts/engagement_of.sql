{{ config(materialized="parameterized_view") }}

with
    chosen as ({{ chosen_views() }}),

    counted as (
        select any(chosen.duration_ms) as duration_ms, {{ engagement_counts("chosen") }}
        from chosen
        having views > 0
    ),

    engagement as (
        select
            {{ engagement_figures("counted") }},
            toBool(counted.views >= {{ var("sufficient_views") }}) as is_sufficient,
            fromUnixTimestamp64Milli(counted.first_event_ms, 'UTC') as first_event_at,
            fromUnixTimestamp64Milli(counted.last_event_ms, 'UTC') as last_event_at
        from counted
    )

select *
from engagement
