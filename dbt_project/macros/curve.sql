{#- What one view adds to the curves of its video: (kind, second, weight), the kind by its place in retention_kinds. A
    range of seconds costs two entries whatever its length. -#}
{% macro retention_entries() -%}
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
{%- endmacro %}

{#- The counts that a curve is made of (METRICS 3), each an array with a number a second. -#}
{% macro curve_kinds() -%}
    {{
        return(
            [
                "watching_views",
                "segment_plays",
                "started_watching",
                "stopped_watching",
                "at_risk",
                "reached_views",
            ]
        )
    }}
{%- endmacro %}

{#- The arrays of curve_kinds of each curve, from one row a curve with views and the arrays of retention_kinds, each as
    long as the curve. keys: columns that name the curve. Who leaves at a second, or whose furthest position is in it,
    was there at that second. -#}
{% macro curve_counts(totals, keys) -%}
    select
        {% for key in keys %} {{ key }}, {% endfor %}
        views,
        cast(arrayCumSum(watching), 'Array(UInt64)') as watching_views,
        cast(arrayCumSum(plays), 'Array(UInt64)') as segment_plays,
        cast(started, 'Array(UInt64)') as started_watching,
        cast(stopped, 'Array(UInt64)') as stopped_watching,
        arrayMap(
            (came, left, now) -> toUInt64(came - left + now),
            arrayCumSum(entered),
            arrayCumSum(stopped),
            stopped
        ) as at_risk,
        arrayMap(
            (short, now) -> toUInt64(views - short + now), arrayCumSum(furthest), furthest
        ) as reached_views
    from {{ totals }}
{%- endmacro %}

{#- A row a second of each curve, with the columns of METRICS 3, from the rows of curve_counts. also: further arrays,
    which become columns of the same name. -#}
{% macro curve_rows(counts, keys, also=[]) -%}
    select
        {% for key in keys %} {{ key }}, {% endfor %}
        second,
        views,
        watching_views,
        segment_plays,
        watching_views / views as retention_rate,
        segment_plays / views as audience_watch_ratio,
        reached_views / views as reach_ratio,
        if(watching_views > 0, segment_plays / watching_views - 1, null) as rewatch_ratio,
        if(reached_views > 0, 1 - watching_views / reached_views, null) as skip_rate,
        started_watching,
        stopped_watching,
        at_risk,
        if(at_risk > 0, stopped_watching / at_risk, null) as exit_hazard,
        {{ wilson_low("watching_views", "views") }} as ci_low,
        {{ wilson_high("watching_views", "views") }} as ci_high
        {%- for column in also %}, {{ column }}{% endfor %}
    from {{ counts }}
    array join
        range(toUInt32(length(watching_views))) as second, {{ (curve_kinds() + also) | join(", ") }}
{%- endmacro %}
