{{
    config(
        materialized="incremental",
        incremental_strategy="append",
        engine="ReplacingMergeTree(generation)",
        order_by="video_id",
        on_schema_change="fail",
        settings={"index_granularity": 8},
    )
}}

{% set groups = var("moment_groups") %}
{% set resamples = var("moment_resamples") %}
{% set sums = ["left_excess", "left_base", "excess", "base", "right_excess", "right_base"] %}

with
    stale as ({{ stale_videos(ref("int_moment_candidates")) }}),

    listed as ({{ of_stale(ref("int_moment_candidates")) }}),

    videos as ({{ of_stale(ref("int_moment_buckets")) }}),

    -- Of many views those of every second, third, ... viewer by hash: enough to tell.
    candidates as (
        select
            listed.video_id as video_id,
            candidate.kind as kind,
            candidate.start_second as start_second,
            candidate.end_second as end_second,
            candidate.left_second as left_second,
            candidate.right_second as right_second,
            toUInt64(intDiv(videos.views - 1, {{ var("moment_sample_views") }}) + 1) as part
        from listed
        inner join videos on listed.video_id = videos.video_id
        array join listed.candidates as candidate
    ),

    views as (
        select
            video_id,
            sipHash64(viewer_id) as viewer,
            watched_seconds,
            played_edges,
            {{ ceil_div("furthest_ms", 1000) }} as reached
        from {{ current(ref("int_views")) }}
        where video_id in (select video_id from candidates) and is_view
    ),

    -- What each view adds to the stretch and to its two sides.
    measured as (
        select
            candidates.video_id as video_id,
            candidates.kind as kind,
            candidates.start_second as start_second,
            intDiv(views.viewer, candidates.part) % {{ groups }} as viewers,
            {% for name, start, stop in [
                ("left", "left_second", "start_second"),
                ("", "start_second", "end_second"),
                ("right", "end_second", "right_second"),
            ] %}
                {% set prefix = name ~ "_" if name else "" %}
                {{
                    seconds_watched(
                        "views.watched_seconds", "candidates." ~ start, "candidates." ~ stop
                    )
                }} as {{ prefix }}watched,
                if(
                    kind = 'spike',
                    {{ prefix }}watched,
                    {{
                        seconds_before(
                            "views.reached", "candidates." ~ start, "candidates." ~ stop
                        )
                    }}
                ) as {{ prefix }}base,
                if(
                    kind = 'spike',
                    {{
                        seconds_played(
                            "views.played_edges", "candidates." ~ start, "candidates." ~ stop
                        )
                    }},
                    {{ prefix }}base
                )
                - {{ prefix }}watched as {{ prefix }}excess{{ "," if not loop.last }}
            {% endfor %}
        from views
        inner join candidates on views.video_id = candidates.video_id
        where views.viewer % candidates.part = 0
    ),

    grouped as (
        select
            video_id,
            kind,
            start_second,
            viewers,
            {% for sum in sums %} sum({{ sum }}) as {{ sum }}{{ "," if not loop.last }} {% endfor %}
        from measured
        group by video_id, kind, start_second, viewers
    ),

    -- How often each group of viewers is drawn in each resample: the same for every video.
    draws as (
        select
            number as viewers,
            arrayMap(
                r -> {{ poisson("sipHash64(concat(toString(number), ' ', toString(r)))") }},
                range({{ resamples }})
            ) as weights
        from numbers({{ groups }})
    ),

    resampled as (
        select
            video_id,
            kind,
            start_second,
            {% for sum in sums %}
                sumForEach(arrayMap(w -> w * grouped.{{ sum }}, draws.weights)) as {{ sum }}s,
                sum(grouped.{{ sum }}) as {{ sum }}{{ "," if not loop.last }}
            {% endfor %}
        from grouped
        inner join draws on grouped.viewers = draws.viewers
        group by video_id, kind, start_second
    ),

    judged as (
        select
            video_id,
            kind,
            start_second,
            arraySort(
                arrayMap(
                    (le, lb, e, b, re, rb) -> {{ above_sides("le", "lb", "e", "b", "re", "rb") }},
                    {% for sum in sums %} {{ sum }}s{{ "," if not loop.last }} {% endfor %}
                )
            ) as heights,
            {{ above_sides(*sums) }} as height,
            heights[{{ (resamples * 0.025) | int + 1 }}] as low,
            heights[{{ resamples - (resamples * 0.025) | int }}] as high,
            arrayCount(h -> h >= {{ var("moment_min_points") }} / 100, heights)
            / {{ resamples }} as confidence
        from resampled
    ),

    resampled_candidates as (
        select
            video_id,
            arraySort(groupArray((kind, start_second, height, low, high, confidence))) as resamples
        from judged
        group by video_id
    ),

    by_video as (
        select
            stale.video_id as video_id,
            cast(resampled_candidates.resamples, {{ resample_type() }}) as resamples,
            stale.generation as generation
        from stale
        left join resampled_candidates on stale.video_id = resampled_candidates.video_id
    )

select *
from by_video
