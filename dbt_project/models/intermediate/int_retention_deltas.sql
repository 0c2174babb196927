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

    -- (kind, second, weight); a range costs two entries whatever its length.
    entries as (
        select
            video_id,
            day,
            arrayJoin(
                cast(
                    arrayConcat(
                        arrayMap(r -> (1, r.start, 1), watched_seconds),
                        arrayMap(r -> (1, r.stop, -1), watched_seconds),
                        arrayMap(e -> (2, e.at, e.weight), played_edges),
                        [
                            (3, started_second, 1),
                            (4, exit_second, 1),
                            (5, entered_second, 1),
                            (6, {{ ceil_div("furthest_ms", 1000) }} - 1, 1)
                        ]
                    ),
                    'Array(Tuple(kind UInt8, second UInt32, weight Int32))'
                )
            ) as entry
        from views
    ),

    summed as (
        select
            video_id,
            day,
            entry.kind as kind,
            entry.second as second,
            toInt32(sum(entry.weight)) as weight
        from entries
        group by video_id, day, kind, second
    ),

    -- As long as it needs to be: what is missing at the end is zero.
    arrays as (
        select
            video_id,
            day,
            {% for kind in retention_kinds() %}
                groupArrayInsertAtIf(weight, second, kind = {{ loop.index }}) as {{ kind }},
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
            {% for kind in retention_kinds() %} arrays.{{ kind }} as {{ kind }}, {% endfor %}
            stale.generation as generation
        from stale
        left join arrays on stale.video_id = arrays.video_id and stale.day = arrays.day
    )

select *
from deltas
