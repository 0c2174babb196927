{#- The valid rows of an incremental model. Those only ever append into a ReplacingMergeTree: an insert is
    atomic for readers and repeating it changes nothing, while delete and insert leave a gap between the two.
    The newest row of a key counts, which is what final reads; this macro is the one place that says so.
    In a unit test the model is a CTE, which has no copies to hide. -#}
{% macro current(relation) -%}
    {{ relation }} {%- if not relation.is_cte %} final{% endif -%}
{%- endmacro %}

{#- Settings for reading raw.playback_events with final. Its key holds the time that its partitions are by, so copies of
    an event are in one partition; conditions on the key may be looked at before the other columns are read. -#}
{% macro one_row_an_event() -%}
    {{
        return(
            {
                "do_not_merge_across_partitions_select_final": 1,
                "optimize_move_to_prewhere_if_final": 1,
            }
        )
    }}
{%- endmacro %}
