{#- Every condition holds in every row: one scan for all of them, since each test costs a query. -#}
{% test rows_satisfy(model, conditions, latest=false) %}
    select *
    from {{ current(model) if latest else model }}
    where
        {% for condition in conditions -%}
            not ({{ condition }}) {{ "or" if not loop.last }}
        {% endfor %}
{% endtest %}
