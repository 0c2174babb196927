{{ config(materialized="view") }}

{% set step = var("concurrency_step_s") %}

with
    runs as (
        select video_id, clock_day, arrayJoin(runs) as run
        from {{ current(ref("int_concurrency_days")) }}
    ),

    instants as (
        select
            video_id,
            clock_day as day,
            toDateTime(arrayJoin(range(run.start, run.stop)) * {{ step }}, 'UTC') as at,
            run.viewers as concurrent_viewers
        from runs
    )

select *
from instants
