{{
    config(
        materialized="incremental",
        incremental_strategy="append",
        engine="ReplacingMergeTree(generation)",
        order_by=["video_id", "day"],
        on_schema_change="fail",
        settings={"index_granularity": 64},
    )
}}

with
    -- Compared by what it was made of, not by time: whatever a crash left undone is still different
    -- in the next run. Rows that final would hide say that the day was touched all the same.
    stale as (
        select video_id, day, max(generation) as generation
        from {{ ref("int_views") }}
        group by video_id, day
        {% if is_incremental() %}
            having
                (video_id, day, generation)
                not in (select video_id, day, generation from {{ current(this) }})
        {% endif %}
    ),

    views as (
        select *
        from {{ current(ref("int_views")) }}
        where (video_id, day) in (select video_id, day from stale) and is_view
    ),

    -- A day of a video goes by a hash of 128 bits: sums are found faster by a number than by a
    -- text.
    entries as (
        select
            reinterpretAsUInt128(sipHash128(video_id, day)) as place,
            arrayJoin({{ retention_entries() }}) as entry
        from views
    ),

    summed as (
        select
            place, entry.kind as kind, entry.second as second, toInt32(sum(entry.weight)) as weight
        from entries
        group by place, kind, second
        having weight != 0
    ),

    -- Only the seconds at which something changes, in any order; arrays of numbers grow cheaply.
    arrays as (
        select
            place,
            {% for kind in retention_kinds() %}
                groupArrayIf(second, kind = {{ loop.index }}) as {{ kind }}_at,
                groupArrayIf(weight, kind = {{ loop.index }}) as {{ kind }},
            {% endfor %}
            toUInt64(sumIf(weight, kind = 3)) as views
        from summed
        group by place
    ),

    deltas as (
        select
            stale.video_id as video_id,
            stale.day as day,
            arrays.views as views,
            {% for kind in retention_kinds() %}
                arrays.{{ kind }}_at as {{ kind }}_at, arrays.{{ kind }} as {{ kind }},
            {% endfor %}
            stale.generation as generation
        from stale
        left join
            arrays on reinterpretAsUInt128(sipHash128(stale.video_id, stale.day)) = arrays.place
    )

select *
from deltas
