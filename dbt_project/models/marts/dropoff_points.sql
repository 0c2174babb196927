{{ config(materialized="view") }}

with
    videos as (select * from {{ current(ref("int_dropoffs")) }}),

    chapters as (select video_id, chapters from {{ ref("stg_videos") }}),

    points as (select video_id, views, point from videos array join dropoffs as point),

    dropoffs as (
        select
            points.video_id as video_id,
            point.start_second as start_second,
            point.end_second as end_second,
            multiIf(
                point.excess_points >= {{ var("dropoff_high_points") }},
                'high',
                point.excess_points >= {{ var("dropoff_medium_points") }},
                'medium',
                'low'
            ) as severity,
            point.views_lost as views_lost,
            point.expected_views_lost as expected_views_lost,
            point.excess_points as excess_points,
            point.at_risk as at_risk,
            point.views_lost / point.at_risk as hazard,
            point.baseline_hazard as baseline_hazard,
            point.p_value as p_value,
            point.q_value as q_value,
            {{ chapter_at("chapters.chapters", "point.start_second") }} as chapter,
            toBool(points.views < {{ var("tentative_below_views") }}) as tentative
        from points
        left join chapters on points.video_id = chapters.video_id
    )

select *
from dropoffs
