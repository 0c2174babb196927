{{ config(materialized="parameterized_view") }}

with
    views as ({{ chosen_views() }}),

    entries as (select duration_ms, arrayJoin({{ retention_entries() }}) as entry from views),

    summed as (
        select
            entry.kind as kind,
            entry.second as second,
            toInt32(sum(entry.weight)) as weight,
            max(entries.duration_ms) as duration_ms
        from entries
        group by kind, second
    ),

    totals as (
        select
            {{ ceil_div("max(summed.duration_ms)", 1000) }} as seconds,
            toUInt64(sumIf(weight, kind = 3)) as views,
            {% for kind in retention_kinds() %}
                arrayResize(
                    groupArrayInsertAtIf(weight, second, kind = {{ loop.index }}), seconds
                ) as {{ kind }}
                {% if not loop.last %},{% endif %}
            {% endfor %}
        from summed
        having views > 0
    ),

    counts as ({{ curve_counts("totals", []) }}),

    curve as ({{ curve_rows("counts", []) }})

select *
from curve
