{{
    config(
        materialized="incremental",
        incremental_strategy="append",
        engine="ReplacingMergeTree(generation)",
        order_by=["video_id", "session_id"],
        on_schema_change="fail",
        settings={"index_granularity": 512},
        query_settings=one_row_an_event(),
        pre_hook=[
            "{{ next_generation() }}",
            "{{ begin_mark('int_sessions', clock_now()) }}",
            "{{ note_touched_sessions() }}",
        ],
        post_hook="{{ finish_mark('int_sessions') }}",
    )
}}

{% set day_ms = 24 * 60 * 60 * 1000 %}
{% set event_columns = [
    "event_id",
    "event_type",
    "event_ms",
    "session_id",
    "viewer_id",
    "video_id",
    "position_ms",
    "played_from_ms",
    "played_to_ms",
    "duration_ms",
    "playback_rate",
    "device_type",
    "os",
    "browser",
    "country",
    "traffic_source",
    "player",
    "is_live",
    "ingested_at",
] | join(", ") %}

with
    {% if is_incremental() %}
        known as (select * from touched_sessions where is_known),

        -- When known sessions were: no part of the table that is older is read. A day more on
        -- either side, for what was stored unseen.
        span as (
            select
                fromUnixTimestamp64Milli(min(first_ms) - {{ day_ms }}, 'UTC') as first_time,
                fromUnixTimestamp64Milli(max(last_ms) + {{ day_ms }}, 'UTC') as last_time
            from known
        ),

        -- A touched session is read whole. One that nobody knew has nothing but recent events. Ids
        -- alone are looked up faster than pairs, for which few of the other rows are left.
        events as (
            select {{ event_columns }}
            from
                (
                    select *, toUnixTimestamp64Milli(event_time) as event_ms
                    from
                        {{ recent_events() }}
                        and (video_id, session_id)
                        in (select video_id, session_id from touched_sessions where not is_known)
                    limit 1 by video_id, session_id, event_ms, event_id
                )
            union all
            select {{ event_columns }}
            from {{ ref("stg_playback_events") }}
            where
                session_id in (select session_id from known)
                and (video_id, session_id) in (select video_id, session_id from known)
                and event_time
                between assumeNotNull((select first_time from span)) and assumeNotNull(
                    (select last_time from span)
                )
        ),
    {% else %}
        events as (
            select {{ event_columns }} from {{ ref("stg_playback_events") }} where {{ in_slice() }}
        ),
    {% endif %}

    -- Time and id as one number: compared at once, where a pair is compared piece by piece.
    placed as (
        select
            *,
            bitOr(
                bitShiftLeft(toUInt256(event_ms + 4611686018427387904), 128),
                reinterpretAsUInt128(event_id)
            ) as place
        from events
    ),

    -- Where events disagree, the earliest that says something decides, never the first to arrive.
    sessions as (
        select
            video_id,
            session_id,
            argMin(viewer_id, place) as viewer_id,
            {% for attribute in [
                "device_type",
                "os",
                "browser",
                "country",
                "traffic_source",
                "player",
            ] %}
                toLowCardinality(
                    argMinIf(toString(placed.{{ attribute }}), place, placed.{{ attribute }} != '')
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
        from placed
        group by video_id, session_id
    ),

    fingerprinted as (
        select
            *,
            toDate(fromUnixTimestamp64Milli(first_event_ms, 'UTC')) as day,
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
    ),

    stamped as (
        select
            fingerprinted.*,
            {% if is_incremental() %} arrayDistinct(arrayPushBack(known.days, day)) as days,
            {% else %} [day] as days,
            {% endif %} {{ mark("generation") }} as generation
        from fingerprinted
        {% if is_incremental() %}
            left join
                known
                on fingerprinted.video_id = known.video_id
                and fingerprinted.session_id = known.session_id
            where
                (fingerprinted.fingerprint, fingerprinted.last_ingested_at)
                != (known.fingerprint, known.last_ingested_at)
        {% endif %}
    )

select *
from stamped
