{{ config(materialized="view") }}

{% set dimensions = ["device_type", "country", "traffic_source", "viewer_type"] %}

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
    ),

    segmented as (
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
    ),

    counted as (
        select
            video_id,
            segment .1 as dimension,
            segment .2 as value,
            any(segmented.duration_ms) as duration_ms,
            {{ engagement_counts("segmented") }}
        from segmented
        group by video_id, dimension, value
    ),

    engagement as (
        select
            video_id,
            toLowCardinality(dimension) as dimension,
            value,
            {{ engagement_figures("counted") }},
            counted.views
            / sum(counted.views) over (partition by video_id, dimension) as share_of_views,
            toBool(counted.views >= {{ var("sufficient_views") }}) as is_sufficient
        from counted
    )

select *
from engagement
