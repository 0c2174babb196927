{# Two curves a row: small blocks keep them in the processor's cache, and memory low. -#}
{{
    config(
        materialized="table",
        engine="MergeTree",
        order_by="video_id",
        settings={"index_granularity": 1},
        query_settings={
            "max_joined_block_size_rows": 1024,
            "enable_materialized_cte": 1,
        },
    )
}}

{% set trailing = var("relative_trailing_s") %}
{% set no_place = 4294967295 %}

with
    totals as (select * from {{ current(ref("int_retention_totals")) }} where views > 0),

    counts as materialized({{ curve_counts("totals", ["video_id", "duration_ms"]) }}),

    -- Trailing survival. Where nobody watched before, there is nothing to survive: not a number.
    curves as (
        select
            video_id,
            duration_ms,
            length(watching_views) as seconds,
            arrayConcat(
                arrayWithConstant(least({{ trailing }}, seconds), watching_views[1]),
                arraySlice(watching_views, 1, greatest(seconds - {{ trailing }}, 0))
            ) as watching_before,
            arrayMap(
                (now, before) -> if(before > 0, now / before, nan), watching_views, watching_before
            ) as survival
        from counts
    ),

    -- Its place among all videos' at that second says as much when two are compared, in a small
    -- number. The greatest stands for none, and is neither below nor equal to a place.
    placed as (
        select
            video_id,
            duration_ms,
            second,
            if(
                isNaN(figure),
                {{ no_place }},
                toUInt32(dense_rank() over (partition by second order by figure asc nulls last))
            ) as place
        from curves
        array join survival as figure, range(toUInt32(seconds)) as second
    ),

    -- In the order of seconds: numbers with the second above the place are sorted at once.
    places as materialized(
        select
            video_id,
            any(duration_ms) as duration_ms,
            arrayMap(
                packed -> toUInt32(bitAnd(packed, {{ no_place }})),
                arraySort(groupArray(bitShiftLeft(toUInt64(second), 32) + place))
            ) as places,
            length(places) as seconds
        from placed
        group by video_id
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

    compared as (
        select
            peers.video_id as video_id,
            any(video.places) as own_places,
            sumForEach(
                arrayMap(
                    (own, other) -> (other < own) + (other <= own),
                    arrayResize(video.places, least(video.seconds, peer.seconds)),
                    arrayResize(peer.places, least(video.seconds, peer.seconds))
                )
            ) as twice_the_rank,
            sumForEach(
                arrayMap(
                    other -> other < {{ no_place }},
                    arrayResize(peer.places, least(video.seconds, peer.seconds))
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
                    others >= {{ var("relative_min_peers") }} and own < {{ no_place }},
                    rank / (2 * others),
                    null
                ),
                arrayResize(twice_the_rank, length(own_places)),
                arrayResize(compared_with, length(own_places)),
                own_places
            ) as relative
        from compared
    )

select
    counts.* except (duration_ms),
    cast(
        arrayResize(ranked.relative, length(counts.watching_views), null),
        'Array(Nullable(Float64))'
    ) as relative_retention_performance
from counts
left join ranked on counts.video_id = ranked.video_id
