{#- A model that groups all of raw.playback_events holds every group in memory until the last row is read, or writes
    them to disk. Such a model is built in slices instead, as fast (105,000,000 events: 0.9 GB of memory where 4.2 GB
    were), one INSERT after the other, each of videos that have some slice_events events together; the events of one
    video are never divided. The model says by `in_slice()` which rows to take. Where its rows go is dbt's to say, which
    builds a table anew beside the one there is; a first build that dies within is made good by the next run. -#}
{% macro in_slice() -%} {{ _unsliced() }} {%- endmacro %}

{#- Stands in a model's statement for the condition of one slice. -#}
{% macro _unsliced() -%} {{ return("/* slice */ true") }} {%- endmacro %}

{#- The conditions of all slices: of ranges of video_id, by which raw is sorted. -#}
{% macro _slices() -%}
    {%- set size = var("slice_events") -%}
    {%- set counted -%}
        select video_id, intDiv(sum(events) over (order by video_id) - 1, {{ size }}) as slice
        from (
            select video_id, count() as events
            from {{ source("raw", "playback_events") }}
            group by video_id
        )
    {%- endset -%}
    {%- set firsts = run_query(
        "select toJSONString(min(video_id)) from ("
        ~ counted
        ~ ") group by slice order by slice"
    ) -%}
    {%- set starts = [] -%}
    {%- for row in firsts.rows[1:] -%}
        {%- do starts.append(
            dbt.string_literal(
                fromjson(row[0]) | replace("\\", "\\\\") | replace("'", "\\'")
            )
        ) -%}
    {%- endfor -%}
    {%- set slices = [] -%}
    {%- for start in [none] + starts -%}
        {%- set conditions = ["video_id >= " ~ start] if start is not none else [] -%}
        {%- if not loop.last -%}
            {%- do conditions.append("video_id < " ~ starts[loop.index0]) -%}
        {%- endif -%}
        {%- do slices.append(conditions | join(" and ") or "true") -%}
    {%- endfor -%}
    {{ return(slices) }}
{%- endmacro %}

{#- In place of dbt-clickhouse's own, which is called for each slice. -#}
{% macro clickhouse__insert_into(target_relation, sql, has_contract, use_columns_from_sql=False) -%}
    {%- set slices = _slices() if _unsliced() in sql else [_unsliced()] -%}
    {%- for slice in slices -%}
        {%- set statement = dbt.clickhouse__insert_into(
            target_relation,
            sql | replace(_unsliced(), slice),
            has_contract,
            use_columns_from_sql,
        ) -%}
        {%- if loop.last -%} {{ return(statement) }} {%- endif -%}
        {%- do run_query(statement) -%}
    {%- endfor -%}
{%- endmacro %}
