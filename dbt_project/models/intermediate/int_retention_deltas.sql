{{
    config(
        materialized="incremental",
        incremental_strategy="append",
        engine="ReplacingMergeTree(generation)",
        order_by=["video_id", "day"],
        on_schema_change="fail",
        settings={"index_granularity": 64},
        pre_hook="{{ begin_mark('int_retention_deltas', newest_generation('int_views')) }}",
        post_hook="{{ finish_mark('int_retention_deltas') }}",
    )
}}

{#- What weights are counted from where a number has no sign. -#}
{% set zero = 2147483648 %}

with
    stale as ({{ stale_days() }}),

    views as (
        select *
        from {{ current(ref("int_views")) }}
        where
            is_view
            {% if is_incremental() %}
                and (video_id, day) in (select video_id, day from stale)
            {% endif %}
    ),

    -- All entries of a day as one sorted array of numbers: the kind above the second above the
    -- weight. Sorting each day's is several times as fast as summing a table of all days' seconds.
    packed as (
        select
            video_id,
            day,
            arraySort(
                groupArrayArray(
                    arrayMap(
                        entry
                        -> bitShiftLeft(toUInt64(entry.kind), 60)
                        + bitShiftLeft(toUInt64(entry.second), 32)
                        + toUInt64(entry.weight + {{ zero }}),
                        {{ retention_entries() }}
                    )
                )
            ) as entries
        from views
        group by video_id, day
    ),

    -- The sum of what is at one place is how much the running sum grew since the place before.
    summed as (
        select
            video_id,
            day,
            arrayMap(entry -> bitShiftRight(entry, 32), entries) as places,
            arrayMap(
                (place, next) -> place != next, places, arrayPushBack(arrayPopFront(places), 0)
            ) as is_last,
            arrayFilter((place, last) -> last, places, is_last) as at,
            arrayFilter(
                (running, last) -> last,
                arrayCumSum(
                    arrayMap(entry -> toInt64(bitAnd(entry, 4294967295)) - {{ zero }}, entries)
                ),
                is_last
            ) as running_sums,
            arrayMap(
                (running, before) -> toInt32(running - before),
                running_sums,
                arrayPushFront(arrayPopBack(running_sums), 0)
            ) as weights
        from packed
    ),

    -- Only the seconds at which something changes.
    arrays as (
        select
            video_id,
            day,
            {% for kind in retention_kinds() %}
                arrayMap(
                    place -> toUInt32(bitAnd(place, 268435455)),
                    arrayFilter(
                        (place, weight) -> weight != 0
                        and bitShiftRight(place, 28) = {{ loop.index }},
                        at,
                        weights
                    )
                ) as {{ kind }}_at,
                arrayFilter(
                    (weight, place) -> weight != 0 and bitShiftRight(place, 28) = {{ loop.index }},
                    weights,
                    at
                ) as {{ kind }},
            {% endfor %}
            toUInt64(arraySum(started)) as views
        from summed
    ),

    -- A day whose sessions are all no views any more has none.
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
