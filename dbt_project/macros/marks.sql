{#- How far each incremental model has read, so that a run that died anywhere is made good by the next one.
    A model first notes what it is about to read up to (begun), and when its insert is complete promotes that note
    (done); the next run starts from what is done. What a dead run had inserted is inserted again: the tables are
    ReplacingMergeTree, so that changes nothing.
    The counter `generation` numbers the runs that wrote rows: of two rows of a key the greater generation counts. -#}
{% macro create_marks() -%}
    create table if not exists {{ target.schema }}.marks (
        name String, mark SimpleAggregateFunction(max, UInt64)
    ) engine = {{ replicated() }}AggregatingMergeTree order by name
    comment 'How far each incremental model has read (name/begun, name/done), and the counter of their runs (generation)'
{%- endmacro %}

{% macro mark(name) -%}
    assumeNotNull((select toUInt64(max(mark)) from {{ target.schema }}.marks where name = '{{ name }}'))
{%- endmacro %}

{% macro next_generation() -%}
    insert into {{ target.schema }}.marks select 'generation', {{ mark("generation") }} + 1
{%- endmacro %}

{% macro begin_mark(model, value) -%}
    insert into {{ target.schema }}.marks select '{{ model }}/begun', {{ value }}
{%- endmacro %}

{% macro finish_mark(model) -%}
    insert into {{ target.schema }}.marks select '{{ model }}/done', {{ mark(model ~ "/begun") }}
{%- endmacro %}

{#- Values for hooks: the newest generation of a model's rows, and the clock in epoch milliseconds (42 bits, to the
    year 2109) with the generation above it. A clock that was set back is thereby noted all the same: the greatest mark
    is that of the newest run, not that of the latest clock. -#}
{% macro clock_now() -%}
    bitOr(bitShiftLeft({{ mark("generation") }}, 42), toUInt64(toUnixTimestamp64Milli(now64(3))))
{%- endmacro %}
{% macro newest_generation(model) -%} (select max(generation) from {{ target.schema }}.{{ model }}) {%- endmacro %}

{#- From when on a model that marks by the clock reads, in epoch milliseconds: 0, which is all, when its last run was
    later than now. Then that run's clock was wrong, and what was stored since is older than its mark. -#}
{% macro read_from(model) -%}
    (
        with {{ mark(model ~ "/done") }} % bitShiftLeft(toUInt64(1), 42) as done
        select if(done > toUnixTimestamp64Milli(now64(3)), 0, toInt64(done))
    )
{%- endmacro %}

{#- The days of videos whose views changed since this model's last whole run, which is marked by the newest generation
    of int_views. Rows that final would hide say that the day was touched all the same. -#}
{% macro stale_days() -%}
    select video_id, day, max(changed.generation) as generation
    from {{ ref("int_views") }} as changed
    {% if is_incremental() %} where changed.generation > {{ mark(this.identifier ~ "/done") }}
    {% endif %}
    group by video_id, day
{%- endmacro %}
