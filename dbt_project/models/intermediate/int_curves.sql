{# Two curves a row: small blocks keep them in the processor's cache, and memory low. -#}
{{
    config(
        materialized="table",
        engine="MergeTree",
        order_by="video_id",
        settings={"index_granularity": 1},
        query_settings={"max_block_size": 1024, "max_joined_block_size_rows": 1024},
    )
}}

{% set trailing = var("relative_trailing_s") %}
{# more than twice as many peers as there can be #}
{% set one_peer = 1048576 %}

with
    totals as (select * from {{ current(ref("int_retention_totals")) }} where views > 0),

    counts as ({{ curve_counts("totals", ["video_id", "duration_ms"]) }}),

    -- Trailing survival. Where nobody watched before, there is nothing to survive: not a number,
    -- which
    -- is neither below, equal nor above.
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

    lengths as (select video_id, duration_ms from curves),

    -- Found before the curves come in, so that those of no peers are never copied.
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
            any(video.survival) as own_survival,
            -- Two sums in one number, for half the work: how many have a figure there, and twice
            -- the rank.
            sumForEach(
                arrayMap(
                    (own, other)
                    -> toUInt32(other < own)
                    + toUInt32(other <= own)
                    + {{ one_peer }} * toUInt32(other = other),
                    arrayResize(video.survival, least(video.seconds, peer.seconds)),
                    arrayResize(peer.survival, least(video.seconds, peer.seconds))
                )
            ) as ranks
        from peers
        inner join curves as video on peers.video_id = video.video_id
        inner join curves as peer on peers.peer_id = peer.video_id
        group by video_id
        having count() >= {{ var("relative_min_peers") }}
    ),

    ranked as (
        select
            video_id,
            arrayMap(
                (rank, own) -> if(
                    intDiv(rank, {{ one_peer }}) >= {{ var("relative_min_peers") }}
                    and not isNaN(own),
                    rank % {{ one_peer }} / (2 * intDiv(rank, {{ one_peer }})),
                    null
                ),
                arrayResize(ranks, length(own_survival)),
                own_survival
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
