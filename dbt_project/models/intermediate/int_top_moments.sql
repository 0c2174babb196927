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

    -- Sums before each bucket, of the tested buckets alone.
    tested as (
        select
            video_id,
            intDiv(length(exits) * {{ var("moment_top_percent") }} + 99, 100) as least_buckets,
            arraySlice(bounds, tested_from + 1, tested_to - tested_from + 1) as edges,
            arraySlice(exits, tested_from + 1, tested_to - tested_from) as lost,
            arraySlice(risks, tested_from + 1, tested_to - tested_from) as present,
            arrayPushFront(arrayCumSum(lost), 0) as lost_before,
            arrayPushFront(arrayCumSum(present), 0) as present_before,
            arrayReduce(
                'quantileExactInclusive(0.5)',
                arrayMap(
                    (l, p) -> l / p,
                    arrayFilter((l, p) -> p > 0, lost, present),
                    arrayFilter(p -> p > 0, present)
                )
            ) as median_hazard
        from videos
        where tested_to > tested_from
    ),

    starts as (
        select
            video_id,
            median_hazard,
            place,
            start_second,
            arraySlice(arrayEnumerate(edges), place + least_buckets) as places,
            arraySlice(edges, place + least_buckets) as stops,
            arrayMap(l -> l - lost_start, arraySlice(lost_before, place + least_buckets)) as losses,
            arrayMap(
                p -> p - present_start, arraySlice(present_before, place + least_buckets)
            ) as presences
        from tested
        array join
            arrayEnumerate(edges) as place,
            edges as start_second,
            lost_before as lost_start,
            present_before as present_start
    ),

    calm as (
        select
            video_id,
            median_hazard,
            tuple(
                stop_place - place as buckets,
                place,
                stop_place,
                start_second,
                end_second,
                lost,
                present
            ) as stretch
        from starts
        array join places as stop_place, stops as end_second, losses as lost, presences as present
        where present > 0 and {{ wilson_high("lost", "present") }} < median_hazard / 2
    ),

    -- The longest first, of equal ones the earliest; what overlaps one that is taken is none.
    chosen as (
        select
            video_id,
            any(median_hazard) as median_hazard,
            arrayJoin(
                arrayFold(
                    (taken, next) -> if(
                        arrayExists(t -> t .2 < next .3 and next .2 < t .3, taken),
                        taken,
                        arrayPushBack(taken, next)
                    ),
                    arraySort(s -> (- s .1, s .2), groupArray(stretch)),
                    arraySlice(groupArray(stretch), 1, 0)
                )
            ) as top
        from calm
        group by video_id
    ),

    -- How many views fewer than at the median hazard, in points of all views.
    top_moments as (
        select
            chosen.video_id as video_id,
            top .4 as start_second,
            top .5 as end_second,
            top .6 as lost,
            top .7 as present,
            lost / present as hazard,
            median_hazard,
            100 * present / videos.views as points_of_hazard,
            points_of_hazard * (median_hazard - hazard) as points,
            points_of_hazard * (median_hazard - {{ wilson_high("lost", "present") }}) as points_low,
            points_of_hazard * (median_hazard - {{ wilson_low("lost", "present") }}) as points_high
        from chosen
        inner join videos on chosen.video_id = videos.video_id
    ),

    listed as (
        select
            video_id,
            arraySort(
                groupArray(
                    (
                        start_second,
                        end_second,
                        hazard,
                        median_hazard,
                        points,
                        points_low,
                        points_high
                    )
                )
            ) as stretches
        from top_moments
        group by video_id
    ),

    by_video as (
        select
            stale.video_id as video_id,
            cast(listed.stretches, {{ top_moment_type() }}) as stretches,
            stale.generation as generation
        from stale
        left join listed on stale.video_id = listed.video_id
    )

select *
from by_video
