{{ config(materialized="view") }}

with
    segmented as ({{ segmented_views() }}),

    counted as (
        select
            video_id,
            segment .1 as dimension,
            segment .2 as value,
            any(segmented.duration_ms) as duration_ms,
            {{ engagement_counts("segmented") }}
        from segmented
        group by video_id, dimension, value
    ),

    engagement as (
        select
            video_id,
            toLowCardinality(dimension) as dimension,
            value,
            {{ engagement_figures("counted") }},
            counted.views
            / sum(counted.views) over (partition by video_id, dimension) as share_of_views,
            toBool(counted.views >= {{ var("sufficient_views") }}) as is_sufficient
        from counted
    )

select *
from engagement
