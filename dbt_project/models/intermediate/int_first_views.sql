{{
    config(
        materialized="table",
        engine="MergeTree",
        order_by=["video_id", "session_id"],
    )
}}

with
    views as (select * from {{ current(ref("int_views")) }} where is_view),

    -- Of views that began in the same millisecond the ids decide, so that arrival never does.
    firsts as (
        select
            viewer_id,
            argMin((video_id, session_id), (first_event_ms, video_id, session_id)) as first_view
        from views
        group by viewer_id
    ),

    named as (select first_view .1 as video_id, first_view .2 as session_id, viewer_id from firsts)

select *
from named
