{{
    config(
        materialized="incremental",
        incremental_strategy="append",
        engine="ReplacingMergeTree(generation)",
        order_by="video_id",
        on_schema_change="fail",
        pre_hook=[
            "{{ next_generation() }}",
            "{{ begin_mark('int_video_durations', newest_generation('int_sessions')) }}",
        ],
        post_hook="{{ finish_mark('int_video_durations') }}",
    )
}}

with
    videos as (select * from {{ ref("stg_videos") }}),

    sessions as (
        select *
        from {{ ref("int_sessions") }}
        {% if is_incremental() %}
            where generation > {{ mark("int_video_durations/done") }}
        {% endif %}
    ),

    {% if is_incremental() %} known as (select * from {{ current(this) }}), {% endif %}

    -- What sessions claim only grows with their events, so what was claimed before need not be
    -- read again. Nobody can have played beyond the furthest position the same session reported.
    claims as (
        select
            video_id,
            duration_ms as catalogue_ms,
            cast(null, 'Nullable(Int64)') as reported_ms,
            cast(null, 'Nullable(Int64)') as inferred_ms
        from videos
        union all
        select
            video_id,
            cast(null, 'Nullable(Int64)') as catalogue_ms,
            reported_duration_ms as reported_ms,
            nullIf(
                least(
                    arrayMax(
                        arrayMap(
                            i -> if(i.from_ms >= 0 and i.from_ms < i.to_ms, i.to_ms, toInt64(0)),
                            intervals
                        )
                    ),
                    max_position_ms
                ),
                0
            ) as inferred_ms
        from sessions
        {% if is_incremental() %}
            union all
            select video_id, cast(null, 'Nullable(Int64)') as catalogue_ms, reported_ms, inferred_ms
            from known
        {% endif %}
    ),

    durations as (
        select
            video_id,
            max(claims.catalogue_ms) as catalogue_ms,
            max(claims.reported_ms) as reported_ms,
            max(claims.inferred_ms) as inferred_ms
        from claims
        group by video_id
    ),

    chosen as (
        select
            video_id,
            coalesce(catalogue_ms, reported_ms, inferred_ms) as duration_ms,
            toLowCardinality(
                multiIf(
                    isNotNull(catalogue_ms),
                    'catalogue',
                    isNotNull(reported_ms),
                    'reported',
                    isNotNull(inferred_ms),
                    'inferred',
                    'unknown'
                )
            ) as duration_source,
            reported_ms,
            inferred_ms
        from durations
    ),

    stamped as (
        select
            chosen.*,
            {{ mark("generation") }} as generation,
            {% if is_incremental() %}
                -- views are judged anew when D changed, not whenever another claim did
                if(
                    known.video_id != ''
                    and ifNull(chosen.duration_ms, 0) = ifNull(known.duration_ms, 0),
                    known.duration_generation,
                    generation
                )
            {% else %} generation
            {% endif %} as duration_generation
        from chosen
        {% if is_incremental() %}
            left join known on chosen.video_id = known.video_id
            where
                known.video_id = ''
                or (
                    chosen.duration_source,
                    ifNull(chosen.duration_ms, 0),
                    ifNull(chosen.reported_ms, 0),
                    ifNull(chosen.inferred_ms, 0)
                ) != (
                    known.duration_source,
                    ifNull(known.duration_ms, 0),
                    ifNull(known.reported_ms, 0),
                    ifNull(known.inferred_ms, 0)
                )
        {% endif %}
    )

select *
from stamped
