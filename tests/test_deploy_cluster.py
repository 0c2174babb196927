"""The same SQL for one server and for a cluster of replicas and shards: what changes, and what the engine says of it.

No cluster can be run here. The engine parses each statement, and refuses replicated tables outside of such databases.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.exceptions import DatabaseError

from retention_platform.errors import SettingsError
from retention_platform.orchestration.dbt_run import environment
from retention_platform.settings import load_settings
from retention_platform.warehouse import migrate as migrating
from retention_platform.warehouse.client import connect
from retention_platform.warehouse.cluster import for_cluster, on_shard, over_shards
from retention_platform.warehouse.migrate import migrate, migrations
from tests.conftest import Warehouse
from tests.dbt_support import Chain

STATEMENTS = [statement for migration in migrations() for statement in migration.statements]
STATEMENTS.append(migrating._LEDGER.strip())
#: What the engine says of a replicated table in a database that is not.
REFUSED = r"only supported when .* using the Replicated database engine"
#: Tables that hold something; those of the engine Null pass rows on.
STORED = re.compile(r"^engine = \w*MergeTree\b", re.MULTILINE)


@pytest.fixture
def client(empty_warehouse: Warehouse) -> Iterator[Client]:
    client = connect(empty_warehouse.settings)
    yield client
    client.close()


def formatted(client: Client, statement: str) -> str:
    """The statement as the engine understands it; raises DatabaseError when it does not."""
    return str(client.query("select formatQuery({sql:String})", parameters={"sql": statement}).result_rows[0][0])


def test_on_one_server_no_statement_is_changed() -> None:
    assert [for_cluster(statement, "") for statement in STATEMENTS] == STATEMENTS


def test_on_a_cluster_databases_and_what_stores_rows_are_replicated_and_nothing_else_is(client: Client) -> None:
    databases, stored = set[str](), 0
    for statement in STATEMENTS:
        changed = formatted(client, for_cluster(statement, "retention"))
        if statement.startswith("create database"):
            name = statement.split()[-1]
            databases.add(name)
            place = f"Replicated('/clickhouse/retention/{name}', '{{shard}}', '{{replica}}')"
            assert changed == f"CREATE DATABASE IF NOT EXISTS {name} ON CLUSTER retention\nENGINE = {place}"
            continue
        assert "ON CLUSTER" not in changed, "the database repeats it by itself"
        engines = re.findall(r"ENGINE = (\w+)", changed)
        if STORED.search(statement):
            stored += 1
            assert len(engines) == 1 and engines[0].startswith("Replicated"), changed
        back = changed.replace("ENGINE = Replicated", "ENGINE = ")
        assert back == formatted(client, statement), "only the engine differs"
    assert databases == {"raw", "live", "staging", "marts"}
    assert stored == sum(statement.count("MergeTree\n") for statement in STATEMENTS) >= 8


def test_on_shards_the_streams_tables_have_a_part_in_each_and_the_rest_is_whole_on_every_node(client: Client) -> None:
    places = dict[str, str]()
    for name in ("raw", "raw_local", "live", "live_local", "staging", "marts"):
        made = formatted(client, for_cluster(f"create database if not exists {name}", "retention", sharded=True))
        places[name] = re.findall(r"Replicated\('/clickhouse/retention/(\w+)', (.*)\)$", made)[0]
    own, whole = "'{shard}', '{replica}'", "'all', '{shard}-{replica}'"
    assert places == {name: (name, own if name.endswith("_local") else whole) for name in places}

    made = dict[str, set[str]]()
    for statement in STATEMENTS:
        if statement.startswith("create database"):
            continue
        changed = formatted(client, for_cluster(statement, "retention", sharded=True))
        assert "Distributed" not in changed
        assert changed == formatted(client, on_shard(for_cluster(statement, "retention")))
        assert changed.replace("_local.", ".") == formatted(client, for_cluster(statement, "retention"))
        for database, table in re.findall(r"CREATE TABLE IF NOT EXISTS (\w+)\.(\w+)", changed):
            made.setdefault(database, set()).add(table)
        # What erases viewers, and which rejected messages were sent again, is asked on every shard of all.
        assert not re.search(r"\b(raw|live)\.(?!erased_viewers|replayed_rejects|schema_migrations)\w", changed)
    assert made["raw"] == {"erased_viewers", "replayed_rejects", "schema_migrations"}
    assert {"inbox", "playback_events", "deliveries", "put_aside"} <= made["raw_local"]
    assert made["live_local"] == {"events", "ticks", "recent"} and made["marts"] == {"ai_insights"}


def test_the_key_of_shards_is_the_video_or_all_of_a_message_that_names_none(client: Client) -> None:
    def key(*columns: str) -> str:
        made = formatted(client, over_shards("retention", "raw_local", "inbox", frozenset(columns)))
        assert made.startswith(
            "CREATE TABLE IF NOT EXISTS raw.inbox AS raw_local.inbox\nENGINE = Distributed(retention, "
        )
        return made.removesuffix(")").split("raw_local, inbox, ")[1]

    messages = ['{"video_id": "v"}', '{ "n": 1, "video_id":"v"}', '{"n": 1}', '{"n": 2}', "no json", '{"video_id": 1}']
    asked = f"select {key('payload', 'key')} from (select arrayJoin({{all:Array(String)}}) as payload)"
    places = [row[0] for row in client.query(asked, parameters={"all": messages}).result_rows]
    by_video = client.query(f"select {key('video_id', 'day')} from (select 'v' as video_id)").result_rows[0][0]
    assert places[:2] == [by_video, by_video]
    assert len(set(places)) == 5


def test_a_migration_names_the_cluster_before_anything_else(monkeypatch: pytest.MonkeyPatch) -> None:
    class Recording:
        """A client that stops at the first table: what came before is kept."""

        def __init__(self) -> None:
            self.commands: list[str] = []

        def command(self, sql: str) -> None:
            self.commands.append(sql)

        def query(self, *_: Any, **__: Any) -> Any:
            raise InterruptedError

    recording = Recording()
    with pytest.raises(InterruptedError):
        migrate(recording, cluster="retention")  # type: ignore[arg-type]
    first, ledger = recording.commands
    assert "on cluster `retention`" in first
    assert "engine = ReplicatedReplacingMergeTree" in ledger


def test_dbt_makes_the_same_models_replicated_with_the_same_manifest(
    empty_warehouse: Warehouse, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    chain = Chain(empty_warehouse.settings, tmp_path)
    try:
        chain.build("--select", "stg_playback_events", "stg_videos")
        assert chain.ask("select engine from system.tables where database = 'staging' and name = 'marks'") == [
            ("AggregatingMergeTree",)
        ]
        monkeypatch.setenv("CLICKHOUSE_CLUSTER", "retention")
        with pytest.raises(AssertionError, match=rf"int_sessions.*{REFUSED}"):
            chain.build("--select", "int_sessions")
        monkeypatch.delenv("CLICKHOUSE_CLUSTER")
        chain.build("--select", "int_sessions")
    finally:
        chain.client.close()


def test_dagster_tells_dbt_of_the_cluster_and_a_name_that_is_none_is_refused() -> None:
    assert environment(load_settings(clickhouse_cluster="retention"))["CLICKHOUSE_CLUSTER"] == "retention"
    with pytest.raises(SettingsError, match="CLICKHOUSE_CLUSTER"):
        load_settings(clickhouse_cluster="a' on")


def test_the_engine_takes_a_replicated_table_in_a_replicated_database_only(client: Client) -> None:
    table = next(statement for statement in STATEMENTS if STORED.search(statement))
    other = for_cluster(table, "retention").replace("raw.", "raw.other_", 1)
    with pytest.raises(DatabaseError, match=REFUSED):
        client.command(other)
