{#- The views of every video, a row for each dimension that splits them (METRICS 9): with the columns of int_views, and
    segment, the dimension and its value. The value is empty where the player did not say. -#}
{% macro segmented_views() -%}
    {%- set dimensions = ["device_type", "country", "traffic_source", "viewer_type"] -%}
    with
        views as (select * from {{ current(ref("int_views")) }} where is_view),

        first_views as (
            select video_id, session_id, true as is_first from {{ ref("int_first_views") }}
        ),

        typed as (
            select views.*, if(is_first, 'new', 'returning') as viewer_type
            from views
            left join
                first_views
                on views.video_id = first_views.video_id
                and views.session_id = first_views.session_id
        )

    select
        *,
        arrayJoin(
            [
                {% for dimension in dimensions %}
                    ('{{ dimension }}', toString({{ dimension }}))
                    {%- if not loop.last %},{% endif %}
                {% endfor %}
            ]
        ) as segment
    from typed
{%- endmacro %}
