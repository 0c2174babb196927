{#- The valid rows of an incremental model. Those only ever append into a ReplacingMergeTree: an insert is
    atomic for readers and repeating it changes nothing, while delete and insert leave a gap between the two.
    The newest row of a key counts, which is what final reads; this macro is the one place that says so. -#}
{% macro current(relation) -%} {{ relation }} final {%- endmacro %}
