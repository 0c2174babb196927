{{ config(engine="MergeTree", order_by=["video_id", "start_second", "kind"]) }}

with
    videos as (select * from {{ ref("int_moment_buckets") }}),

    candidates as (select * from {{ ref("int_moment_candidates") }}),

    resamples as (select * from {{ ref("int_moment_resamples") }}),

    top_moments as (select * from {{ ref("int_top_moments") }}),

    totals as (
        select *
        from {{ current(ref("int_retention_totals")) }}
        where video_id in (select video_id from videos)
    ),

    chapters as (select video_id, chapters from {{ ref("stg_videos") }}),

    ends as (
        select
            video_id,
            kind,
            if(kind = 'intro', 0, completion_second) as start_second,
            if(
                kind = 'intro',
                bounds[least({{ var("dropoff_edge_buckets") }}, length(exits)) + 1],
                seconds
            ) as end_second
        from videos
        array join ['intro', 'outro'] as kind
    ),

    -- The sample's interval, moved to the figure of all views.
    confirmed as (
        select
            candidates.*,
            level - baseline as magnitude,
            magnitude + resamples.low - resamples.height as magnitude_low,
            magnitude + resamples.high - resamples.height as magnitude_high,
            resamples.confidence as confidence
        from candidates
        inner join
            resamples
            on candidates.video_id = resamples.video_id
            and candidates.kind = resamples.kind
            and candidates.start_second = resamples.start_second
        where resamples.confidence >= {{ var("moment_min_confidence") }}
    ),

    stretches as (
        select
            video_id,
            kind,
            start_second,
            end_second,
            null as peak_second,
            null as level,
            null as baseline,
            null as magnitude,
            null as magnitude_low,
            null as magnitude_high,
            null as prominence,
            null as confidence
        from ends
        union all
        select
            video_id,
            kind,
            start_second,
            end_second,
            peak_second,
            level,
            baseline,
            100 * magnitude,
            100 * magnitude_low,
            100 * magnitude_high,
            100 * prominence,
            confidence
        from confirmed
        union all
        select
            video_id,
            'top_moment',
            start_second,
            end_second,
            null,
            hazard,
            median_hazard,
            points,
            points_low,
            points_high,
            null,
            null
        from top_moments
    ),

    by_video as (
        select
            video_id,
            groupArray(
                cast(
                    (
                        kind,
                        start_second,
                        end_second,
                        peak_second,
                        level,
                        baseline,
                        magnitude,
                        magnitude_low,
                        magnitude_high,
                        prominence,
                        confidence
                    ),
                    'Tuple(
                        kind String,
                        start_second Int64,
                        end_second Int64,
                        peak_second Nullable(Int64),
                        level Nullable(Float64),
                        baseline Nullable(Float64),
                        magnitude Nullable(Float64),
                        magnitude_low Nullable(Float64),
                        magnitude_high Nullable(Float64),
                        prominence Nullable(Float64),
                        confidence Nullable(Float64)
                    )'
                )
            ) as moments
        from stretches
        group by video_id
    ),

    -- Sums over each stretch, of a video's arrays at once.
    summed as (
        select
            totals.video_id as video_id,
            totals.views as views,
            totals.seconds as seconds,
            by_video.moments as moments,
            arrayMap(
                m -> (m.start_second + 1, toUInt64(m.end_second - m.start_second)), moments
            ) as places,
            arrayReduceInRanges('sum', places, totals.stopped) as lost_in,
            arrayReduceInRanges(
                'sum', arrayMap(m -> (1, toUInt64(m.start_second)), moments), totals.stopped
            ) as lost_before,
            arrayReduceInRanges(
                'sum', arrayMap(m -> (1, toUInt64(m.end_second)), moments), totals.entered
            ) as entered_by,
            arrayCumSum(totals.watching) as watching,
            arrayReduceInRanges('sum', places, watching) as watched_in,
            if(seconds > 30, watching[31] / views, null) as watching_30s,
            watching[-1] / views as watching_last
        from totals
        inner join by_video on totals.video_id = by_video.video_id
    ),

    described as (
        select
            video_id,
            views,
            moment.kind as kind,
            moment.start_second as start_second,
            moment.end_second as end_second,
            moment.peak_second as peak_second,
            multiIf(
                kind = 'intro', watching_30s, kind = 'outro', watching_last, moment.level
            ) as level,
            moment.baseline as baseline,
            lost,
            entered - gone as present,
            watched / ((end_second - start_second) * views) as retention_rate,
            ifNull(moment.magnitude, 100 * lost / views) as magnitude,
            ifNull(moment.magnitude_low, 100 * {{ wilson_low("lost", "views") }}) as magnitude_low,
            ifNull(
                moment.magnitude_high, 100 * {{ wilson_high("lost", "views") }}
            ) as magnitude_high,
            moment.prominence as prominence,
            moment.confidence as confidence
        from summed
        array join
            moments as moment,
            lost_in as lost,
            lost_before as gone,
            entered_by as entered,
            watched_in as watched
    ),

    key_moments as (
        select
            described.video_id as video_id,
            if(
                kind in ('intro', 'outro'), kind, concat(kind, '-', toString(start_second))
            ) as moment_id,
            described.kind as kind,
            toUInt32(described.start_second) as start_second,
            toUInt32(described.end_second) as end_second,
            toNullable(toUInt32(described.peak_second)) as peak_second,
            described.magnitude as magnitude,
            described.magnitude_low as magnitude_low,
            described.magnitude_high as magnitude_high,
            described.level as level,
            described.baseline as baseline,
            described.prominence as prominence,
            described.confidence as confidence,
            described.views as views,
            toUInt64(described.present) as at_risk,
            toUInt64(described.lost) as views_lost,
            described.retention_rate as retention_rate,
            {{
                chapter_at(
                    "chapters.chapters", "ifNull(described.peak_second, described.start_second)"
                )
            }} as chapter,
            toBool(described.views < {{ var("tentative_below_views") }}) as tentative
        from described
        left join chapters on described.video_id = chapters.video_id
    )

select *
from key_moments
