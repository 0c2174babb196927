{#- P(X >= hits) for X beta-binomial(trials, a, b): what is left when h is only known from the neighbours.

    The first term in closed form, the following by the ratio of neighbours, summed in logarithms. Agrees with
    scipy.stats.betabinom.sf(hits - 1, trials, a, b), to 1e-10 of it wherever that is more than rounding, up to
    millions of trials. Takes names of columns; hits at least 1 and at most trials, a and b above 0. -#}
{% macro betabinom_tail(hits, trials, a, b) -%}
    least(
        1.,
        exp({{ _betabinom_log_pmf(hits, trials, a, b) }}) * arraySum(
            t -> exp(t),
            arrayPushFront(
                arrayCumSum(
                    arrayMap(
                        k -> log({{ _betabinom_ratio("k", trials, a, b) }}),
                        range(
                            toUInt64({{ hits }}),
                            toUInt64(
                                {{ hits }} + least(
                                    toFloat64({{ trials }} - {{ hits }}),
                                    {{ _betabinom_terms(hits, trials, a, b) }}
                                )
                            )
                        )
                    )
                ),
                0.
            )
        )
    )
{%- endmacro %}

{#- Of the term of k + 1 to the term of k. -#}
{% macro _betabinom_ratio(k, trials, a, b) -%}
    ({{ trials }} - {{ k }})
    / ({{ k }} + 1)
    * ({{ k }} + {{ a }})
    / ({{ trials }} - {{ k }} - 1 + {{ b }})
{%- endmacro %}

{#- How many more terms can matter. The tail ends like that of a sum of a Poisson and a gamma distribution of shape a:
    beyond 10 + 60 / sqrt(a) standard deviations, and 60, less than 1e-17 of it is left. Far out it ends sooner: when a
    and b are at least 1 the ratio only falls, so that 40 / -log(ratio) terms bring it down to exp(-40). -#}
{% macro _betabinom_terms(hits, trials, a, b) -%}
    least(
        60
        + (10 + 60 / sqrt({{ a }}))
        * sqrt(
            {{ trials }}
            * ({{ a }} / ({{ a }} + {{ b }}))
            * ({{ b }} / ({{ a }} + {{ b }}))
            * (({{ a }} + {{ b }} + {{ trials }}) / ({{ a }} + {{ b }} + 1))
        ),
        if(
            {{ a }} >= 1
            and {{ b }} >= 1
            and {{ hits }} < {{ trials }}
            and {{ _betabinom_ratio(hits, trials, a, b) }} < 1,
            1 + 40 / - log({{ _betabinom_ratio(hits, trials, a, b) }}),
            inf
        )
    )
{%- endmacro %}

{#- The logarithm of P(X = k). Differences of lgamma would lose nine digits at a million trials, so the large parts
    are taken together: with d = (k (a + b) - trials a) / (trials + a + b), how far k is from where trials and baseline
    agree, they are four terms like k log(1 + d / (k - d)), and what is left of each lgamma is small. -#}
{% macro _betabinom_log_pmf(k, trials, a, b) -%}
    {%- set misses = "(" ~ trials ~ " - " ~ k ~ ")" -%}
    {%- set all = "(" ~ trials ~ " + " ~ a ~ " + " ~ b ~ ")" -%}
    {%- set off = "((" ~ k ~ " * (" ~ a ~ " + " ~ b ~ ") - " ~ trials ~ " * " ~ a ~ ") / " ~ all ~ ")" -%}
    {%- set hit_share = "((" ~ k ~ " + " ~ a ~ ") / " ~ all ~ ")" -%}
    {%- set miss_share = "((" ~ misses ~ " + " ~ b ~ ") / " ~ all ~ ")" -%}
    (
        {{ _factorial_rest(trials) }}
        - {{ _factorial_rest(k) }}
        - {{ _factorial_rest(misses) }}
        + {{ _gamma_rest("(" ~ k ~ " + " ~ a ~ ")") }}
        + {{ _gamma_rest("(" ~ misses ~ " + " ~ b ~ ")") }}
        - {{ _gamma_rest(all) }}
        - {{ _gamma_rest(a) }}
        - {{ _gamma_rest(b) }}
        + {{ _gamma_rest("(" ~ a ~ " + " ~ b ~ ")") }}
        - {{ k }} * log1p({{ off }} / ({{ trials }} * {{ hit_share }}))
        - if(
            {{ misses }} = 0,
            0.,
            {{ misses }} * log1p(- {{ off }} / ({{ trials }} * {{ miss_share }}))
        )
        - {{ a }} * log1p(- {{ off }} / (({{ a }} + {{ b }}) * {{ hit_share }}))
        - {{ b }} * log1p({{ off }} / (({{ a }} + {{ b }}) * {{ miss_share }}))
    )
{%- endmacro %}

{#- lgamma(x) - (x log x - x) for x above 0; from 16 on by Stirling's series, which is exact to the last digit there. -#}
{% macro _gamma_rest(x) -%}
    if(
        {{ x }} < 16,
        lgamma({{ x }}) - {{ x }} * log({{ x }}) + {{ x }},
        0.9189385332046727
        - log({{ x }}) / 2
        + (
            1 / 12
            - (1 / 360 - (1 / 1260 - 1 / (1680 * {{ x }} * {{ x }})) / ({{ x }} * {{ x }}))
            / ({{ x }} * {{ x }})
        )
        / {{ x }}
    )
{%- endmacro %}

{#- log k! - (k log k - k) for whole k from 0 on. -#}
{% macro _factorial_rest(k) -%}
    if({{ k }} = 0, 0., {{ _gamma_rest(k) }} + log({{ k }}))
{%- endmacro %}
