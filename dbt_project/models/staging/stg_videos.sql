with
    source as (select * from {{ source("raw", "videos") }}),

    -- The newest wins; of two with one time the greater content, since arrival must not decide.
    newest as (
        select *
        from source
        order by
            video_id,
            updated_at desc,
            title desc,
            ifNull(duration_ms, 0) desc,
            category desc,
            ifNull(published_at, toDateTime64(0, 3, 'UTC')) desc,
            chapters desc
        limit 1 by video_id
    ),

    videos as (
        select
            video_id,
            title,
            duration_ms,
            nullIf(toString(newest.category), '') as category,
            published_at,
            chapters,
            updated_at
        from newest
    )

select *
from videos
