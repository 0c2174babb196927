{#- What a summary counts, wherever it is made: of a video, a day of it, a segment of it.
    engagement_counts: aggregates over rows of int_views, whole numbers only, so that no order of summation can show.
    added_up: the same of days that are added up, without what is not additive (viewers, peaks).
    engagement_figures: the columns people read, from those counts; ratios are null where there are no views. -#}
{% macro additive_counts() -%}
    {{
        return(
            [
                "views",
                "engaged_views",
                "watch_time_us",
                "content_played_ms",
                "content_watched_ms",
                "completed_views",
                "rewatching_views",
                "seeks",
                "watching_3s",
                "watching_30s",
                "sessions",
                "implausible_sessions",
                "events",
                "intervals",
                "invalid_intervals",
            ]
        )
    }}
{%- endmacro %}

{% macro engagement_counts(rows) -%}
    countIf(is_view) as views,
    uniqExactIf(viewer_id, is_view) as unique_viewers,
    countIf(is_view and {{ is_engaged(rows) }}) as engaged_views,
    sumIf({{ rows }}.watch_time_us, is_view) as watch_time_us,
    sumIf({{ rows }}.content_played_ms, is_view) as content_played_ms,
    sumIf({{ rows }}.content_watched_ms, is_view) as content_watched_ms,
    countIf(is_view and {{ is_completed(rows) }}) as completed_views,
    countIf(is_view and {{ is_rewatched(rows) }}) as rewatching_views,
    sumIf({{ rows }}.seeks, is_view) as seeks,
    countIf(is_view and {{ is_watched_at(rows, 3) }}) as watching_3s,
    countIf(is_view and {{ is_watched_at(rows, 30) }}) as watching_30s,
    maxIntersectionsArrayIf(
        {{ rows }}.concurrent_ticks.start, {{ rows }}.concurrent_ticks.stop, is_view
    ) as peak_concurrent_viewers,
    count() as sessions,
    countIf(is_implausible) as implausible_sessions,
    sum({{ rows }}.events) as events,
    sum({{ rows }}.intervals) as intervals,
    sum({{ rows }}.invalid_intervals) as invalid_intervals,
    min({{ rows }}.first_event_ms) as first_event_ms,
    max({{ rows }}.last_event_ms) as last_event_ms,
    max({{ rows }}.last_ingested_at) as last_ingested_at
{%- endmacro %}

{% macro engagement_figures(counts) -%}
    {{ counts }}.views as views,
    {{ counts }}.unique_viewers as unique_viewers,
    {{ counts }}.engaged_views as engaged_views,
    {{ counts }}.watch_time_us / 1000000 as watch_time_s,
    {{ counts }}.content_played_ms / 1000 as content_played_s,
    {{ counts }}.content_watched_ms / 1000 as content_watched_s,
    if(views > 0, {{ counts }}.watch_time_us / 1000000 / views, null) as average_view_duration_s,
    if(
        views > 0, 100 * {{ counts }}.content_watched_ms / (views * {{ counts }}.duration_ms), null
    ) as average_view_percentage,
    if(views > 0, {{ counts }}.completed_views / views, null) as completion_rate,
    {# where D is shorter the curve has no such second -#}
    if(
        views > 0 and {{ counts }}.duration_ms > 3000, {{ counts }}.watching_3s / views, null
    ) as hook_retention_3s,
    if(
        views > 0 and {{ counts }}.duration_ms > 30000, {{ counts }}.watching_30s / views, null
    ) as intro_retention_30s,
    if(views > 0, {{ counts }}.rewatching_views / views, null) as rewatch_rate,
    if(views > 0, {{ counts }}.seeks / views, null) as seeks_per_view,
    {{ counts }}.peak_concurrent_viewers as peak_concurrent_viewers
{%- endmacro %}

{#- What is said of one session; rows is what int_views is called. -#}
{% macro is_engaged(rows) -%} {{ rows }}.content_watched_ms >= 3000 {%- endmacro %}

{% macro is_rewatched(rows) -%}
    {{ rows }}.content_played_ms > {{ rows }}.content_watched_ms
{%- endmacro %}

{#- Played past the later of D - 30 s and 95 % of D, in hundredths of a millisecond. -#}
{% macro is_completed(rows) -%}
    {{ rows }}.furthest_ms * 100
    > greatest({{ rows }}.duration_ms * 100 - 3000000, {{ rows }}.duration_ms * 95)
{%- endmacro %}

{% macro is_watched_at(rows, second) -%}
    arrayExists(r -> r.start <= {{ second }} and {{ second }} < r.stop, {{ rows }}.watched_seconds)
{%- endmacro %}
