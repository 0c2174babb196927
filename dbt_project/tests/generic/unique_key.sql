{#- One row a key. latest: the model is read through the macro current. -#}
{% test unique_key(model, columns, latest=false) %}
    select {{ columns | join(", ") }}
    from {{ current(model) if latest else model }}
    group by {{ columns | join(", ") }}
    having count() > 1
{% endtest %}
