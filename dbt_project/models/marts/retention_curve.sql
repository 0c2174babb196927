{{ config(materialized="view") }}

with
    deltas as (select * from {{ current(ref("int_retention_totals")) }} where views > 0),

    -- Ranks are made after the curves: what they do not know yet is null.
    ranked as (
        select deltas.*, arrayResize(ranks.relative, seconds, null) as relative
        from deltas
        left join {{ ref("int_relative_performance") }} as ranks on deltas.video_id = ranks.video_id
    ),

    -- Who leaves at a second, or whose furthest position is in it, was there at that second.
    counts as (
        select
            video_id,
            toUInt32(instant) as second,
            toUInt64(views) as views,
            toUInt64(watching_now) as watching_views,
            toUInt64(plays_now) as segment_plays,
            toUInt64(started_now) as started_watching,
            toUInt64(stopped_now) as stopped_watching,
            toUInt64(entered_by_now - stopped_by_now + stopped_now) as at_risk,
            toUInt64(ranked.views - furthest_by_now + furthest_now) as reached_views,
            relative_now as relative_retention_performance
        from ranked
        array join
            range(seconds) as instant,
            arrayCumSum(watching) as watching_now,
            arrayCumSum(plays) as plays_now,
            started as started_now,
            stopped as stopped_now,
            arrayCumSum(entered) as entered_by_now,
            arrayCumSum(stopped) as stopped_by_now,
            furthest as furthest_now,
            arrayCumSum(furthest) as furthest_by_now,
            relative as relative_now
    ),

    curve as (
        select
            video_id,
            second,
            views,
            watching_views,
            segment_plays,
            watching_views / views as retention_rate,
            segment_plays / views as audience_watch_ratio,
            reached_views / views as reach_ratio,
            if(watching_views > 0, segment_plays / watching_views - 1, null) as rewatch_ratio,
            if(reached_views > 0, 1 - watching_views / reached_views, null) as skip_rate,
            started_watching,
            stopped_watching,
            at_risk,
            if(at_risk > 0, stopped_watching / at_risk, null) as exit_hazard,
            {{ wilson_low("watching_views", "views") }} as ci_low,
            {{ wilson_high("watching_views", "views") }} as ci_high,
            relative_retention_performance
        from counts
    )

select *
from curve
