{#- The union of half-open ranges without window functions, in steps a query names as columns.
    ranges: start and stop of each item i in whole units, rounded up: the instants of the grid it covers; without
    those that cover none.
    range_edges: every start as +1 and stop as -1, sorted so that ranges that touch become one.
    runs_of_edges: the ranges between which the running sum is zero.
    net_of_edges: what the edges at one place sum to, without the places where that is nothing: however many ranges
    follow on each other, only where the first starts and the last stops is left. -#}
{% macro range_type() -%} 'Array(Tuple(start Int64, stop Int64))' {%- endmacro %}

{% macro ranges(items, start, stop, unit) -%}
    arrayFilter(
        r -> r.start < r.stop,
        cast(
            arrayMap(i -> ({{ ceil_div(start, unit) }}, {{ ceil_div(stop, unit) }}), {{ items }}),
            {{ range_type() }}
        )
    )
{%- endmacro %}

{% macro range_edges(ranges) -%}
    arraySort(
        e -> (e.at, - e.weight),
        cast(
            arrayConcat(
                arrayMap(r -> (r.start, 1), {{ ranges }}), arrayMap(r -> (r.stop, -1), {{ ranges }})
            ),
            'Array(Tuple(at Int64, weight Int8))'
        )
    )
{%- endmacro %}

{% macro runs_of_edges(edges) -%}
    cast(
        arrayZip(
            arrayFilter(
                (at, weight, depth) -> weight = 1 and depth = 1,
                {{ edges }}.at,
                {{ edges }}.weight,
                arrayCumSum({{ edges }}.weight)
            ),
            arrayFilter(
                (at, weight, depth) -> weight = -1 and depth = 0,
                {{ edges }}.at,
                {{ edges }}.weight,
                arrayCumSum({{ edges }}.weight)
            )
        ),
        {{ range_type() }}
    )
{%- endmacro %}

{% macro net_of_edges(edges) -%}
    arrayFilter(
        e -> e.weight != 0,
        cast(
            arrayZip(
                {{ _last_of_place(edges ~ ".at", edges) }},
                arrayPopFront(
                    arrayDifference(
                        arrayPushFront(
                            {{ _last_of_place("arrayCumSum(" ~ edges ~ ".weight)", edges) }}, 0
                        )
                    )
                )
            ),
            {{ edge_type() }}
        )
    )
{%- endmacro %}

{% macro edge_type() -%} 'Array(Tuple(at Int64, weight Int32))' {%- endmacro %}

{#- The values at the last edge of each place, of edges sorted by place. -#}
{% macro _last_of_place(values, edges) -%}
    arrayFilter(
        (value, at, next) -> at != next,
        {{ values }},
        {{ edges }}.at,
        arrayShiftLeft({{ edges }}.at, 1, -1)
    )
{%- endmacro %}

{#- Integer ceiling of a quotient of numbers that are not negative. -#}
{% macro ceil_div(dividend, divisor) -%}
    intDiv({{ dividend }} + {{ divisor - 1 }}, {{ divisor }})
{%- endmacro %}
