{#- The arrays that a curve is made of, a number a second: the change of how many watch (watching) and of how often it
    is played (plays), and how many views have there their first second played (started), their exit (stopped), their
    earliest second (entered), their furthest (furthest). -#}
{% macro retention_kinds() -%}
    {{ return(["watching", "plays", "started", "stopped", "entered", "furthest"]) }}
{%- endmacro %}
