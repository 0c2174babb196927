"""The same SQL for one server and for a cluster of replicas and shards: what changes, and what the engine says of it.

No cluster can be run here. The engine parses each statement, and refuses replicated tables outside of such databases.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.exceptions import DatabaseError
from clickhouse_connect.driver.httpclient import HttpClient

from retention_platform.contract import EVENTS_TOPIC
from retention_platform.embedded import clickhouse as embedded_clickhouse
from retention_platform.errors import ServiceError, SettingsError
from retention_platform.ingest import erase as erasing
from retention_platform.ingest.batch import Source
from retention_platform.ingest.erase import Erased, erase
from retention_platform.ingest.sink import ClickHouseSink
from retention_platform.orchestration.dbt_run import environment
from retention_platform.settings import load_settings
from retention_platform.warehouse import migrate as migrating
from retention_platform.warehouse.client import connect
from retention_platform.warehouse.cluster import for_cluster, on_shard, over_shards, quorum
from retention_platform.warehouse.migrate import migrate, migrations
from tests.conftest import Warehouse
from tests.dbt_support import Chain
from tests.test_erase import GONE, some_events, wrong_messages

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
        back = re.sub(
            r"\breplicated_deduplication_window = (\d+), replicated_deduplication_window_seconds = \d+",
            r"non_replicated_deduplication_window = \1",
            back,
        )
        assert back == formatted(client, statement), "only the engine and what remembers tokens differ"
    assert databases == {"raw", "live", "staging", "marts"}
    assert stored == sum(statement.count("MergeTree\n") for statement in STATEMENTS) >= 8


def test_on_a_cluster_tokens_are_remembered_as_many_and_not_for_an_hour_alone(client: Client) -> None:
    windows = 0
    for statement in STATEMENTS:
        known = dict(re.findall(r"(\w*deduplication_window\w*) = (\d+)", statement))
        for sharded in (False, True):
            on_cluster = for_cluster(statement, "retention", sharded=sharded)
            made = dict(re.findall(r"(\w*deduplication_window\w*) = (\d+)", on_cluster))
            assert len(made) == 2 * len(known)
            if known:
                windows += 1
                assert made["replicated_deduplication_window"] == known["non_replicated_deduplication_window"]
                assert int(made["replicated_deduplication_window_seconds"]) >= 7 * 86_400, "as long as topics are kept"
                named = "select count() from system.replicated_merge_tree_settings where name in {names:Array(String)}"
                assert client.query(named, parameters={"names": list(made)}).result_rows == [(2,)]
    assert windows == 2 * 7


def test_what_deletes_is_the_same_on_every_replica_and_what_erasing_inserts_waits_for_every_shard(
    client: Client, empty_warehouse: Warehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As mutations of replicated tables are held to: no subquery, no function that tells two replicas two things."""
    sent = list[tuple[str, dict[str, Any]]]()
    command, insert = HttpClient.command, HttpClient.insert

    def recording(self: HttpClient, cmd: str, *rest: Any, **named: Any) -> Any:
        sent.append((" ".join(cmd.split()).lower(), named.get("settings") or {}))
        return command(self, cmd, *rest, **named)

    def inserting(self: HttpClient, table: str, *rest: Any, **named: Any) -> Any:
        sent.append((f"insert into {table}", named.get("settings") or {}))
        return insert(self, table, *rest, **named)

    monkeypatch.setattr(HttpClient, "command", recording)
    monkeypatch.setattr(HttpClient, "insert", inserting)
    monkeypatch.setattr(erasing, "_IDS_A_DELETE", 3)
    sink, source = ClickHouseSink(empty_warehouse.settings), Source("log", "playback_events", 0)
    events = some_events(5, 40)
    ids = {"ids": [event["event_id"] for event in events if event["viewer_id"] == GONE]}
    messages = [*events, *wrong_messages(GONE)]
    rows = [(at, 0, b"k", json.dumps(message).encode()) for at, message in enumerate(messages)]
    sink.insert(source, rows, "token")
    other = next(at for at, event in enumerate(events) if event["viewer_id"] != GONE)
    sink.reject(source, rows[other : other + 1], ["no such luck"], "token")
    live = "select count() from live.events where event_id in {ids:Array(UUID)}"
    assert client.query(live, parameters=ids).result_rows == [(len(ids["ids"]),)] and len(ids["ids"]) > 6
    assert erase(client, [GONE]) == Erased(events=len(ids["ids"]), rejects=3)
    assert client.query(live, parameters=ids).result_rows == [(0,)]

    mutations = {text for text, _ in sent if re.match(r"delete from|alter table \S+ (delete|apply)", text)}
    assert {re.findall(r"(?:raw|live)\.\w+", text)[0] for text in mutations} == {
        *("raw.playback_events", "raw.videos", "raw.rejected_events", "live.events", "live.ticks")
    }
    differs = "select lower(name) from system.functions where not deterministic"
    differing = {name for (name,) in client.query(differs).result_rows}
    assert "now" in differing
    for text in mutations:
        assert "select" not in text
        assert not differing & set(re.findall(r"(\w+)\(", text)), text
    # Who was erased every node holds whole.
    inserts = {text: settings for text, settings in sent if re.match("insert into (?!raw.erased_viewers)", text)}
    assert {text.split()[2] for text in inserts} == {
        *("raw.erased_messages", "raw.deliveries", "live.ticks", "raw.put_aside")
    }
    assert all(settings["distributed_foreground_insert"] == 1 for settings in inserts.values())


@pytest.mark.parametrize("sharded", [False, True])
def test_before_erasing_decides_by_what_is_stored_every_replica_catches_up(
    client: Client, monkeypatch: pytest.MonkeyPatch, sharded: bool
) -> None:
    """Replicated is nothing here, so the statements are told from the schema and kept from the engine."""
    tables = ["live.events", "raw.playback_events", "raw.rejected_events"]
    asked = list[str]()

    class Cluster:
        """One server, with the answers of a cluster about engines, nodes and where shards store their part."""

        def __getattr__(self, name: str) -> Any:
            return getattr(client, name)

        def query(self, sql: str, **named: Any) -> Any:
            if "engine like 'Replicated%'" in sql:
                return SimpleNamespace(result_rows=[(place,) for place in sorted(named["parameters"]["places"])])
            if "system.databases" in sql:
                return SimpleNamespace(result_rows=[(int(sharded),)])
            asked.append(" ".join(sql.split()).lower())
            here = sql.replace("clusterAllReplicas('retention', system.processes)", "system.processes")
            return client.query(here, **named)

        def command(self, sql: str, **named: Any) -> Any:
            asked.append(" ".join(sql.split()).lower())
            if sql.startswith("system sync"):
                assert "SYNC REPLICA" in formatted(client, sql)
                return None
            return client.command(sql.replace("_local.", "."), **named)

    rows = [["log", EVENTS_TOPIC, 0, at, 0, "", json.dumps(event)] for at, event in enumerate(some_events(6, 10))]
    columns = ["log_id", "topic", "partition", "offset", "message_time", "key", "payload"]
    client.insert("raw.inbox", rows, column_names=columns)
    assert erase(Cluster(), [GONE], cluster="retention").events  # type: ignore[arg-type]
    syncs = [
        f"system sync replica on cluster `retention` {on_shard(table) if sharded else table} lightweight"
        for table in tables
    ]
    first = next(at for at, text in enumerate(asked) if "from raw.playback_events" in text)
    assert asked[first - 3 : first] == syncs
    made_anew = next(at for at, text in enumerate(asked) if text.startswith("insert into live.ticks"))
    assert [text for text in asked[:made_anew] if "sync replica" in text] == 2 * syncs
    deleted = next(at for at, text in enumerate(asked) if re.match(r"alter table live\S*\.ticks delete", text))
    assert deleted < asked.index(syncs[0], first) < made_anew


def test_a_replica_that_does_not_catch_up_keeps_anything_from_being_erased(client: Client) -> None:
    class Lagging:
        def __getattr__(self, name: str) -> Any:
            return getattr(client, name)

        def command(self, sql: str, **named: Any) -> Any:
            assert sql.startswith("system sync replica"), "nothing before it"
            raise DatabaseError("Code: 159. DB::Exception: Timeout exceeded")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(erasing, "replicated", lambda _, tables: list(tables))
        with pytest.raises(ServiceError, match=r"not every replica of raw.playback_events .*159.*erase again"):
            erase(Lagging(), [GONE])  # type: ignore[arg-type]


def test_inserts_wait_for_most_replicas_where_every_shard_has_several(tmp_path: Path) -> None:
    """The clusters are named after the databases of the stream, as Replicated ones are. Replicated is nothing here."""
    nodes = {"raw": [2], "raw_local": [2, 1]}
    clusters = "".join(
        f"<{name}>"
        + "".join(
            "<shard>" + "<replica><host>127.0.0.1</host><port>1</port></replica>" * replicas + "</shard>"
            for replicas in shards
        )
        + f"</{name}>"
        for name, shards in nodes.items()
    )
    (tmp_path / "data.config.d").mkdir()
    (tmp_path / "data.config.d" / "clusters.xml").write_text(
        f"<clickhouse><remote_servers>{clusters}</remote_servers></clickhouse>", encoding="utf-8"
    )
    with embedded_clickhouse.running(tmp_path / "data") as server:
        settings = load_settings(retention_home=tmp_path, clickhouse_port=server.port)
        client = connect(settings)
        migrate(client)
        assert quorum(client) == {"insert_quorum": "auto"}
        sink = ClickHouseSink(settings)
        for _ in range(2):
            sink.insert(Source("log", "playback_events", 0), [(1, 0, b"", b"{}")], "token")
        assert client.query("select count() from raw.rejected_events").result_rows == [(1,)], "stored, once"
        with sink._told as inserting:
            asked = "select getSetting('insert_quorum'), getSetting('insert_quorum_timeout')"
            assert inserting.query(asked).result_rows == [("auto", settings.ingest_answer_seconds * 1000)]
        client.command("create database raw_local")
        assert quorum(client) == {}, "one shard has a replica alone"
        client.close()


def test_without_a_cluster_no_insert_waits_for_replicas(client: Client) -> None:
    assert quorum(client) == {}


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
            if self.commands:
                raise InterruptedError
            return SimpleNamespace(result_rows=[(0,)])

    for sharded, databases in ((False, ["raw"]), (True, ["raw_local", "live_local", "raw"])):
        recording = Recording()
        with pytest.raises(InterruptedError):
            migrate(recording, cluster="retention", sharded=sharded)  # type: ignore[arg-type]
        *made, ledger = recording.commands
        # By those of shards a run that died here is told from one without shards.
        assert [text.split()[5] for text in made] == databases
        assert all("on cluster `retention`" in text for text in made)
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
