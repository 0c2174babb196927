"""What dbt-clickhouse adds: engines, incremental strategies, materialized views, dictionaries, contracts, clusters."""

from __future__ import annotations

import json
from typing import Any

import pytest
from dbt.tests.util import run_dbt, run_dbt_and_capture, write_file

Models = dict[str, str]

PEOPLE = "id,name,age,team\n1,Ada,36,a\n2,Bob,41,a\n3,Cleo,19,b\n"
SOURCES = """
sources:
  - name: given
    schema: "{{ target.schema }}"
    tables:
      - name: people
"""


def rows(project: Any, query: str) -> list[tuple[Any, ...]]:
    return [tuple(row) for row in project.run_sql(query, fetch="all")]


def models_of(results: Any) -> list[Any]:
    """The results without those of hooks."""
    return [result for result in results if result.node.resource_type == "model"]


def create_statement(project: Any, table: str) -> str:
    query = (
        f"select create_table_query from system.tables where database = '{project.test_schema}' and name = '{table}'"
    )
    return str(rows(project, query)[0][0])


class TestTables:
    @pytest.fixture(scope="class")
    @classmethod
    def models(cls) -> Models:
        return {
            "full.sql": """
                {{ config(
                    materialized='table', engine='ReplacingMergeTree(version)', order_by=['id'], primary_key='id',
                    partition_by='toYYYYMM(day)', ttl='day + interval 100 year',
                    settings={'index_granularity': 1024, 'deduplicate_merge_projection_mode': 'rebuild'},
                    query_settings={'max_threads': 1},
                    indexes=[{'name': 'by_text', 'definition': 'text type bloom_filter'}],
                    projections=[{'name': 'by_day', 'query': 'select day, count() group by day'}],
                    post_hook=['insert into {{ this }} select 3, 1, today(), $$hooked$$']
                ) }}
                select 1::UInt32 as id, 1::UInt32 as version, today() as day, 'it''s' as text
                union all select 2, 1, today(), 'é'
            """,
            "memory.sql": "{{ config(materialized='table', engine='Memory') }} select * from {{ ref('full') }}",
            "view.sql": "{{ config(materialized='view') }} select id, text from {{ ref('memory') }}",
            "ephemeral.sql": "{{ config(materialized='ephemeral') }} select * from {{ ref('view') }} where id > 1",
            "last.sql": "select count() as n from {{ ref('ephemeral') }}",
            "aliased.sql": "{{ config(alias='other_name', schema='elsewhere') }} select 7 as n",
        }

    @pytest.fixture(scope="class")
    @classmethod
    def project_config_update(cls) -> dict[str, Any]:
        return {
            "on-run-start": ["create table if not exists {{ target.schema }}.runs (n UInt8) engine = Memory"],
            "on-run-end": ["insert into {{ target.schema }}.runs values (1)"],
        }

    def test_models_are_built_exchanged_and_built_again(self, project: Any) -> None:
        for _ in range(2):
            assert len(models_of(run_dbt(["run"]))) == 5
        statement = create_statement(project, "full")
        for part in (
            "ReplacingMergeTree(version)",
            "PARTITION BY (toYYYYMM(day))",
            "TTL day",
            "index_granularity = 1024",
        ):
            assert part in statement
        assert "INDEX by_text text TYPE bloom_filter" in statement
        assert "PROJECTION by_day" in statement
        assert rows(project, "select id, text from full order by id") == [(1, "it's"), (2, "é"), (3, "hooked")]
        assert rows(project, "select n from last") == [(2,)]
        assert rows(project, f"select n from {project.test_schema}_elsewhere.other_name") == [(7,)]
        assert rows(project, "select sum(n) from runs") == [(2,)]
        project.run_sql(f"drop database {project.test_schema}_elsewhere")

    def test_a_model_that_fails_leaves_the_old_one(self, project: Any) -> None:
        run_dbt(["run", "--select", "last", "view", "memory", "full"])
        write_file("{{ config(materialized='table') }} select throwIf(1, 'my words') as n", "models", "last.sql")
        results, log = run_dbt_and_capture(["run", "--select", "last"], expect_pass=False)
        assert [result.status for result in models_of(results)] == ["error"]
        assert "my words" in log
        assert rows(project, "select n from last") == [(2,)]


class TestIncremental:
    @pytest.fixture(scope="class")
    @classmethod
    def models(cls) -> Models:
        first = "select number::UInt64 as k, toString(number) as v from numbers(100)"
        later = "select 2::UInt64 as k, 'changed' as v union all select 102, 'new'"
        body = f"{{% if is_incremental() %}} {later} {{% else %}} {first} {{% endif %}}"

        def model(**config: Any) -> str:
            return f"{{{{ config(materialized='incremental', order_by='k', **{config!r}) }}}} {body}"

        partitioned = """
            {{ config(materialized='incremental', incremental_strategy='insert_overwrite',
                       partition_by=['p'], order_by=['k']) }}
            {% if is_incremental() %} select 1::UInt8 as p, 2::UInt8 as k, 'e' as v union all select 3, 2, 'f'
            {% else %} select 1::UInt8 as p, 1::UInt8 as k, 'a' as v union all select 2, 3, 'c' {% endif %}
        """
        grows = """
            {{ config(materialized='incremental', order_by='k', unique_key='k', on_schema_change=var('change')) }}
            {% if is_incremental() %} select 2 as k, 'x' as added {% else %} select 1 as k {% endif %}
        """
        return {
            "appended.sql": model(incremental_strategy="append"),
            "deleted.sql": model(incremental_strategy="delete+insert", unique_key="k"),
            "legacy.sql": model(incremental_strategy="legacy", unique_key="k"),
            "compound.sql": model(incremental_strategy="delete+insert", unique_key=["k", "v"]),
            "overwritten.sql": partitioned,
            "grows.sql": grows,
        }

    @pytest.fixture(scope="class")
    @classmethod
    def project_config_update(cls) -> dict[str, Any]:
        return {"vars": {"change": "ignore"}}

    def test_every_strategy_does_what_it_says(self, project: Any) -> None:
        select = ["run", "--exclude", "grows"]
        run_dbt(select)
        run_dbt(select)
        changed = "select count(), countIf(v = 'changed'), countIf(k = 2), countIf(k = 102) from "
        assert rows(project, changed + "appended") == [(102, 1, 2, 1)]
        assert rows(project, changed + "deleted") == [(101, 1, 1, 1)]
        assert rows(project, changed + "legacy") == [(101, 1, 1, 1)]
        assert rows(project, changed + "compound") == [(102, 1, 2, 1)]
        assert rows(project, "select * from overwritten order by p, k") == [(1, 2, "e"), (2, 3, "c"), (3, 2, "f")]
        run_dbt(["run", "--full-refresh", "--select", "deleted"])
        assert rows(project, changed + "deleted") == [(100, 0, 1, 0)]

    def test_changes_of_the_schema_are_met_as_configured(self, project: Any) -> None:
        def twice(change: str, **options: Any) -> Any:
            arguments = ["run", "--select", "grows", "--vars", json.dumps({"change": change})]
            run_dbt([*arguments, "--full-refresh"])
            return run_dbt(arguments, **options)

        twice("ignore")
        assert rows(project, "select * from grows order by k") == [(1,), (2,)]
        twice("append_new_columns")
        assert rows(project, "select * from grows order by k") == [(1, ""), (2, "x")]
        (failed,) = twice("fail", expect_pass=False)
        assert failed.status == "error"


class TestMaterializedViews:
    @pytest.fixture(scope="class")
    @classmethod
    def seeds(cls) -> Models:
        return {"people.csv": PEOPLE, "schema.yml": SOURCES}

    @pytest.fixture(scope="class")
    @classmethod
    def models(cls) -> Models:
        return {
            "teams.sql": """
                {{ config(materialized='materialized_view', engine='SummingMergeTree()', order_by='team') }}
                select team, count() as n from {{ source('given', 'people') }}
                {% if var('old', false) %} where age > 20 {% endif %} group by team
            """,
            "refreshed.sql": """
                {{ config(
                    materialized='materialized_view', engine='MergeTree()', order_by='team',
                    refreshable={'interval': 'EVERY 1 SECOND'}
                ) }}
                select team, avg(age) as age from {{ source('given', 'people') }} group by team
            """,
        }

    def test_views_take_up_what_is_inserted_later(self, project: Any) -> None:
        run_dbt(["seed"])
        run_dbt(["run", "--select", "teams"])
        counts = "select team, sum(n) from teams group by team order by team"
        assert rows(project, counts) == [("a", 2), ("b", 1)]
        project.run_sql("insert into people values (4, 'Dan', 10, 'b'), (5, 'Eve', 50, 'c')")
        assert rows(project, counts) == [("a", 2), ("b", 2), ("c", 1)]
        run_dbt(["run", "--full-refresh", "--select", "teams", "--vars", json.dumps({"old": True})])
        assert rows(project, counts) == [("a", 2), ("c", 1)]

    def test_a_refreshable_view_is_refreshed(self, project: Any) -> None:
        run_dbt(["seed", "--full-refresh"])
        run_dbt(["run", "--select", "refreshed"])
        query = f"select status, exception from system.view_refreshes where database = '{project.test_schema}'"
        assert [status for status, _ in rows(project, query)] in (["Scheduled"], ["Running"])
        project.run_sql("system refresh view refreshed_mv")
        project.run_sql("system wait view refreshed_mv")
        assert rows(project, "select team, age from refreshed order by team") == [("a", 38.5), ("b", 19.0)]


class TestDictionaries:
    @pytest.fixture(scope="class")
    @classmethod
    def seeds(cls) -> Models:
        return {"people.csv": PEOPLE, "schema.yml": SOURCES}

    @pytest.fixture(scope="class")
    @classmethod
    def models(cls) -> Models:
        fields = "fields=[('id', 'Int32'), ('name', 'String')], primary_key='id', lifetime='MIN 0 MAX 0'"
        return {
            "named.sql": "{{ config(materialized='dictionary', layout='HASHED()', source_type='clickhouse', "
            + fields
            + ") }} select id, upper(name) as name from {{ source('given', 'people') }}",
        }

    def test_dictionaries_are_loaded_and_reloaded(self, project: Any) -> None:
        run_dbt(["seed"])
        run_dbt(["run"])
        assert rows(project, "select dictGet(named, 'name', 3), dictGetOrDefault(named, 'name', 9, '-')") == [
            ("CLEO", "-")
        ]
        project.run_sql("insert into people values (9, 'Ivy', 20, 'z')")
        project.run_sql("system reload dictionary named")
        assert rows(project, "select dictGet(named, 'name', 9)") == [("IVY",)]
        run_dbt(["run"])


class TestContracts:
    @pytest.fixture(scope="class")
    @classmethod
    def models(cls) -> Models:
        good = "{{ config(materialized='table') }} select 1::Int32 as id, 'x'::LowCardinality(String) as code"
        return {
            "kept.sql": good,
            "broken.sql": "{{ config(materialized='table') }} select 1::Int64 as id, 'x' as other",
            "violated.sql": good.replace("1::Int32", "-1::Int32"),
            "schema.yml": "models:" + "".join(cls._model(name) for name in ("kept", "broken", "violated")),
        }

    @staticmethod
    def _model(name: str) -> str:
        return f"""
  - name: {name}
    config: {{contract: {{enforced: true}}}}
    constraints: [{{type: check, name: positive, expression: id > 0}}]
    columns:
      - {{name: id, data_type: Int32}}
      - {{name: code, data_type: LowCardinality(String)}}
"""

    def test_contracts_and_constraints_are_enforced(self, project: Any) -> None:
        results, log = run_dbt_and_capture(["run"], expect_pass=False)
        assert {result.node.name: str(result.status) for result in results} == {
            "kept": "success",
            "broken": "error",
            "violated": "error",
        }
        assert "missing in contract" in log
        assert "data type mismatch" in log
        assert "CONSTRAINT positive CHECK (id > 0)" in create_statement(project, "kept")
        described = rows(project, "describe table kept")
        assert [row[:2] for row in described] == [("id", "Int32"), ("code", "LowCardinality(String)")]


class TestSnapshots:
    @pytest.fixture(scope="class")
    @classmethod
    def snapshots(cls) -> Models:
        return {
            "kept.sql": """
                {% snapshot kept %}
                {{ config(target_schema=target.schema, unique_key='id', strategy='check', check_cols='all') }}
                select id, name from {{ target.schema }}.people
                {% endsnapshot %}
            """
        }

    def test_a_snapshot_keeps_what_was(self, project: Any) -> None:
        project.run_sql("create table people (id UInt32, name String) engine = MergeTree order by id")
        project.run_sql("insert into people values (1, 'Ada'), (2, 'Bob'), (3, 'Cleo')")
        run_dbt(["snapshot"])
        project.run_sql("alter table people update name = 'Adele' where id = 1 settings mutations_sync = 1")
        project.run_sql("insert into people values (4, 'Dan')")
        run_dbt(["snapshot"])
        run_dbt(["snapshot"])
        assert rows(project, "select id, name, dbt_valid_to is null from kept order by id, dbt_valid_from") == [
            (1, "Ada", 0),
            (1, "Adele", 1),
            (2, "Bob", 1),
            (3, "Cleo", 1),
            (4, "Dan", 1),
        ]


class TestSeeds:
    @pytest.fixture(scope="class")
    @classmethod
    def seeds(cls) -> Models:
        many = "n,text\n" + "".join(f'{n},"line {n}, ""quoted"""\n' for n in range(5000))
        return {
            "many.csv": many,
            "semicolons.csv": "a;b\n1;x\n2;\n",
            "nothing.csv": "a,b\n",
            "schema.yml": """
seeds:
  - name: semicolons
    config: {delimiter: ";", column_types: {a: UInt16, b: Nullable(String)}}
  - name: nothing
    config: {column_types: {a: Int32, b: "DateTime64(3)"}}
""",
        }

    def test_seeds_are_loaded_and_loaded_again(self, project: Any) -> None:
        for options in ([], [], ["--full-refresh"]):
            run_dbt(["seed", *options])
            assert rows(project, "select count(), sum(n), any(text) like 'line%\"quoted\"' from many") == [
                (5000, sum(range(5000)), 1)
            ]
            assert rows(project, "select * from semicolons order by a") in ([(1, "x"), (2, None)], [(1, "x"), (2, "")])
        assert [row[1] for row in rows(project, "describe table semicolons")] == ["UInt16", "Nullable(String)"]
        assert rows(project, "select count() from nothing") == [(0,)]


class TestUnitTests:
    @pytest.fixture(scope="class")
    @classmethod
    def models(cls) -> Models:
        return {
            "given.sql": "select 1 as n, '' as s, [1]::Array(UInt8) as a, now()::DateTime64(3) as t",
            "doubled.sql": "select n * 2 as m, upper(s) as s, arraySum(a) as total, t from {{ ref('given') }}",
            "schema.yml": """
unit_tests:
  - name: right
    model: doubled
    given:
      - input: ref('given')
        rows:
          - {n: 2, s: "it's", a: "[1, 2]", t: "2024-01-01 00:00:00.123"}
          - {n: 3, s: "é", a: "[]", t: "2024-01-01 00:00:00"}
    expect:
      rows:
        - {m: 4, s: "IT'S", total: 3}
        - {m: 6, s: "é", total: 0}
  - name: wrong
    model: doubled
    given: [{input: ref('given'), rows: [{n: 2}]}]
    expect: {rows: [{m: 5}]}
""",
        }

    def test_unit_tests_pass_and_fail_as_they_should(self, project: Any) -> None:
        run_dbt(["run"])
        results = run_dbt(["test"], expect_pass=False)
        assert {result.node.name: str(result.status) for result in results} == {
            "right": "pass",
            "wrong": "fail",
        }


class TestPersistedDocs:
    @pytest.fixture(scope="class")
    @classmethod
    def models(cls) -> Models:
        return {
            "table_of.sql": "{{ config(materialized='table') }} select 1 as id",
            "view_of.sql": "{{ config(materialized='view') }} select id from {{ ref('table_of') }}",
            "schema.yml": "models:"
            + "".join(
                f"""
  - name: {name}_of
    description: "It's a {name}; -- \\"quoted\\" \\\\ and %s"
    columns: [{{name: id, description: 'é, the key'}}]
"""
                for name in ("table", "view")
            ),
        }

    @pytest.fixture(scope="class")
    @classmethod
    def project_config_update(cls) -> dict[str, Any]:
        return {"models": {"test": {"+persist_docs": {"relation": True, "columns": True}}}}

    def test_descriptions_become_comments(self, project: Any) -> None:
        run_dbt(["run"])
        tables = rows(
            project, f"select name, comment from system.tables where database = '{project.test_schema}' order by 1"
        )
        assert tables == [(f"{name}_of", f'It\'s a {name}; -- "quoted" \\ and %s') for name in ("table", "view")]
        columns = f"select comment from system.columns where database = '{project.test_schema}' and table = 'table_of'"
        assert rows(project, columns) == [("é, the key",)]


class TestParallelModels:
    @pytest.fixture(scope="class")
    @classmethod
    def models(cls) -> Models:
        return {
            f"m{number}.sql": "{{ config(materialized='table') }} select sleepEachRow(0.01) as n from numbers(10)"
            for number in range(12)
        }

    def test_many_models_are_built_at_once(self, project: Any) -> None:
        results = run_dbt(["run", "--threads", "8"])
        assert [str(result.status) for result in results] == ["success"] * 12
        assert rows(project, f"select count() from system.tables where database = '{project.test_schema}'") == [(12,)]


class TestGrants:
    @pytest.fixture(scope="class")
    @classmethod
    def models(cls) -> Models:
        return {"granted.sql": "{{ config(materialized='table', grants={'select': ['somebody']}) }} select 1 as id"}

    def test_grants_are_given(self, project: Any) -> None:
        try:
            project.run_sql("create user if not exists somebody identified with no_password")
            project.run_sql("grant select on system.one to somebody")
        except Exception as error:
            if "UNKNOWN_ROLE" in str(error) or "ACCESS_DENIED" in str(error):
                project.run_sql("drop user if exists somebody")
                pytest.skip("the engine has nowhere to keep users, so none can be granted anything")
            raise
        run_dbt(["run"])
        granted = "select access_type from system.grants where user_name = 'somebody' and table = 'granted'"
        assert rows(project, granted) == [("SELECT",)]
        project.run_sql("drop user somebody")


class TestDistributed:
    @pytest.fixture(scope="class")
    @classmethod
    def models(cls) -> Models:
        config = "{{ config(materialized='distributed_table', order_by='n') }}"
        return {"spread.sql": f"{config} select number as n from numbers(9)"}

    def test_without_a_cluster_in_the_profile_it_says_so(self, project: Any) -> None:
        (result,) = run_dbt(["run"], expect_pass=False)
        assert result.status == "error"
        assert "cluster" in result.message.lower()


class TestCache:
    @pytest.fixture(scope="class")
    @classmethod
    def models(cls) -> Models:
        return {
            "One.sql": "{{ config(materialized='table') }} select 1 as n",
            "two.sql": "{{ config(schema='elsewhere') }} select 2 as n",
        }

    @pytest.mark.parametrize(("options", "known"), [([], {"One", "two"}), (["--cache-selected-only"], {"One"})])
    def test_dbt_knows_what_is_there_before_it_begins(self, project: Any, options: list[str], known: set[str]) -> None:
        run_dbt(["run"])
        run_dbt([*options, "run", "--select", "One"])
        found = {(key.schema, key.identifier) for key in project.adapter.cache.relations}
        schemas = {"One": project.test_schema, "two": f"{project.test_schema}_elsewhere"}
        assert found == {(schemas[name], name) for name in known}
