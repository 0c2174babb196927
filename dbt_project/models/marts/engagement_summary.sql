{{ config(engine="MergeTree", order_by="video_id") }}

with
    videos as (select * from {{ current(ref("int_video_durations")) }}),

    days as (select * from {{ current(ref("int_engagement_days")) }}),

    -- The same viewer comes back on another day, so days do not add up to viewers.
    viewers as (
        select video_id, uniqExact(viewer_id) as unique_viewers
        from {{ current(ref("int_views")) }}
        where is_view
        group by video_id
    ),

    concurrency as (
        select
            video_id,
            max(peak_viewers) as peak_concurrent_viewers,
            sum(viewer_ticks) as viewer_ticks,
            min(runs.start[1]) as first_tick,
            max(runs.stop[-1]) as last_tick
        from {{ current(ref("int_concurrency_days")) }}
        where notEmpty(runs)
        group by video_id
    ),

    counts as (
        select
            video_id,
            max(days.duration_ms) as duration_ms,
            {% for count in additive_counts() %} sum(days.{{ count }}) as {{ count }}, {% endfor %}
            minIf(days.first_event_ms, days.sessions > 0) as first_event_ms,
            max(days.last_event_ms) as last_event_ms,
            max(days.last_ingested_at) as last_ingested_at
        from days
        group by video_id
    ),

    joined as (
        select
            videos.video_id as video_id,
            counts.duration_ms as duration_ms,
            {% for count in additive_counts() %} counts.{{ count }} as {{ count }}, {% endfor %}
            counts.first_event_ms as first_event_ms,
            counts.last_event_ms as last_event_ms,
            counts.last_ingested_at as last_ingested_at,
            viewers.unique_viewers as unique_viewers,
            concurrency.* except (video_id)
        from videos
        left join counts on videos.video_id = counts.video_id
        left join viewers on videos.video_id = viewers.video_id
        left join concurrency on videos.video_id = concurrency.video_id
    ),

    summary as (
        select
            video_id,
            {{ engagement_figures("joined") }},
            if(
                last_tick > first_tick, viewer_ticks / (last_tick - first_tick), null
            ) as average_concurrent_viewers,
            if(
                sessions > 0, fromUnixTimestamp64Milli(first_event_ms, 'UTC'), null
            ) as first_event_at,
            if(sessions > 0, fromUnixTimestamp64Milli(last_event_ms, 'UTC'), null) as last_event_at,
            toBool(views >= {{ var("sufficient_views") }}) as is_sufficient,
            joined.sessions as sessions,
            joined.implausible_sessions as implausible_sessions,
            joined.intervals as intervals,
            joined.invalid_intervals as invalid_intervals,
            if(sessions > 0, joined.last_ingested_at, null) as last_ingested_at,
            now64(3, 'UTC') as computed_at
        from joined
    )

select *
from summary
