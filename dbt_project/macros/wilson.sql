{#- Bounds of the 95 % Wilson interval of successes out of trials (trials above 0). Mathematically they enclose the
    share and lie within 0 and 1; the clamps keep that true in floating point. -#}
{% macro wilson_low(successes, trials) -%}
    greatest(0., least({{ successes }} / {{ trials }}, {{ wilson_bound(successes, trials, "-") }}))
{%- endmacro %}

{% macro wilson_high(successes, trials) -%}
    least(1., greatest({{ successes }} / {{ trials }}, {{ wilson_bound(successes, trials, "+") }}))
{%- endmacro %}

{#- Wilson's formula with numerator and denominator times the trials: fewer terms to plan and compute. -#}
{% macro wilson_bound(successes, trials, sign) -%}
    (
        {{ successes }} + 1.920729410347062
        {{ sign }} 1.959963984540054
        * sqrt({{ successes }} * (1 - {{ successes }} / {{ trials }}) + 0.960364705173531)
    )
    / ({{ trials }} + 3.841458820694124)
{%- endmacro %}
