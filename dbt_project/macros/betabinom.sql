{#- P(X >= hits) for X beta-binomial(trials, a, b): what is left when h is only known from the neighbours.

    The first term by lgamma, the following by the ratio of neighbours, summed in logarithms. Terms beyond 60 standard
    deviations are left out: the tail falls at least like exp(-x), so they are below 1e-20 of the sum.
    Agrees with scipy.stats.betabinom.sf(hits - 1, trials, a, b); hits must be at least 1 and at most trials. -#}
{% macro betabinom_tail(hits, trials, a, b) -%}
    least(
        1.,
        arraySum(
            t -> exp(t),
            arrayCumSum(
                arrayConcat(
                    [
                        lgamma({{ trials }} + 1)
                        - lgamma({{ hits }} + 1)
                        - lgamma({{ trials }} - {{ hits }} + 1)
                        + lgamma({{ hits }} + {{ a }})
                        + lgamma({{ trials }} - {{ hits }} + {{ b }})
                        - lgamma({{ trials }} + {{ a }} + {{ b }})
                        - lgamma({{ a }})
                        - lgamma({{ b }})
                        + lgamma({{ a }} + {{ b }})
                    ],
                    arrayMap(
                        k
                        -> log(({{ trials }} - k) / (k + 1))
                        + log((k + {{ a }}) / ({{ trials }} - k - 1 + {{ b }})),
                        range(
                            toUInt64({{ hits }}),
                            toUInt64(
                                least(
                                    toFloat64({{ trials }}),
                                    {{ hits }}
                                    + 60
                                    + 60
                                    * sqrt(
                                        {{ trials }}
                                        * {{ a }}
                                        * {{ b }}
                                        * ({{ a }} + {{ b }} + {{ trials }})
                                        / (pow({{ a }} + {{ b }}, 2) * ({{ a }} + {{ b }} + 1))
                                    )
                                )
                            )
                        )
                    )
                )
            )
        )
    )
{%- endmacro %}
