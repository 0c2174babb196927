{{ config(materialized="view") }}

with
    segmented as ({{ segmented_views() }}),

    entries as (
        select
            video_id,
            segment .1 as dimension,
            segment .2 as value,
            duration_ms,
            arrayJoin({{ retention_entries() }}) as entry
        from segmented
    ),

    summed as (
        select
            video_id,
            dimension,
            value,
            entry.kind as kind,
            entry.second as second,
            toInt32(sum(entry.weight)) as weight,
            any(entries.duration_ms) as duration_ms
        from entries
        group by video_id, dimension, value, kind, second
    ),

    totals as (
        select
            video_id,
            dimension,
            value,
            {{ ceil_div("any(summed.duration_ms)", 1000) }} as seconds,
            toUInt64(sumIf(weight, kind = 3)) as views,
            {% for kind in retention_kinds() %}
                arrayResize(
                    groupArrayInsertAtIf(weight, second, kind = {{ loop.index }}), seconds
                ) as {{ kind }}
                {% if not loop.last %},{% endif %}
            {% endfor %}
        from summed
        group by video_id, dimension, value
    ),

    counts as ({{ curve_counts("totals", ["video_id", "dimension", "value"]) }}),

    curve as ({{ curve_rows("counts", ["video_id", "dimension", "value"]) }})

select curve.* replace (toLowCardinality(dimension) as dimension)
from curve
