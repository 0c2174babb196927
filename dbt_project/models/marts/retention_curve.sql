{{ config(materialized="view") }}

with
    totals as (select * from {{ current(ref("int_retention_totals")) }} where views > 0),

    -- Ranks are made after the curves: what they do not know yet is null.
    ranked as (
        select totals.*, arrayResize(ranks.relative, seconds, null) as relative
        from totals
        left join {{ ref("int_relative_performance") }} as ranks on totals.video_id = ranks.video_id
    ),

    counts as (
        {{ curve_counts("ranked", ["video_id"], {"relative_retention_performance": "relative"}) }}
    ),

    curve as (select video_id, {{ curve_figures() }}, relative_retention_performance from counts)

select *
from curve
