{{
    config(
        materialized="table",
        engine="MergeTree",
        order_by="video_id",
        settings={"index_granularity": 1},
    )
}}

{% set trailing = var("relative_trailing_s") %}

with
    totals as (select * from {{ current(ref("int_retention_totals")) }} where views > 0),

    watched as (
        select
            video_id,
            duration_ms,
            toUInt32(seconds) as seconds,
            arrayCumSum(watching) as watching_views,
            arrayConcat(
                arrayWithConstant(least({{ trailing }}, seconds), watching_views[1]),
                arraySlice(watching_views, 1, greatest(seconds - {{ trailing }}, 0))
            ) as watching_before
        from totals
    ),

    -- Trailing survival. Where nobody watched before, there is nothing to survive: not a number.
    survived as (
        select video_id, duration_ms, second, if(before > 0, now / before, nan) as survival
        from watched
        array join range(seconds) as second, watching_views as now, watching_before as before
    ),

    -- Its place among all videos' at that second says as much when two are compared, in a small
    -- number.
    placed as (
        select
            video_id,
            duration_ms,
            second,
            if(
                isNaN(survival), 0, dense_rank() over (partition by second order by survival desc)
            ) as place
        from survived
    ),

    words as (
        select
            video_id,
            any(duration_ms) as duration_ms,
            intDiv(second, {{ places_a_word() }}) as at,
            sum({{ pack_place("place", "second") }}) as word
        from placed
        group by video_id, at
    )

select video_id, any(words.duration_ms) as duration_ms, groupArrayInsertAt(word, at) as places
from words
group by video_id
