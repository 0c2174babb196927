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

{% set edge = var("dropoff_edge_buckets") %}

with
    stale as ({{ stale_videos(ref("int_retention_totals")) }}),

    totals as (
        select
            video_id,
            duration_ms,
            seconds,
            views,
            watching,
            plays,
            stopped,
            entered,
            furthest,
            least({{ var("dropoff_buckets") }}, seconds) as buckets,
            {{ completion_point("duration_ms") }} as completion_cs
        from {{ current(ref("int_retention_totals")) }}
        where video_id in (select video_id from stale) and views >= {{ var("moments_min_views") }}
    ),

    -- Bucket b is the seconds from bounds[b + 1] up to, not including, bounds[b + 2].
    bounded as (
        select
            *,
            arrayMap(b -> intDiv(b * seconds + buckets - 1, buckets), range(buckets + 1)) as bounds,
            arrayMap(
                (start, stop) -> (start + 1, toUInt64(stop - start)),
                arrayPopBack(bounds),
                arrayPopFront(bounds)
            ) as places
        from totals
    ),

    -- Who leaves at a second, or whose furthest position is in it, was there at that second.
    summed as (
        select
            *,
            arrayReduceInRanges('sum', places, stopped) as exits,
            arrayReduceInRanges('sum', places, entered) as entries,
            arrayReduceInRanges('sum', places, arrayCumSum(watching)) as watched_seconds,
            arrayReduceInRanges('sum', places, arrayCumSum(plays)) as played_seconds,
            arrayReduceInRanges(
                'sum',
                places,
                arrayMap(
                    (here, so_far) -> toInt64(views) - so_far + here,
                    furthest,
                    arrayCumSum(furthest)
                )
            ) as reached_seconds
        from bounded
    ),

    -- At risk anywhere in a bucket: came before its end, and did not leave before its start.
    buckets as (
        select
            video_id,
            seconds,
            views,
            bounds,
            exits,
            arrayMap(
                (entered_by, stopped_by, here) -> entered_by - stopped_by + here,
                arrayCumSum(entries),
                arrayCumSum(exits),
                exits
            ) as risks,
            watched_seconds,
            played_seconds,
            reached_seconds,
            toInt64({{ edge }}) as tested_from,
            greatest(
                tested_from,
                least(
                    toInt64(buckets) - {{ edge }},
                    arrayCount(stop -> stop * 100000 <= completion_cs, arrayPopFront(bounds))
                )
            ) as tested_to,
            intDiv(completion_cs, 100000) as completion_second
        from summed
    ),

    -- A video whose views are too few by now gets a row as well, which replaces what it had before.
    placed as (
        select
            stale.video_id as video_id, buckets.* except (video_id), stale.generation as generation
        from stale
        left join buckets on stale.video_id = buckets.video_id
    )

select *
from placed
