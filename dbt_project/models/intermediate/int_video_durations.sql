{{ config(materialized="table", engine="MergeTree", order_by="video_id") }}

with
    videos as (select * from {{ ref("stg_videos") }}),

    sessions as (select * from {{ current(ref("int_sessions")) }}),

    -- Nobody can have played beyond the furthest position the same session reported.
    claims as (
        select
            video_id,
            duration_ms as catalogue_ms,
            cast(null, 'Nullable(Int64)') as reported_ms,
            toInt64(0) as inferred_ms
        from videos
        union all
        select
            video_id,
            cast(null, 'Nullable(Int64)') as catalogue_ms,
            reported_duration_ms as reported_ms,
            least(
                arrayMax(
                    arrayMap(
                        i -> if(i.from_ms >= 0 and i.from_ms < i.to_ms, i.to_ms, toInt64(0)),
                        intervals
                    )
                ),
                max_position_ms
            ) as inferred_ms
        from sessions
    ),

    durations as (
        select
            video_id,
            max(claims.catalogue_ms) as catalogue_ms,
            max(claims.reported_ms) as reported_ms,
            nullIf(max(claims.inferred_ms), 0) as inferred_ms
        from claims
        group by video_id
    ),

    chosen as (
        select
            video_id,
            coalesce(catalogue_ms, reported_ms, inferred_ms) as duration_ms,
            toLowCardinality(
                multiIf(
                    isNotNull(catalogue_ms),
                    'catalogue',
                    isNotNull(reported_ms),
                    'reported',
                    isNotNull(inferred_ms),
                    'inferred',
                    'unknown'
                )
            ) as duration_source
        from durations
    )

select *
from chosen
