{{
    config(
        materialized="incremental",
        incremental_strategy="append",
        engine="ReplacingMergeTree(generation)",
        order_by=["video_id", "day"],
        on_schema_change="fail",
        pre_hook="{{ begin_mark('int_engagement_days', newest_generation('int_views')) }}",
        post_hook="{{ finish_mark('int_engagement_days') }}",
    )
}}

with
    stale as ({{ stale_days() }}),

    judged as (
        select *
        from {{ current(ref("int_views")) }}
        {% if is_incremental() %}
            where (video_id, day) in (select video_id, day from stale)
        {% endif %}
    ),

    counted as (
        select
            video_id, day, any(judged.duration_ms) as duration_ms, {{ engagement_counts("judged") }}
        from judged
        group by video_id, day
    ),

    -- A day that all sessions moved away from stays, with nothing in it.
    days as (
        select
            stale.video_id as video_id,
            stale.day as day,
            counted.* except (video_id, day),
            stale.generation as generation
        from stale
        left join counted on stale.video_id = counted.video_id and stale.day = counted.day
    )

select *
from days
