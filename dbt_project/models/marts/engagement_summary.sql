{{ config(engine="MergeTree", order_by="video_id") }}

with
    videos as (select * from {{ current(ref("int_video_durations")) }}),

    judged as (select * from {{ current(ref("int_views")) }}),

    deltas as (select * from {{ current(ref("int_retention_totals")) }}),

    -- Whole numbers up to here, so that no order of summation can show in a result.
    totals as (
        select
            video_id,
            countIf(is_view) as views,
            uniqExactIf(viewer_id, is_view) as unique_viewers,
            countIf(is_view and judged.content_watched_ms >= 3000) as engaged_views,
            sumIf(judged.watch_time_us, is_view) as watch_time_us,
            sumIf(judged.content_played_ms, is_view) as content_played_ms,
            sumIf(judged.content_watched_ms, is_view) as content_watched_ms,
            countIf(
                is_view
                and furthest_ms * 100 > greatest(duration_ms * 100 - 3000000, duration_ms * 95)
            ) as completed_views,
            countIf(
                is_view and judged.content_played_ms > judged.content_watched_ms
            ) as rewatching_views,
            sumIf(judged.seeks, is_view) as seeks,
            count() as sessions,
            countIf(is_implausible) as implausible_sessions,
            sum(judged.invalid_intervals) as invalid_intervals,
            min(judged.first_event_ms) as first_event_ms,
            max(judged.last_event_ms) as last_event_ms,
            max(judged.last_ingested_at) as last_ingested_at
        from judged
        group by video_id
    ),

    peaks as (
        select video_id, maxIntersections(ticks.start, ticks.stop) as peak_concurrent_viewers
        from (select video_id, arrayJoin(concurrent_ticks) as ticks from judged where is_view)
        group by video_id
    ),

    -- Null where the video ends before the second, or nobody watched it.
    hooks as (
        select
            video_id,
            {% for second in [3, 30] %}
                if(
                    seconds > {{ second }} and views > 0,
                    arrayCumSum(watching)[{{ second + 1 }}] / views,
                    null
                ) as retention_{{ second }}s
                {% if not loop.last %},{% endif %}
            {% endfor %}
        from deltas
    ),

    summary as (
        select
            videos.video_id as video_id,
            totals.views as views,
            totals.unique_viewers as unique_viewers,
            totals.engaged_views as engaged_views,
            totals.watch_time_us / 1000000 as watch_time_s,
            totals.content_played_ms / 1000 as content_played_s,
            totals.content_watched_ms / 1000 as content_watched_s,
            if(views > 0, totals.watch_time_us / 1000000 / views, null) as average_view_duration_s,
            if(
                views > 0,
                100 * totals.content_watched_ms / (views * assumeNotNull(videos.duration_ms)),
                null
            ) as average_view_percentage,
            if(views > 0, totals.completed_views / views, null) as completion_rate,
            hooks.retention_3s as hook_retention_3s,
            hooks.retention_30s as intro_retention_30s,
            if(views > 0, totals.rewatching_views / views, null) as rewatch_rate,
            if(views > 0, totals.seeks / views, null) as seeks_per_view,
            toUInt64(peaks.peak_concurrent_viewers) as peak_concurrent_viewers,
            if(
                sessions > 0, fromUnixTimestamp64Milli(totals.first_event_ms, 'UTC'), null
            ) as first_event_at,
            if(
                sessions > 0, fromUnixTimestamp64Milli(totals.last_event_ms, 'UTC'), null
            ) as last_event_at,
            toBool(views >= {{ var("sufficient_views") }}) as is_sufficient,
            totals.sessions as sessions,
            totals.implausible_sessions as implausible_sessions,
            totals.invalid_intervals as invalid_intervals,
            if(sessions > 0, totals.last_ingested_at, null) as last_ingested_at,
            now64(3, 'UTC') as computed_at
        from videos
        left join totals on videos.video_id = totals.video_id
        left join peaks on videos.video_id = peaks.video_id
        left join hooks on videos.video_id = hooks.video_id
    )

select *
from summary
