{#- Bounds of the 95 % Wilson interval of successes out of trials (trials above 0), within 0 and 1. -#}
{% macro wilson_bound(successes, trials, sign) -%}
    least(
        greatest(
            (
                {{ successes }} / {{ trials }} + 3.841458820694124 / (2 * {{ trials }})
                {{ sign }} 1.959963984540054 * sqrt(
                    {{ successes }} * ({{ trials }} - {{ successes }}) / pow({{ trials }}, 3)
                    + 3.841458820694124 / (4 * pow({{ trials }}, 2))
                )
            )
            / (1 + 3.841458820694124 / {{ trials }}),
            0.
        ),
        1.
    )
{%- endmacro %}
