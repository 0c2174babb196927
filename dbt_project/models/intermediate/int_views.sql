{{
    config(
        materialized="incremental",
        incremental_strategy="append",
        engine="ReplacingMergeTree(generation, is_deleted)",
        order_by=["video_id", "day", "session_id"],
        on_schema_change="fail",
        settings={"index_granularity": 256},
        pre_hook=[
            "{{ next_generation() }}",
            "{{ begin_mark('int_views', newest_generation('int_sessions')) }}",
            "{{ begin_mark('int_views_durations', newest_generation('int_video_durations')) }}",
        ],
        post_hook=[
            "{{ finish_mark('int_views') }}",
            "{{ finish_mark('int_views_durations') }}",
        ],
    )
}}

with
    durations as (select * from {{ current(ref("int_video_durations")) }}),

    {% if is_incremental() %}
        rejudged as (
            select video_id
            from durations
            where duration_generation > {{ mark("int_views_durations/done") }}
        ),

        -- Of what changed since, the newest row is the current one: no final over all the others.
        sessions as (
            select *
            from {{ current(ref("int_sessions")) }}
            where video_id in (select video_id from rejudged)
            union all
            select *
            from
                (
                    select *
                    from {{ ref("int_sessions") }}
                    where generation > {{ mark("int_views/done") }}
                    order by generation desc
                    limit 1 by video_id, session_id
                )
            where video_id not in (select video_id from rejudged)
        ),
    {% else %} sessions as (select * from {{ current(ref("int_sessions")) }}),
    {% endif %}

    judgeable as (
        select
            sessions.* except (generation),
            ifNull(durations.duration_ms, toInt64(0)) as duration_ms,
            cityHash64(sessions.fingerprint, duration_ms) as view_fingerprint,
            {{ mark("generation") }} as generation
        from sessions
        inner join durations on sessions.video_id = durations.video_id
    ),

    -- Valid and clipped intervals, still in the order of time, then of end. Far too slow a rate
    -- is cut at 28 years.
    valid as (
        select
            *,
            cast(
                arrayMap(
                    i -> (
                        i.event_ms,
                        i.from_ms,
                        least(i.to_ms, duration_ms),
                        least(
                            round((least(i.to_ms, duration_ms) - i.from_ms) * 1000 / i.rate), 9e14
                        )
                    ),
                    arrayFilter(
                        i -> i.from_ms >= 0
                        and i.from_ms < i.to_ms
                        and i.from_ms < duration_ms
                        and i.to_ms <= duration_ms + {{ var("overshoot_ms") }},
                        intervals
                    )
                ),
                'Array(Tuple(event_ms Int64, from_ms Int64, to_ms Int64, wall_us Int64))'
            ) as played,
            {{ ranges("played", "i.from_ms", "i.to_ms", 1000) }} as played_seconds,
            {{
                ranges(
                    "played",
                    "i.event_ms * 1000 - i.wall_us",
                    "i.event_ms * 1000",
                    var("concurrency_step_s") * 1000000,
                )
            }} as played_ticks,
            {{ range_edges("played_seconds") }} as second_edges,
            {{ range_edges("played_ticks") }} as tick_edges
        from judgeable
    ),

    measured as (
        select
            video_id,
            day,
            session_id,
            viewer_id,
            device_type,
            os,
            browser,
            country,
            traffic_source,
            player,
            is_live,
            first_event_ms,
            last_event_ms,
            duration_ms,
            valid.events as events,
            length(valid.intervals) as intervals,
            length(valid.intervals) - length(played) as invalid_intervals,
            arraySum(p -> p.to_ms - p.from_ms, played) as content_played_ms,
            toInt64(
                arrayReduce('intervalLengthSum', played.from_ms, played.to_ms)
            ) as content_watched_ms,
            arraySum(p -> p.wall_us, played) as watch_time_us,
            arrayMax(played.to_ms) as furthest_ms,
            seeks,
            intDiv(played.from_ms[1], 1000) as started_second,
            intDiv(arrayMin(played.from_ms), 1000) as entered_second,
            {{ ceil_div("played.to_ms[-1]", 1000) }} - 1 as exit_second,
            {{ net_of_edges("second_edges") }} as played_edges,
            {{ runs_of_edges("second_edges") }} as watched_seconds,
            {{ runs_of_edges("tick_edges") }} as concurrent_ticks,
            notEmpty(played)
            and content_played_ms
            > (last_event_ms - first_event_ms) * {{ var("fastest_rate") }}
            + {{ var("implausible_slack_ms") }} as is_implausible,
            notEmpty(played) and not is_implausible as is_view,
            last_ingested_at,
            view_fingerprint as fingerprint,
            generation,
            days
        from valid
    ),

    -- A session that moved to another day must not stay behind on the one it was on before.
    placed as (
        select
            measured.* except (days, day),
            placed_day as day,
            toUInt8(placed_day != measured.day) as is_deleted
        from measured
        array join days as placed_day
    )

select *
from placed
