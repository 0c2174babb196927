{#- Places of three seconds in one number, so that one operation compares three of them, and a video's places are a third
    as long. Each has 21 bits: 20 for the place, which is greater the less a video keeps and 0 for none, and above them a
    guard bit that is set before two numbers are subtracted. It is still set where nothing had to be borrowed, which is
    where the first place is not less than the second.
    Sums of what compare gives have room for a million videos. -#}
{% macro places_a_word() -%} {{ return(3) }} {%- endmacro %}

{% macro _place_bits() -%} {{ return(21) }} {%- endmacro %}

{#- This value in each of the three. -#}
{% macro _in_each(value) -%}
    {{ return(value * (1 + 2 ** _place_bits() + 2 ** (2 * _place_bits()))) }}
{%- endmacro %}

{% macro pack_place(place, second) -%}
    bitShiftLeft(
        toUInt64({{ place }}), ({{ second }}) % {{ places_a_word() }} * {{ _place_bits() }}
    )
{%- endmacro %}

{#- 1 in each of the three where one is not less than other + more, else 0. -#}
{% macro not_less(one, other, more=0) -%}
    {%- set guards = _in_each(2 ** (_place_bits() - 1)) -%}
    bitShiftRight(
        bitAnd(bitOr({{ one }}, {{ guards }}) - ({{ other }} + {{ _in_each(more) }}), {{ guards }}),
        {{ _place_bits() - 1 }}
    )
{%- endmacro %}

{#- An array of packed numbers as one with a number a second. -#}
{% macro unpack(words) -%}
    {%- set mask = 2 ** _place_bits() - 1 -%}
    arrayFlatten(
        arrayMap(
            word -> [
                bitAnd(word, {{ mask }}),
                bitAnd(bitShiftRight(word, {{ _place_bits() }}), {{ mask }}),
                bitShiftRight(word, {{ 2 * _place_bits() }})
            ],
            {{ words }}
        )
    )
{%- endmacro %}
