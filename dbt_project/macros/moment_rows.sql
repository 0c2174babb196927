{#- Of a model that has one row a video, made of that video's row of another model: the videos whose row is not made of
    the current one. Compared by generation, not by time: whatever a crash left undone is still different in the next
    run. -#}
{% macro stale_videos(parent) -%}
    select video_id, generation
    from {{ current(parent) }}
    {% if is_incremental() %}
        where (video_id, generation) not in (select video_id, generation from {{ current(this) }})
    {% endif %}
{%- endmacro %}

{#- The current rows of another model that are those of stale videos. -#}
{% macro of_stale(parent) -%}
    select * from {{ current(parent) }} where video_id in (select video_id from stale)
{%- endmacro %}

{#- What the models of moments keep of a video: an array with one tuple a moment, in order of place. -#}
{% macro candidate_type() -%} 'Array(Tuple(
        kind String,
        start_second Int64,
        end_second Int64,
        peak_second Int64,
        left_second Int64,
        right_second Int64,
        prominence Float64,
        threshold Float64,
        level Float64,
        baseline Float64
    ))' {%- endmacro %}

{% macro resample_type() -%} 'Array(Tuple(
        kind String,
        start_second Int64,
        height Float64,
        low Float64,
        high Float64,
        confidence Float64
    ))' {%- endmacro %}

{% macro top_moment_type() -%} 'Array(Tuple(
        start_second Int64,
        end_second Int64,
        hazard Float64,
        median_hazard Float64,
        points Float64,
        points_low Float64,
        points_high Float64
    ))' {%- endmacro %}

{% macro dropoff_type() -%} 'Array(Tuple(
        start_second UInt32,
        end_second UInt32,
        views_lost UInt64,
        at_risk UInt64,
        expected_views_lost Float64,
        excess_points Float64,
        baseline_hazard Float64,
        p_value Float64,
        q_value Float64
    ))' {%- endmacro %}

{% macro moment_type() -%} 'Array(Tuple(
        kind String,
        start_second UInt32,
        end_second UInt32,
        peak_second Nullable(UInt32),
        magnitude Float64,
        magnitude_low Float64,
        magnitude_high Float64,
        level Nullable(Float64),
        baseline Nullable(Float64),
        prominence Nullable(Float64),
        confidence Nullable(Float64),
        at_risk UInt64,
        views_lost UInt64,
        retention_rate Float64
    ))' {%- endmacro %}
