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

with
    stale as ({{ stale_videos(ref("int_moment_buckets")) }}),

    videos as ({{ of_stale(ref("int_moment_buckets")) }}),

    -- Both ratios are an excess over a base: plays beyond the first over watching, who skipped over
    -- who came so far. Where the base is nobody there is nothing in excess.
    ratios as (
        select
            video_id,
            kind,
            intDiv(length(exits) * {{ var("moment_skipped_percent") }} + 99, 100) as skipped,
            arraySlice(bounds, skipped + 1) as edges,
            arraySlice(if(kind = 'spike', watched_seconds, reached_seconds), skipped + 1) as base,
            arrayMap(
                (whole, b, w) -> if(kind = 'spike', whole - w, b - w),
                arraySlice(played_seconds, skipped + 1),
                base,
                arraySlice(watched_seconds, skipped + 1)
            ) as excess,
            arrayMap((e, b) -> {{ share_of("e", "b") }}, excess, base) as ratio
        from videos
        array join ['spike', 'dip'] as kind
    ),

    -- Only where it rises to a place from which it does not go on rising, and rises enough at all,
    -- can be a peak.
    noise as (
        select
            *,
            arrayReduce('quantileExactInclusive(0.5)', ratio) as middle,
            greatest(
                {{ var("moment_min_points") }} / 100,
                2
                * 1.48
                * arrayReduce('quantileExactInclusive(0.5)', arrayMap(r -> abs(r - middle), ratio))
            ) as threshold,
            arrayMin(ratio) + threshold as least_height,
            arrayFilter(
                (place, before, here, after) -> before < here
                and here >= after
                and here >= least_height,
                arrayEnumerate(ratio),
                arrayShiftRight(ratio, 1, inf),
                ratio,
                arrayShiftLeft(ratio, 1, inf)
            ) as places
        from ratios
        where notEmpty(ratio)
    ),

    -- The prominence is the height above the higher of the two lowest places on the sides, each as
    -- far as nothing is higher. Where a level stretch goes on rising it is 0.
    peaks as (
        select
            *,
            peak,
            ratio[peak] as height,
            arraySlice(ratio, 1, peak) as left_side,
            arraySlice(ratio, peak) as right_side,
            arrayLastIndex(r -> r > height, left_side) as higher_left,
            arrayFirstIndex(r -> r > height, right_side) as higher_right,
            height - greatest(
                arrayMin(arraySlice(left_side, higher_left + 1)),
                arrayMin(
                    if(higher_right > 0, arraySlice(right_side, 1, higher_right - 1), right_side)
                )
            ) as prominence
        from noise
        array join places as peak
        where prominence >= threshold
    ),

    -- The stretch in which the ratio stays above half the prominence, and its sides; buckets are
    -- counted from 1 and the last one is in.
    stretches as (
        select
            *,
            height - prominence / 2 as half,
            arrayLastIndex(r -> r <= half, left_side) + 1 as first_bucket,
            peak + arrayFirstIndex(r -> r <= half, right_side) - 2 as last_bucket,
            greatest(first_bucket - {{ var("moment_neighbours") }}, 1) as left_bucket,
            least(last_bucket + {{ var("moment_neighbours") }}, length(ratio)) as right_bucket
        from peaks
    ),

    measured as (
        select
            video_id,
            kind,
            toInt64(edges[first_bucket]) as start_second,
            toInt64(edges[last_bucket + 1]) as end_second,
            toInt64(edges[peak]) as peak_second,
            toInt64(edges[left_bucket]) as left_second,
            toInt64(edges[right_bucket + 1]) as right_second,
            prominence,
            threshold,
            {{ share_in("first_bucket", "last_bucket") }} as level,
            greatest(
                {{ share_in("left_bucket", "first_bucket - 1") }},
                {{ share_in("last_bucket + 1", "right_bucket") }}
            ) as baseline,
            last_bucket - first_bucket + 1 >= {{ var("moment_min_buckets") }}
            and end_second - start_second >= {{ var("moment_min_seconds") }}
            and level - baseline >= {{ var("moment_min_points") }} / 100 as stands_out
        from stretches
    ),

    -- Peaks of one height may share their stretch. Filtered after the window, because ClickHouse
    -- would take seconds to follow this condition of a where down to the table's key.
    candidates as (
        select * except (stands_out)
        from measured
        qualify
            row_number() over (
                partition by video_id, kind, start_second
                order by stands_out desc, prominence desc, peak_second
            )
            = 1
            and stands_out
    ),

    listed as (
        select
            video_id,
            arraySort(
                groupArray(
                    (
                        kind,
                        start_second,
                        end_second,
                        peak_second,
                        left_second,
                        right_second,
                        prominence,
                        threshold,
                        level,
                        baseline
                    )
                )
            ) as candidates
        from candidates
        group by video_id
    ),

    by_video as (
        select
            stale.video_id as video_id,
            cast(listed.candidates, {{ candidate_type() }}) as candidates,
            stale.generation as generation
        from stale
        left join listed on stale.video_id = listed.video_id
    )

select *
from by_video
