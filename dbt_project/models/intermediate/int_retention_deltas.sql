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

    entries as (select video_id, day, arrayJoin({{ retention_entries() }}) as entry from views),

    summed as (
        select
            video_id,
            day,
            entry.kind as kind,
            entry.second as second,
            toInt32(sum(entry.weight)) as weight
        from entries
        group by video_id, day, kind, second
        having weight != 0
    ),

    -- Only the seconds at which something changes, in any order; arrays of numbers grow cheaply.
    arrays as (
        select
            video_id,
            day,
            {% for kind in retention_kinds() %}
                groupArrayIf(second, kind = {{ loop.index }}) as {{ kind }}_at,
                groupArrayIf(weight, kind = {{ loop.index }}) as {{ kind }},
            {% endfor %}
            toUInt64(sumIf(weight, kind = 3)) as views
        from summed
        group by video_id, day
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
        left join arrays on stale.video_id = arrays.video_id and stale.day = arrays.day
    )

select *
from deltas
