{#- The union of half-open ranges without window functions, in steps a query names as columns.
    ranges: start and stop of each item i in whole units, rounded up: the instants of the grid it covers; without
    those that cover none.
    range_edges: every start and stop as one number, twice its place and one more for a stop, sorted: many times as
    fast as pairs are. Ranges that touch become one, since a start is less than a stop at its place.
    edge_places, edge_depths: the place of each edge, and how many ranges are open after it.
    runs_of_edges: the ranges between which the running sum is zero.
    net_of_edges: what the edges at one place sum to, without the places where that is nothing: however many ranges
    follow on each other, only where the first starts and the last stops is left.
    net_of_places: the same of other edges, by their places, sorted, and the running sums of what they weigh. -#}
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
        arrayConcat(
            arrayMap(r -> r.start * 2, {{ ranges }}), arrayMap(r -> r.stop * 2 + 1, {{ ranges }})
        )
    )
{%- endmacro %}

{% macro edge_places(edges) -%} arrayMap(e -> bitShiftRight(e, 1), {{ edges }}) {%- endmacro %}

{% macro edge_depths(edges) -%} arrayCumSum(e -> 1 - 2 * bitAnd(e, 1), {{ edges }}) {%- endmacro %}

{% macro runs_of_edges(edges) -%}
    cast(
        arrayZip(
            {{ edge_places(_edges_at(edges, "depth = 1 and bitAnd(e, 1) = 0")) }},
            {{ edge_places(_edges_at(edges, "depth = 0")) }}
        ),
        {{ range_type() }}
    )
{%- endmacro %}

{% macro _edges_at(edges, condition) -%}
    arrayFilter((e, depth) -> {{ condition }}, {{ edges }}, {{ edge_depths(edges) }})
{%- endmacro %}

{% macro net_of_edges(edges) -%}
    {{ net_of_places(edge_places(edges), edge_depths(edges)) }}
{%- endmacro %}

{% macro net_of_places(places, sums) -%}
    arrayFilter(
        e -> e.weight != 0,
        cast(
            arrayZip(
                {{ _last_of_place(places, places) }},
                arrayPopFront(
                    arrayDifference(arrayPushFront({{ _last_of_place(sums, places) }}, 0))
                )
            ),
            {{ edge_type() }}
        )
    )
{%- endmacro %}

{% macro edge_type() -%} 'Array(Tuple(at Int64, weight Int32))' {%- endmacro %}

{#- The values at the last edge of each place, of edges sorted by place. -#}
{% macro _last_of_place(values, places) -%}
    arrayFilter(
        (value, place, next) -> place != next,
        {{ values }},
        {{ places }},
        arrayShiftLeft({{ places }}, 1, -1)
    )
{%- endmacro %}

{#- Integer ceiling of a quotient of numbers that are not negative. -#}
{% macro ceil_div(dividend, divisor) -%}
    intDiv({{ dividend }} + {{ divisor - 1 }}, {{ divisor }})
{%- endmacro %}
