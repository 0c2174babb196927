{{ config(engine="MergeTree", order_by="video_id") }}

with
    durations as (select * from {{ current(ref("int_video_durations")) }}),

    catalogue as (select *, toBool(true) as is_described from {{ ref("stg_videos") }}),

    videos as (
        select
            durations.video_id as video_id,
            if(is_described, catalogue.title, null) as title,
            catalogue.category as category,
            catalogue.published_at as published_at,
            catalogue.chapters as chapters,
            durations.duration_ms as duration_ms,
            durations.duration_ms / 1000 as duration_s,
            durations.duration_source as duration_source,
            if(is_described, catalogue.updated_at, null) as updated_at
        from durations
        left join catalogue on durations.video_id = catalogue.video_id
    )

select *
from videos
