{#- A view that is called like a function: `select * from marts.name(parameter = value)`. It has no columns before it is
    called, so it can have neither a contract nor column comments in ClickHouse. -#}
{%- materialization parameterized_view, adapter = "clickhouse" -%}
    {%- set target_relation = this.incorporate(type="view") -%}
    {{ run_hooks(pre_hooks) }}
    {% call statement("main") -%}
        create or replace view {{ target_relation }}
        definer = current_user sql security definer as {{ sql }}
    {%- endcall %}
    {{ run_hooks(post_hooks) }}
    {{ return({"relations": [target_relation]}) }}
{%- endmaterialization -%}

{#- The views of a video that the parameters of such a view choose: rows of int_views. Every parameter must be given;
    an empty list takes every value. -#}
{% macro chosen_views() -%}
    {%- set parameters = {
        "device_type": "{device_types:Array(String)}",
        "country": "{countries:Array(String)}",
        "traffic_source": "{traffic_sources:Array(String)}",
    } -%}
    select *
    from {{ current(ref("int_views")) }}
    where
        video_id = {video_id:String}
        and day between {first_day:Date} and {last_day:Date}
        and is_view
    {% for dimension, values in parameters.items() %}
            and (empty({{ values }}) or has({{ values }}, {{ dimension }}))
    {% endfor %}
        and (
            empty({viewer_types:Array(String)})
            or has(
                {viewer_types:Array(String)},
                if(
                    session_id in (
                        select session_id
                        from {{ ref("int_first_views") }}
                        where video_id = {video_id:String}
                    ),
                    'new',
                    'returning'
                )
            )
        )
{%- endmacro %}
