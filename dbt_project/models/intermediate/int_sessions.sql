{{
    config(
        materialized="incremental",
        incremental_strategy="append",
        engine="ReplacingMergeTree",
        order_by=["video_id", "session_id"],
        on_schema_change="fail",
    )
}}

with
    {% if is_incremental() %}
        -- Read without final: a copy that final would hide only adds a session to look at.
        touched as (
            select distinct video_id, session_id
            from {{ source("raw", "playback_events") }}
            where
                ingested_at
                >= (select max(last_ingested_at) from {{ this }})
                - toIntervalSecond({{ var("late_insert_window_seconds") }})
        ),
    {% endif %}

    -- A touched session is read whole: its older events count as well.
    events as (
        select *
        from {{ ref("stg_playback_events") }}
        {% if is_incremental() %}
            where (video_id, session_id) in (select video_id, session_id from touched)
        {% endif %}
    ),

    -- Where events disagree, the earliest that says something decides, never the first to arrive.
    sessions as (
        select
            video_id,
            session_id,
            argMin(viewer_id, (event_ms, event_id)) as viewer_id,
            {% for attribute in [
                "device_type",
                "os",
                "browser",
                "country",
                "traffic_source",
                "player",
            ] %}
                toLowCardinality(
                    argMinIf(
                        toString(events.{{ attribute }}),
                        (event_ms, event_id),
                        events.{{ attribute }} != ''
                    )
                ) as {{ attribute }},
            {% endfor %}
            max(is_live) as is_live,
            cast(
                arraySort(
                    groupArrayIf(
                        (
                            event_ms,
                            assumeNotNull(played_to_ms),
                            assumeNotNull(played_from_ms),
                            playback_rate
                        ),
                        isNotNull(played_from_ms) and isNotNull(played_to_ms)
                    )
                ),
                'Array(Tuple(event_ms Int64, to_ms Int64, from_ms Int64, rate Float64))'
            ) as intervals,
            max(duration_ms) as reported_duration_ms,
            max(position_ms) as max_position_ms,
            countIf(event_type = 'seek') as seeks,
            count() as events,
            min(event_ms) as first_event_ms,
            max(event_ms) as last_event_ms,
            max(ingested_at) as last_ingested_at
        from events
        group by video_id, session_id
    ),

    fingerprinted as (
        select
            *,
            cityHash64(
                session_id,
                viewer_id,
                device_type,
                os,
                browser,
                country,
                traffic_source,
                player,
                is_live,
                intervals,
                ifNull(reported_duration_ms, 0),
                max_position_ms,
                seeks,
                events,
                first_event_ms,
                last_event_ms
            ) as fingerprint
        from sessions
    )

select *
from fingerprinted
{% if is_incremental() %}
    where
        (video_id, session_id, fingerprint, last_ingested_at) not in (
            select video_id, session_id, fingerprint, last_ingested_at
            from {{ current(this) }}
            where (video_id, session_id) in (select video_id, session_id from touched)
        )
{% endif %}
