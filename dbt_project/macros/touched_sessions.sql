{#- The sessions with an event stored since the last run began, less a window for inserts that became visible late, and
    what int_sessions knows of them. Noted once, before the model's statement: in it, each mention would be looked up
    anew. In a temporary table, so that it is this run's own; on disk, since after a long pause it may be most sessions
    there are. -#}
{% macro recent_events() -%}
    {{ source("raw", "playback_events") }}
    where
        ingested_at
        >= fromUnixTimestamp64Milli(assumeNotNull({{ read_from("int_sessions") }}), 'UTC')
        - toIntervalSecond({{ var("late_insert_window_seconds") }})
{%- endmacro %}

{% macro note_touched_sessions() -%}
    {%- if is_incremental() -%} {{ _temporary_table() }} {{ _touched_sessions() }} {%- endif -%}
{%- endmacro %}

{% macro _temporary_table() -%}
    {{
        return(
            "create or replace temporary table touched_sessions"
            " engine = MergeTree order by (video_id, session_id) as"
        )
    }}
{%- endmacro %}

{% macro _touched_sessions() -%}
    with
        -- Read without final: a copy that final would hide only adds a session to look at.
        touched as (
            select
                video_id,
                session_id,
                toUnixTimestamp64Milli(min(event_time)) as first_ms,
                toUnixTimestamp64Milli(max(event_time)) as last_ms
            from {{ recent_events() }}
            group by video_id, session_id
        ),

        known as (
            select
                video_id,
                session_id,
                groupUniqArrayArray(days) as days,
                argMax(fingerprint, generation) as fingerprint,
                argMax(last_ingested_at, generation) as last_ingested_at,
                min(first_event_ms) as first_ms,
                max(last_event_ms) as last_ms
            from {{ this }}
            where (video_id, session_id) in (select video_id, session_id from touched)
            group by video_id, session_id
        )

    select
        touched.video_id as video_id,
        touched.session_id as session_id,
        notEmpty(known.days) as is_known,
        known.days as days,
        known.fingerprint as fingerprint,
        known.last_ingested_at as last_ingested_at,
        least(touched.first_ms, known.first_ms) as first_ms,
        greatest(touched.last_ms, known.last_ms) as last_ms
    from touched
    left join known on touched.video_id = known.video_id and touched.session_id = known.session_id
{%- endmacro %}
