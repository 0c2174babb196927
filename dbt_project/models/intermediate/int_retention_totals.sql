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
    durations as (select * from {{ current(ref("int_video_durations")) }}),

    days as (select * from {{ current(ref("int_retention_deltas")) }}),

    -- Generations of all models come from one counter: the newest is that of the last change.
    newest as (select video_id, max(generation) as days_generation from days group by video_id),

    stale as (
        select
            newest.video_id as video_id,
            ifNull(durations.duration_ms, toInt64(0)) as duration_ms,
            {{ ceil_div("duration_ms", 1000) }} as seconds,
            greatest(newest.days_generation, durations.duration_generation) as generation
        from newest
        inner join durations on newest.video_id = durations.video_id
        {% if is_incremental() %}
            where
                (video_id, generation) not in (select video_id, generation from {{ current(this) }})
        {% endif %}
    ),

    -- Seconds in order with what changes there. One whose changes add up to nothing is left out,
    -- which
    -- is the same as a zero below.
    summed as (
        select
            video_id,
            {% for kind in retention_kinds() %}
                sumMap(days.{{ kind }}_at, days.{{ kind }}) as {{ kind }},
            {% endfor %}
            sum(days.views) as views
        from days
        where video_id in (select video_id from stale)
        group by video_id
    ),

    totals as (
        select
            stale.video_id as video_id,
            stale.duration_ms as duration_ms,
            stale.seconds as seconds,
            summed.views as views,
            range(toUInt32(if(summed.views > 0, stale.seconds, 0))) as every_second,
            {% for kind in retention_kinds() %}
                arrayMap(
                    s -> toInt64(
                        arrayElement(
                            summed.{{ kind }}.2, indexOfAssumeSorted(summed.{{ kind }}.1, s)
                        )
                    ),
                    every_second
                ) as {{ kind }},
            {% endfor %}
            stale.generation as generation
        from stale
        inner join summed on stale.video_id = summed.video_id
    )

select * except (every_second)
from totals
