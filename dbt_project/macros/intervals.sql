{#- The union of half-open ranges without window functions, in steps a query names as columns.
    ranges: start and stop of each item i in whole units, rounded up: the instants of the grid it covers; without
    those that cover none.
    range_edges: every start as +1 and stop as -1, sorted so that ranges that touch become one.
    runs_of_edges: the ranges between which the running sum is zero. -#}
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

{#- Integer ceiling of a quotient of numbers that are not negative. -#}
{% macro ceil_div(dividend, divisor) -%}
    intDiv({{ dividend }} + {{ divisor - 1 }}, {{ divisor }})
{%- endmacro %}
