{{
    config(
        materialized="incremental",
        incremental_strategy="append",
        engine="ReplacingMergeTree(generation)",
        order_by=["video_id", "clock_day"],
        on_schema_change="fail",
        settings={"index_granularity": 64},
    )
}}

with
    -- Compared by what it was made of: whatever a crash left undone is still different in the
    -- next run.
    stale as (
        select video_id, clock_day, max(generation) as generation
        from {{ ref("int_concurrency") }}
        group by video_id, clock_day
        {% if is_incremental() %}
            having
                (video_id, clock_day, generation)
                not in (select video_id, clock_day, generation from {{ current(this) }})
        {% endif %}
    ),

    parts as (
        select *
        from {{ current(ref("int_concurrency")) }}
        {% if is_incremental() %}
            where (video_id, clock_day) in (select video_id, clock_day from stale)
        {% endif %}
    ),

    summed as (
        select
            video_id,
            clock_day,
            arraySort(e -> e.at, groupArrayArray(parts.edges)) as sorted_edges,
            {{ net_of_places("sorted_edges.at", "arrayCumSum(sorted_edges.weight)") }} as edges
        from parts
        group by video_id, clock_day
    ),

    -- Between two edges the number does not change; after the last it is zero.
    runs as (
        select
            video_id,
            clock_day,
            arrayFilter(
                r -> r.viewers > 0,
                cast(
                    arrayZip(edges.at, arrayShiftLeft(edges.at, 1, 0), arrayCumSum(edges.weight)),
                    'Array(Tuple(start Int64, stop Int64, viewers UInt64))'
                )
            ) as runs
        from summed
    ),

    days as (
        select
            stale.video_id as video_id,
            stale.clock_day as clock_day,
            runs.runs as runs,
            arrayMax(r -> r.viewers, runs) as peak_viewers,
            arraySum(r -> (r.stop - r.start) * r.viewers, runs) as viewer_ticks,
            stale.generation as generation
        from stale
        inner join runs on stale.video_id = runs.video_id and stale.clock_day = runs.clock_day
    )

select *
from days
