{#- The valid rows of an incremental model. Those only ever append into a ReplacingMergeTree: an insert is
    atomic for readers and repeating it changes nothing, while delete and insert leave a gap between the two.
    The newest row of a key counts, which is what final reads; this macro is the one place that says so.
    In a unit test the model is a CTE, which has no copies to hide. -#}
{% macro current(relation) -%}
    {{ relation }} {%- if not relation.is_cte %} final{% endif -%}
{%- endmacro %}
