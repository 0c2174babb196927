{{
    config(
        materialized="incremental",
        incremental_strategy="append",
        engine="ReplacingMergeTree(generation)",
        order_by="video_id",
        on_schema_change="fail",
        settings={"index_granularity": 8},
    )
}}

{% set neighbours = var("dropoff_neighbours") %}

with
    stale as ({{ stale_videos(ref("int_moment_buckets")) }}),

    videos as ({{ of_stale(ref("int_moment_buckets")) }}),

    buckets as (
        select
            video_id,
            views,
            bucket,
            bucket between tested_from and tested_to - 1 as is_tested,
            start_second,
            end_second,
            lost,
            at_risk
        from videos
        array join
            range(length(exits)) as bucket,
            arrayPopBack(bounds) as start_second,
            arrayPopFront(bounds) as end_second,
            exits as lost,
            risks as at_risk
    ),

    with_neighbours as (
        select
            *,
            groupArray((bucket, lost, at_risk)) over (
                partition by video_id
                order by
                    bucket rows between {{ neighbours }} preceding and {{ neighbours }} following
            ) as
        window
        from buckets
    ),

    -- The worst neighbour is left out: a second true drop close by must not hide this one.
    tested as (
        select
            video_id,
            views,
            start_second,
            end_second,
            lost,
            at_risk,
            arrayPopFront(
                arraySort(
                    n -> (- if(n .3 > 0, n .2 / n .3, 0), n .1),
                    arrayFilter(n -> n .1 != bucket, window)
                )
            ) as baseline,
            toFloat64(arraySum(baseline .2)) as baseline_lost,
            toFloat64(arraySum(baseline .3)) as baseline_at_risk,
            baseline_lost + 0.5 as a,
            baseline_at_risk - baseline_lost + 0.5 as b,
            a / (baseline_at_risk + 1) as baseline_hazard,
            at_risk * baseline_hazard as expected
        from with_neighbours
        where is_tested
    ),

    -- Not above expectation means p far above any threshold: such buckets count as tested, with p
    -- = 1.
    judged as (
        select
            *, if(lost > expected, {{ betabinom_tail("lost", "at_risk", "a", "b") }}, 1.) as p_value
        from tested
    ),

    -- Benjamini-Hochberg within the video: the least p * tested / rank of all that are not smaller.
    ranked as (
        select
            *,
            100 * (lost - expected) / views as excess_points,
            row_number() over (partition by video_id order by p_value) as p_rank,
            p_value * count() over (partition by video_id) / p_rank as scaled
        from judged
    ),

    corrected as (
        select
            *,
            least(
                1.,
                min(scaled) over (
                    partition by video_id
                    order by p_rank desc
                    rows between unbounded preceding and current row
                )
            ) as q_value
        from ranked
    ),

    found as (
        select
            video_id,
            arraySort(
                groupArray(
                    (
                        toUInt32(start_second),
                        toUInt32(end_second),
                        toUInt64(lost),
                        toUInt64(at_risk),
                        expected,
                        excess_points,
                        baseline_hazard,
                        p_value,
                        q_value
                    )
                )
            ) as dropoffs
        from corrected
        where
            q_value <= {{ var("dropoff_max_q") }}
            and at_risk >= {{ var("dropoff_min_at_risk") }}
            and excess_points >= {{ var("dropoff_min_excess_points") }}
        group by video_id
    ),

    by_video as (
        select
            stale.video_id as video_id,
            videos.views as views,
            cast(found.dropoffs, {{ dropoff_type() }}) as dropoffs,
            stale.generation as generation
        from stale
        inner join videos on stale.video_id = videos.video_id
        left join found on stale.video_id = found.video_id
    )

select *
from by_video
