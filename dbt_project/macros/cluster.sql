{#- On a cluster of replicas (CLICKHOUSE_CLUSTER) tables are replicated, and their databases repeat what is said about
    them on every replica; so no statement names the cluster. Asked when a statement is made, not when the project is
    parsed: one manifest serves both. -#}
{% macro replicated() -%}
    {{ "Replicated" if env_var("CLICKHOUSE_CLUSTER", "") else "" }}
{%- endmacro %}

{#- Instead of dbt-clickhouse's macro of this name. -#}
{% macro engine_clause() %}
    engine = {{ replicated() }}{{ config.get("engine", default="MergeTree()") }}
{%- endmacro %}
