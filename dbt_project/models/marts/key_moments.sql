{{ config(materialized="view") }}

with
    videos as (select * from {{ current(ref("int_key_moments")) }}),

    chapters as (select video_id, chapters from {{ ref("stg_videos") }}),

    moments as (select video_id, views, moment from videos array join moments as moment),

    key_moments as (
        select
            moments.video_id as video_id,
            if(
                moment.kind in ('intro', 'outro'),
                moment.kind,
                concat(moment.kind, '-', toString(moment.start_second))
            ) as moment_id,
            moment.kind as kind,
            moment.start_second as start_second,
            moment.end_second as end_second,
            moment.peak_second as peak_second,
            moment.magnitude as magnitude,
            moment.magnitude_low as magnitude_low,
            moment.magnitude_high as magnitude_high,
            moment.level as level,
            moment.baseline as baseline,
            moment.prominence as prominence,
            moment.confidence as confidence,
            moments.views as views,
            moment.at_risk as at_risk,
            moment.views_lost as views_lost,
            moment.retention_rate as retention_rate,
            {{ chapter_at("chapters.chapters", "ifNull(moment.peak_second, moment.start_second)") }}
            as chapter,
            toBool(moments.views < {{ var("tentative_below_views") }}) as tentative
        from moments
        left join chapters on moments.video_id = chapters.video_id
    )

select *
from key_moments
