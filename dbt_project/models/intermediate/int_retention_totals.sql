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

{% set chunk = 1024 %}

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

    -- (kind, second, weight) of all days. The weights of 0 make that no chunk is missing.
    entries as (
        select
            video_id,
            arrayJoin(
                arrayConcat(
                    {% for kind in retention_kinds() %}
                        arrayMap(
                            (second, weight) -> (toUInt8({{ loop.index0 }}), second, weight),
                            days.{{ kind }}_at,
                            days.{{ kind }}
                        )
                        {%- if not loop.last %},{% endif %}
                    {% endfor %}
                )
            ) as entry
        from days
        where video_id in (select video_id from stale)
        union all
        select
            video_id,
            (
                toUInt8(0),
                toUInt32(arrayJoin(range(0, toUInt32(seconds), {{ chunk }}))),
                toInt32(0)
            ) as entry
        from stale
    ),

    -- Summed straight into arrays, a chunk of the video at a time: as much memory as there are
    -- seconds. In an array the kinds follow each other, so that an entry is looked at once.
    chunks as (
        select
            video_id,
            intDiv(entry .2, {{ chunk }}) as chunk,
            sumResample(0, {{ chunk * retention_kinds() | length }}, 1)
            (entry .3, entry .1 * {{ chunk }} + entry .2 % {{ chunk }}) as sums
        from entries
        group by video_id, chunk
    ),

    gathered as (
        select video_id, arraySort(c -> c .1, groupArray((chunk, chunks.sums))) as chunks
        from chunks
        group by video_id
    ),

    summed as (
        select
            video_id,
            {% for kind in retention_kinds() %}
                arrayFlatten(
                    arrayMap(
                        c -> arraySlice(c .2, {{ loop.index0 * chunk + 1 }}, {{ chunk }}), chunks
                    )
                ) as {{ kind }}
                {%- if not loop.last %},{% endif %}
            {% endfor %}
        from gathered
    ),

    counted as (
        select video_id, sum(views) as views
        from days
        where video_id in (select video_id from stale)
        group by video_id
    ),

    totals as (
        select
            stale.video_id as video_id,
            stale.duration_ms as duration_ms,
            stale.seconds as seconds,
            counted.views as views,
            {% for kind in retention_kinds() %}
                arrayResize(summed.{{ kind }}, if(views > 0, seconds, 0)) as {{ kind }},
            {% endfor %}
            stale.generation as generation
        from stale
        inner join counted on stale.video_id = counted.video_id
        left join summed on stale.video_id = summed.video_id
    )

select *
from totals
