{{ config(engine="MergeTree", order_by=["video_id", "start_second"]) }}

{% set edge = var("dropoff_edge_buckets") %}
{% set neighbours = var("dropoff_neighbours") %}

with
    deltas as (
        select *, least({{ var("dropoff_buckets") }}, seconds) as buckets
        from {{ current(ref("int_retention_totals")) }}
        where views >= {{ var("moments_min_views") }}
    ),

    chapters as (select video_id, chapters from {{ ref("stg_videos") }}),

    -- Bucket b is the seconds from bounds[b + 1] up to, not including, bounds[b + 2].
    bounded as (
        select
            *,
            arrayMap(b -> intDiv(b * seconds + buckets - 1, buckets), range(buckets + 1)) as bounds
        from deltas
    ),

    -- At risk anywhere in a bucket: came before its end, and did not leave before its start.
    bucketed as (
        select
            video_id,
            views,
            duration_ms,
            buckets,
            bounds,
            arrayConcat([0], arrayCumSum(entered)) as entered_before,
            arrayConcat([0], arrayCumSum(stopped)) as stopped_before,
            arrayMap(
                b -> stopped_before[bounds[b + 2] + 1] - stopped_before[bounds[b + 1] + 1],
                range(buckets)
            ) as exits,
            arrayMap(
                b -> entered_before[bounds[b + 2] + 1] - stopped_before[bounds[b + 1] + 1],
                range(buckets)
            ) as risks
        from bounded
    ),

    tested as (
        select
            video_id,
            views,
            exits,
            risks,
            arrayJoin(
                arrayFilter(
                    b -> b >= {{ edge }}
                    and b < toInt64(buckets) - {{ edge }}
                    and bounds[b + 2] * 100000
                    <= greatest(duration_ms * 100 - 3000000, duration_ms * 95),
                    range(buckets)
                )
            ) as bucket,
            bounds[bucket + 1] as start_second,
            bounds[bucket + 2] as end_second,
            exits[bucket + 1] as lost,
            risks[bucket + 1] as at_risk,
            arrayFilter(
                b -> b != bucket
                and b >= toInt64(bucket) - {{ neighbours }}
                and b <= bucket + {{ neighbours }},
                range(buckets)
            ) as around,
            -- the worst neighbour is left out: a second true drop close by must not hide this one
            arraySort(b -> (- if(risks[b + 1] > 0, exits[b + 1] / risks[b + 1], 0), b), around)[
                1
            ] as worst,
            arraySum(b -> if(b = worst, 0, exits[b + 1]), around) as baseline_lost,
            arraySum(b -> if(b = worst, 0, risks[b + 1]), around) as baseline_at_risk,
            (baseline_lost + 0.5) / (baseline_at_risk + 1) as baseline_hazard
        from bucketed
    ),

    -- Not above expectation means p far above any threshold: such buckets count as tested, with p
    -- = 1.
    judged as (
        select
            video_id,
            views,
            start_second,
            end_second,
            lost,
            at_risk,
            baseline_hazard,
            at_risk * baseline_hazard as expected,
            if(
                lost > at_risk * baseline_hazard,
                {{
                    betabinom_tail(
                        "lost",
                        "at_risk",
                        "(baseline_lost + 0.5)",
                        "(baseline_at_risk - baseline_lost + 0.5)",
                    )
                }},
                1.
            ) as p_value
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
            corrected.video_id as video_id,
            toUInt32(corrected.start_second) as start_second,
            toUInt32(corrected.end_second) as end_second,
            multiIf(
                excess_points >= {{ var("dropoff_high_points") }},
                'high',
                excess_points >= {{ var("dropoff_medium_points") }},
                'medium',
                'low'
            ) as severity,
            toUInt64(lost) as views_lost,
            expected as expected_views_lost,
            excess_points,
            toUInt64(corrected.at_risk) as at_risk,
            lost / corrected.at_risk as hazard,
            baseline_hazard,
            p_value,
            q_value,
            nullIf(
                arrayLast(
                    c -> c.start_ms <= corrected.start_second * 1000, chapters.chapters
                ).title,
                ''
            ) as chapter,
            toBool(views < {{ var("tentative_below_views") }}) as tentative
        from corrected
        left join chapters on corrected.video_id = chapters.video_id
        where
            q_value <= {{ var("dropoff_max_q") }}
            and corrected.at_risk >= {{ var("dropoff_min_at_risk") }}
            and excess_points >= {{ var("dropoff_min_excess_points") }}
    )

select *
from found
