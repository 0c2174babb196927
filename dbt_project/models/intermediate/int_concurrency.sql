{{
    config(
        materialized="incremental",
        incremental_strategy="append",
        engine="ReplacingMergeTree(generation)",
        order_by=["video_id", "clock_day", "day"],
        on_schema_change="fail",
        settings={"index_granularity": 64},
        pre_hook="{{ begin_mark('int_concurrency', newest_generation('int_views')) }}",
        post_hook="{{ finish_mark('int_concurrency') }}",
    )
}}

{% set ticks_a_day = 86400 // var("concurrency_step_s") %}

with
    -- Rows that final would hide say that the day was touched all the same.
    stale as (
        select video_id, day, max(generation) as generation
        from {{ ref("int_views") }} as touched
        {% if is_incremental() %}
            where touched.generation > {{ mark("int_concurrency/done") }}
        {% endif %}
        group by video_id, day
    ),

    views as (
        select *
        from {{ current(ref("int_views")) }}
        where
            is_view
            {% if is_incremental() %}
                and (video_id, day) in (select video_id, day from stale)
            {% endif %}
    ),

    -- Cut at every midnight, so that each day of the wall clock can be added up on its own.
    pieces as (
        select
            video_id,
            day,
            arrayJoin(
                arrayFlatten(
                    arrayMap(
                        r -> arrayMap(
                            d -> cast(
                                (
                                    d,
                                    greatest(r.start, d * {{ ticks_a_day }}),
                                    least(r.stop, (d + 1) * {{ ticks_a_day }})
                                ),
                                'Tuple(clock_day UInt16, start Int64, stop Int64)'
                            ),
                            range(
                                intDiv(r.start, {{ ticks_a_day }}),
                                intDiv(r.stop - 1, {{ ticks_a_day }}) + 1
                            )
                        ),
                        concurrent_ticks
                    )
                )
            ) as piece
        from views
    ),

    gathered as (
        select
            video_id,
            day,
            toDate(piece.clock_day) as clock_day,
            cast(groupArray((piece.start, piece.stop)), {{ range_type() }}) as played
        from pieces
        group by video_id, day, clock_day
    ),

    -- Where sessions were before and are no more, an empty row takes the place of the old one.
    places as (
        select video_id, day, clock_day
        from gathered
        {% if is_incremental() %}
            union distinct
            select video_id, day, clock_day
            from {{ this }}
            where (video_id, day) in (select video_id, day from stale)
        {% endif %}
    ),

    concurrency as (
        select
            places.video_id as video_id,
            places.clock_day as clock_day,
            places.day as day,
            {{ range_edges("gathered.played") }} as raw_edges,
            {{ net_of_edges("raw_edges") }} as edges,
            stale.generation as generation
        from places
        inner join stale on places.video_id = stale.video_id and places.day = stale.day
        left join
            gathered
            on places.video_id = gathered.video_id
            and places.day = gathered.day
            and places.clock_day = gathered.clock_day
    )

select * except (raw_edges)
from concurrency
