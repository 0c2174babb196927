{{ config(materialized="view") }}

{% set step = var("concurrency_step_s") %}

with
    runs as (
        select clock_day, arrayJoin(runs) as run from {{ current(ref("int_concurrency_days")) }}
    ),

    -- A run begins with its viewers and ends without them; so much less than an instant a row.
    edges as (
        select
            clock_day,
            arrayJoin(
                [(run.start, toInt64(run.viewers)), (run.stop, - toInt64(run.viewers))]
            ) as edge
        from runs
    ),

    changes as (
        select clock_day, edge .1 as tick, sum(edge .2) as difference
        from edges
        group by clock_day, tick
    ),

    levels as (
        select
            clock_day,
            tick,
            sum(difference) over (
                partition by clock_day order by tick rows unbounded preceding
            ) as viewers,
            leadInFrame(tick, 1, tick) over (
                partition by clock_day
                order by tick
                rows between unbounded preceding and unbounded following
            ) as next_tick
        from changes
    ),

    instants as (
        select
            clock_day as day,
            toDateTime(arrayJoin(range(tick, next_tick)) * {{ step }}, 'UTC') as at,
            toUInt64(viewers) as concurrent_viewers
        from levels
        where viewers > 0
    )

select *
from instants
