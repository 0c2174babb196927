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

with
    stale as ({{ stale_videos(ref("int_moment_buckets")) }}),

    videos as ({{ of_stale(ref("int_moment_buckets")) }}),

    listed as ({{ of_stale(ref("int_moment_candidates")) }}),

    candidates as (select video_id, candidate from listed array join candidates as candidate),

    judged as ({{ of_stale(ref("int_moment_resamples")) }}),

    resamples as (select video_id, resample from judged array join resamples as resample),

    calm as ({{ of_stale(ref("int_top_moments")) }}),

    top_moments as (select video_id, stretch from calm array join stretches as stretch),

    totals as ({{ of_stale(ref("int_retention_totals")) }}),

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
        where views > 0
    ),

    -- The sample's interval, moved to the figure of all views.
    confirmed as (
        select
            candidates.video_id as video_id,
            candidate.kind as kind,
            candidate.start_second as start_second,
            candidate.end_second as end_second,
            candidate.peak_second as peak_second,
            candidate.level as level,
            candidate.baseline as baseline,
            candidate.prominence as prominence,
            level - baseline as magnitude,
            magnitude + resample.low - resample.height as magnitude_low,
            magnitude + resample.high - resample.height as magnitude_high,
            resample.confidence as confidence
        from candidates
        inner join
            resamples
            on candidates.video_id = resamples.video_id
            and candidate.kind = resample.kind
            and candidate.start_second = resample.start_second
        where resample.confidence >= {{ var("moment_min_confidence") }}
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
            stretch.start_second,
            stretch.end_second,
            null,
            stretch.hazard,
            stretch.median_hazard,
            stretch.points,
            stretch.points_low,
            stretch.points_high,
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

    gathered as (
        select
            video_id,
            arraySort(
                m -> (m .2, m .1),
                groupArray(
                    (
                        kind,
                        toUInt32(start_second),
                        toUInt32(end_second),
                        toNullable(toUInt32(peak_second)),
                        magnitude,
                        magnitude_low,
                        magnitude_high,
                        level,
                        baseline,
                        prominence,
                        confidence,
                        toUInt64(present),
                        toUInt64(lost),
                        retention_rate
                    )
                )
            ) as moments
        from described
        group by video_id
    ),

    found as (
        select
            stale.video_id as video_id,
            videos.views as views,
            cast(gathered.moments, {{ moment_type() }}) as moments,
            stale.generation as generation
        from stale
        inner join videos on stale.video_id = videos.video_id
        left join gathered on stale.video_id = gathered.video_id
    )

select *
from found
