-- Every video with views has one row a second and loses each view once; the others have no curve.
-- Dagster shows it as a check of the curve; a test of several models has to say whose it is.
{{ config(meta={"dagster": {"ref": {"name": "retention_curve"}}}) }}

with
    curves as (
        select
            video_id,
            count() as seconds,
            max(second) + 1 as beyond,
            sum(stopped_watching) as stopped,
            sum(started_watching) as started
        from {{ ref("retention_curve") }}
        group by video_id
    ),

    summaries as (
        select summary.video_id as video_id, views, ifNull(duration_ms, 0) as duration_ms
        from {{ ref("engagement_summary") }} as summary
        inner join {{ ref("videos") }} as videos on summary.video_id = videos.video_id
    )

select *
from summaries
full outer join curves on summaries.video_id = curves.video_id
where
    summaries.video_id = ''
    or stopped != views
    or started != views
    or seconds != beyond
    or seconds != if(views > 0, intDiv(duration_ms + 999, 1000), 0)
