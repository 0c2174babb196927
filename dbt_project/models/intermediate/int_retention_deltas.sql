{{
    config(
        materialized="incremental",
        incremental_strategy="append",
        engine="ReplacingMergeTree",
        order_by="video_id",
        on_schema_change="fail",
    )
}}

{% set kinds = ["watching", "plays", "started", "stopped", "entered", "furthest"] %}

with
    views as (select * from {{ current(ref("int_views")) }}),

    -- Compared by content, not by time: whatever a crash left undone is still different in the
    -- next run.
    stale as (
        select
            video_id,
            any(duration_ms) as duration_ms,
            {{ ceil_div("duration_ms", 1000) }} as seconds,
            countIf(is_view) as views,
            cityHash64(groupBitXor(fingerprint), count()) as video_fingerprint
        from views
        group by video_id
        {% if is_incremental() %}
            having
                (video_id, video_fingerprint)
                not in (select video_id, fingerprint from {{ current(this) }})
        {% endif %}
    ),

    -- (kind, second, weight); a range costs two entries whatever its length.
    entries as (
        select
            video_id,
            arrayJoin(
                cast(
                    arrayConcat(
                        arrayMap(r -> (1, r.start, 1), watched_seconds),
                        arrayMap(r -> (1, r.stop, -1), watched_seconds),
                        arrayMap(r -> (2, r.start, 1), played_seconds),
                        arrayMap(r -> (2, r.stop, -1), played_seconds),
                        [
                            (3, started_second, 1),
                            (4, exit_second, 1),
                            (5, entered_second, 1),
                            (6, {{ ceil_div("furthest_ms", 1000) }} - 1, 1)
                        ]
                    ),
                    'Array(Tuple(kind UInt8, second Int64, weight Int8))'
                )
            ) as entry
        from views
        where is_view and video_id in (select video_id from stale)
    ),

    summed as (
        select video_id, entry.kind as kind, entry.second as second, sum(entry.weight) as weight
        from entries
        group by video_id, kind, second
    ),

    -- Dense from here on, so that a second in which nothing happens is a zero and not an absence.
    arrays as (
        select
            video_id
            {% for kind in kinds %}
                ,
                groupArrayInsertAtIf(
                    weight, toUInt32(second), kind = {{ loop.index }}
                ) as {{ kind }}
            {% endfor %}
        from summed
        group by video_id
    ),

    deltas as (
        select
            stale.video_id as video_id,
            stale.duration_ms as duration_ms,
            stale.seconds as seconds,
            stale.views as views,
            {% for kind in kinds %}
                arrayResize(arrays.{{ kind }}, if(views > 0, seconds, 0)) as {{ kind }},
            {% endfor %}
            stale.video_fingerprint as fingerprint
        from stale
        left join arrays on stale.video_id = arrays.video_id
    )

select *
from deltas
