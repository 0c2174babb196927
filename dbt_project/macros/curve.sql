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

{#- A row a second of each curve, with its counts, from one row a curve with views, seconds and the arrays of
    retention_kinds, each as long as the curve. keys: columns that name the curve. also: name to array, further
    columns. Who leaves at a second, or whose furthest position is in it, was there at that second. -#}
{% macro curve_counts(totals, keys, also={}) -%}
    select
        {% for key in keys %} {{ key }}, {% endfor %}
        toUInt32(instant) as second,
        toUInt64(views) as views,
        toUInt64(watching_now) as watching_views,
        toUInt64(plays_now) as segment_plays,
        toUInt64(started_now) as started_watching,
        toUInt64(stopped_now) as stopped_watching,
        toUInt64(entered_by_now - stopped_by_now + stopped_now) as at_risk,
        {% for name in also %} {{ name }}_now as {{ name }}, {% endfor %}
        toUInt64({{ totals }}.views - furthest_by_now + furthest_now) as reached_views
    from {{ totals }}
    array join
        range(seconds) as instant,
        arrayCumSum(watching) as watching_now,
        arrayCumSum(plays) as plays_now,
        started as started_now,
        stopped as stopped_now,
        arrayCumSum(entered) as entered_by_now,
        arrayCumSum(stopped) as stopped_by_now,
        furthest as furthest_now,
        {% for name, array in also.items() %} {{ array }} as {{ name }}_now, {% endfor %}
        arrayCumSum(furthest) as furthest_by_now
{%- endmacro %}

{#- The columns of a curve (METRICS 3) of the rows of curve_counts. -#}
{% macro curve_figures() -%}
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
{%- endmacro %}
