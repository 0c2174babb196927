{#- Bounds of the 95 % Wilson interval of successes out of trials (trials above 0). Mathematically they enclose the
    share and lie within 0 and 1; the clamps keep that true in floating point. -#}
{% macro wilson_low(successes, trials) -%}
    greatest(0., least({{ successes }} / {{ trials }}, {{ wilson_bound(successes, trials, "-") }}))
{%- endmacro %}

{% macro wilson_high(successes, trials) -%}
    least(1., greatest({{ successes }} / {{ trials }}, {{ wilson_bound(successes, trials, "+") }}))
{%- endmacro %}

{% macro wilson_bound(successes, trials, sign) -%}
    (
        {{ successes }} / {{ trials }} + 3.841458820694124 / (2 * {{ trials }})
        {{ sign }} 1.959963984540054 * sqrt(
            {{ successes }} * ({{ trials }} - {{ successes }}) / pow({{ trials }}, 3)
            + 3.841458820694124 / (4 * pow({{ trials }}, 2))
        )
    )
    / (1 + 3.841458820694124 / {{ trials }})
{%- endmacro %}
