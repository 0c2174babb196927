{{ config(materialized="view") }}

{{ curve_rows(ref("int_curves"), ["video_id"], ["relative_retention_performance"]) }}
