{#- The completion point of a video in hundredths of a millisecond: 30 s before the end or 95 %, whichever is later. -#}
{% macro completion_point(duration_ms) -%}
    greatest({{ duration_ms }} * 100 - 3000000, {{ duration_ms }} * 95)
{%- endmacro %}

{#- The chapter at an instant: the last that begins there or before; null without a title. -#}
{% macro chapter_at(chapters, second) -%}
    nullIf(arrayLast(c -> c.start_ms <= toInt64({{ second }}) * 1000, {{ chapters }}).title, '')
{%- endmacro %}

{#- Of the whole seconds from start up to, not including, stop: how many a view's ranges cover; how often its edges
    say they were played; how many are before the given one. -#}
{% macro seconds_watched(ranges, start, stop) -%}
    arraySum(
        r -> greatest(least(r.stop, {{ stop }}) - greatest(r.start, {{ start }}), 0), {{ ranges }}
    )
{%- endmacro %}

{% macro seconds_played(edges, start, stop) -%}
    arraySum(e -> e.weight * greatest({{ stop }} - greatest(e.at, {{ start }}), 0), {{ edges }})
{%- endmacro %}

{% macro seconds_before(second, start, stop) -%}
    greatest(least({{ second }}, {{ stop }}) - {{ start }}, 0)
{%- endmacro %}

{#- How far a stretch's ratio of excess to base is above that of the higher of its two sides. -#}
{% macro above_sides(left_excess, left_base, excess, base, right_excess, right_base) -%}
    {{ share_of(excess, base) }}
    - greatest({{ share_of(left_excess, left_base) }}, {{ share_of(right_excess, right_base) }})
{%- endmacro %}

{#- The ratio over buckets of the arrays excess and base, both counted from 1 and the last one in. -#}
{% macro share_in(first, last) -%}
    {%- set length = last ~ " - (" ~ first ~ ") + 1" -%}
    {{
        share_of(
            "arraySum(arraySlice(excess, " ~ first ~ ", " ~ length ~ "))",
            "arraySum(arraySlice(base, " ~ first ~ ", " ~ length ~ "))",
        )
    }}
{%- endmacro %}

{% macro share_of(part, whole) -%} if({{ whole }} > 0, {{ part }} / {{ whole }}, 0.) {%- endmacro %}

{#- A number from the Poisson distribution with mean 1, by its quantile at a hash of 64 bits. Seven and more come once
    in 12,000 times and count as seven. -#}
{% macro poisson(hash) -%}
    arrayCount(
        below -> {{ hash }} / 18446744073709551616. >= below,
        [
            0.36787944117144233,
            0.7357588823428847,
            0.9196986029286058,
            0.9810118431238462,
            0.9963401531726563,
            0.9994058151824183,
            0.9999167588507119
        ]
    )
{%- endmacro %}
