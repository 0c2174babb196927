{# Two curves a row: small blocks keep them in the processor's cache, and memory low. -#}
{{
    config(
        materialized="table",
        engine="MergeTree",
        order_by="video_id",
        settings={"index_granularity": 1},
        query_settings={"max_joined_block_size_rows": 1024},
    )
}}

with
    totals as (select * from {{ current(ref("int_retention_totals")) }} where views > 0),

    counts as ({{ curve_counts("totals", ["video_id"]) }}),

    places as (
        select video_id, duration_ms, places, length(places) as words
        from {{ ref("int_survival_places") }}
    ),

    lengths as (select video_id, duration_ms from places),

    -- Found before the places come in, so that those of no peers are never copied.
    peers as (
        select videos.video_id as video_id, others.video_id as peer_id
        from lengths as videos
        cross join lengths as others
        where
            abs(others.duration_ms - videos.duration_ms) * 100
            <= videos.duration_ms * {{ var("relative_length_percent") }}
            and others.video_id != videos.video_id
    ),

    -- A peer's place counts twice where it is greater, once where it is equal, and not where there
    -- is none.
    compared as (
        select
            peers.video_id as video_id,
            any(video.places) as own,
            sumForEach(
                arrayMap(
                    (own, other)
                    -> {{ not_less("other", "own") }}
                    + {{ not_less("other", "own", more=1) }},
                    arrayResize(video.places, least(video.words, peer.words)),
                    arrayResize(peer.places, least(video.words, peer.words))
                )
            ) as twice_the_rank,
            sumForEach(
                arrayMap(
                    other -> {{ not_less("other", 0, more=1) }},
                    arrayResize(peer.places, least(video.words, peer.words))
                )
            ) as compared_with
        from peers
        inner join places as video on peers.video_id = video.video_id
        inner join places as peer on peers.peer_id = peer.video_id
        group by video_id
        having count() >= {{ var("relative_min_peers") }}
    ),

    ranked as (
        select
            video_id,
            arrayMap(
                (rank, others, own) -> if(
                    others >= {{ var("relative_min_peers") }} and own > 0, rank / (2 * others), null
                ),
                {{ unpack("arrayResize(twice_the_rank, length(own))") }},
                {{ unpack("arrayResize(compared_with, length(own))") }},
                {{ unpack("own") }}
            ) as relative
        from compared
    )

select
    counts.*,
    cast(
        arrayResize(ranked.relative, length(counts.watching_views), null),
        'Array(Nullable(Float64))'
    ) as relative_retention_performance
from counts
left join ranked on counts.video_id = ranked.video_id
