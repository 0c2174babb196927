"""The stream cut over two shards by video: where messages go, what a repetition does, and the marts over it.

Each shard is an engine of its own whose cluster has itself and one node that is away. What is inserted reaches the part
that is here, as the engine itself cuts it, and reading leaves the other out. There is no Keeper here, so that what is
replicated on a cluster is not here; `test_deploy_cluster.py` has those statements.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from clickhouse_connect.driver.exceptions import DatabaseError

from retention_platform.embedded import clickhouse as embedded_clickhouse
from retention_platform.errors import RetentionError, ServiceError, SettingsError
from retention_platform.ingest import erase as erasing
from retention_platform.ingest.batch import Row, Source
from retention_platform.ingest.erase import Erased, erase
from retention_platform.ingest.rejects import Filter, count
from retention_platform.ingest.sink import INSERT_SETTINGS, ClickHouseSink, Refused
from retention_platform.settings import load_settings
from retention_platform.warehouse import migrate as migrating
from retention_platform.warehouse.cluster import on_shard
from retention_platform.warehouse.migrate import migrate
from tests.dbt_support import Chain
from tests.test_dbt_marts import Viewers, assert_equal_to_oracle

#: The engine takes a node for itself when it has this port; it listens on none.
PORT = 9000
AWAY = 1
SHARDS = (1, 2)


def configuration(shard: int) -> str:
    """A cluster of two shards, of which the given one is here."""
    nodes = "".join(
        "<shard><internal_replication>true</internal_replication><replica><host>127.0.0.1</host>"
        f"<port>{PORT if shard == number else AWAY}</port></replica></shard>"
        for number in SHARDS
    )
    return f"<clickhouse><tcp_port>{PORT}</tcp_port><remote_servers><two>{nodes}</two></remote_servers></clickhouse>"


_PROFILE = """<clickhouse><profiles><default>
    <skip_unavailable_shards>1</skip_unavailable_shards>
    <distributed_foreground_insert>0</distributed_foreground_insert>
</default></profiles></clickhouse>"""


@pytest.fixture
def shards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Chain]]:
    """Both shards, each with the schema as `migrate` makes it there, but for replication."""
    monkeypatch.setattr(migrating, "for_cluster", lambda statement, cluster, *, sharded: on_shard(statement))
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(INSERT_SETTINGS, "distributed_foreground_insert", 0)
        patch.setitem(erasing._EVERY_SHARD, "distributed_foreground_insert", 0)
        chains = []
        with embedded_clickhouse_of(tmp_path, 1) as first, embedded_clickhouse_of(tmp_path, 2) as second:
            for number, server in enumerate((first, second), start=1):
                folder = tmp_path / f"chain-{number}"
                settings = load_settings(retention_home=folder, clickhouse_port=server.port)
                chain = Chain(settings, folder)
                migrate(chain.client, cluster="two", sharded=True)
                assert migrate(chain.client, cluster="two", sharded=True) == [], "doing it twice changes nothing"
                chains.append(chain)
            yield chains
            for chain in chains:
                chain.client.close()


def embedded_clickhouse_of(folder: Path, shard: int) -> Any:
    """A context manager of one shard's server."""
    home = folder / f"shard-{shard}"
    for kind, text in (("config", configuration(shard)), ("users", _PROFILE)):
        place = home / f"data.{kind}.d"
        place.mkdir(parents=True)
        (place / "shards.xml").write_text(text, encoding="utf-8")
    return embedded_clickhouse.running(home / "data")


SOURCE = Source("log", "playback_events", 0)


def batches_of(messages: list[dict[str, Any]], size: int) -> Iterator[tuple[list[Row], str]]:
    """Rows of the inbox and their token, as ingest makes them."""
    for start in range(0, len(messages), size):
        part = messages[start : start + size]
        rows = [(start + place, 0, b"", json.dumps(message).encode()) for place, message in enumerate(part)]
        yield rows, f"log/playback_events/0/{start}-{start + len(rows) - 1}"


def held(chain: Chain, table: str, columns: str) -> list[tuple[Any, ...]]:
    """What the shard itself holds."""
    return chain.ask(f"select {columns} from {on_shard(table)} order by all")


def test_each_shard_has_whole_videos_each_event_once_and_the_marts_are_those_of_its_videos(shards: list[Chain]) -> None:
    viewers = Viewers(20)
    events, videos = viewers.small_videos(60)
    events += viewers.cliff("cliff-140", 140, 250, {100: 0.3, 180: 0.2})
    random.Random(1).shuffle(events)
    wrong = [{"schema_version": 2, "n": number} for number in range(40)]
    found: list[set[str]] = []
    for chain in shards:
        sink = ClickHouseSink(chain.settings)
        for rows, token in batches_of(events + wrong, 100):
            sink.insert(SOURCE, rows, token)
            sink.insert(SOURCE, rows, token)
        # What players send twice comes under another token, in other company.
        for rows, token in batches_of(events[::-3], 70):
            sink.insert(SOURCE, rows, f"again/{token}")
        chain.send_videos(videos)
        mine = {video for (video,) in held(chain, "raw.playback_events", "distinct video_id")}
        theirs = [event for event in events if event["video_id"] in mine]
        found.append(mine)
        assert mine == videos_of(chain, events)
        again = sum(event["video_id"] in mine for event in events[::-3])
        assert held(chain, "raw.deliveries", "sum(messages)") == [(len(theirs) + again,)], "a batch is stored once"
        assert chain.ask("select count() from raw.playback_events final") == [(len(theirs),)], "an event is read once"
        assert held(chain, "raw.rejected_events", "count()") == [(count(chain.client, Filter()),)]
    assert all(found) and not found[0] & found[1] and found[0] | found[1] == {event["video_id"] for event in events}
    rejected = [held(chain, "raw.rejected_events", "offset") for chain in shards]
    assert all(rejected) and sorted(rejected[0] + rejected[1]) == [(len(events) + number,) for number in range(40)]

    for chain, mine in zip(shards, found, strict=True):
        chain.client.command("truncate table raw_local.rejected_events")
        described = {video for (video,) in held(chain, "raw.videos", "distinct video_id")}
        theirs = [event for event in events if event["video_id"] in mine]
        of_theirs = [video for video in videos if video["video_id"] in described]
        chain.build()
        assert_equal_to_oracle(chain, theirs, of_theirs)
    # On one of them a refresh too, which finds changed sessions over the Distributed tables.
    late = [event for number in range(3) for event in viewers.session(sorted(mine)[number], 30_000)]
    chain.send_events(late)
    chain.build()
    assert_equal_to_oracle(chain, theirs + late, of_theirs)


def test_a_batch_whose_other_shard_is_away_is_nobodys_fault_and_repeated_without_a_copy(
    shards: list[Chain], monkeypatch: pytest.MonkeyPatch
) -> None:
    events, _ = Viewers(21).small_videos(20)
    chain = shards[0]
    (rows, token), *_ = batches_of(events, len(events))
    with monkeypatch.context() as patch:
        patch.setitem(INSERT_SETTINGS, "distributed_foreground_insert", 1)
        with pytest.raises(ServiceError, match="did not take the batch") as failure:
            ClickHouseSink(chain.settings).insert(SOURCE, rows, token)
        assert not isinstance(failure.value, Refused)
    sink = ClickHouseSink(chain.settings)
    for _ in range(2):
        sink.insert(SOURCE, rows, token)
    ids = held(chain, "raw.playback_events", "event_id")
    assert ids and len(set(ids)) == len(ids)


def test_a_message_that_breaks_a_view_is_found_and_put_aside_on_its_shard(shards: list[Chain]) -> None:
    events, _ = Viewers(22).small_videos(20)
    rows = next(batches_of(events, len(events)))[0]
    for chain in shards:
        mine = videos_of(chain, events)
        poison = next(place for place, event in enumerate(events) if event["video_id"] in mine)
        chain.client.command("create table live_local.seen (n UInt8) engine = MergeTree order by n")
        chain.client.command(
            "create materialized view live_local.broken to live_local.seen as select throwIf(event_id = "
            f"'{events[poison]['event_id']}', 'no such luck') as n from raw_local.playback_events"
        )
        sink = ClickHouseSink(chain.settings)
        with pytest.raises(Refused, match="no such luck"):
            sink.insert(SOURCE, rows, "token")
        # The copy of the chain begins behind the cut, so that it is tried on every message.
        assert [place for place, _ in sink.poison(SOURCE, rows)] == [poison]
        sink.reject(SOURCE, [rows[poison]], ["no such luck"], "token")
        sink.insert(SOURCE, rows[:poison] + rows[poison + 1 :], "token")
        kept = [event["event_id"] for event in events if event["video_id"] in mine]
        kept.remove(events[poison]["event_id"])
        assert [str(one) for (one,) in held(chain, "raw.playback_events", "toString(event_id)")] == sorted(kept)
        assert held(chain, "raw.rejected_events", "offset") == [(poison,)]


def videos_of(chain: Chain, events: list[dict[str, Any]]) -> set[str]:
    """The videos of the shard that is here: two shards of one weight take turns by the video's hash."""
    ((number,),) = chain.ask("select shard_num from system.clusters where cluster = 'two' and is_local")
    videos = sorted({event["video_id"] for event in events})
    hashed = chain.client.query(
        "select arrayJoin({videos:Array(String)}) as video where cityHash64(video) % 2 = {at:UInt8}",
        parameters={"videos": videos, "at": number - 1},
    )
    return {video for (video,) in hashed.result_rows}


def test_erasing_a_viewer_reaches_each_shards_own_tables(shards: list[Chain]) -> None:
    events, _ = Viewers(23).small_videos(40)
    viewer = events[0]["viewer_id"]
    for chain in shards:
        sink = ClickHouseSink(chain.settings)
        rows, token = next(batches_of(events, len(events)))
        sink.insert(SOURCE, rows, token)
        mine = held(chain, "raw.playback_events", "viewer_id")
        theirs = mine.count((viewer,))
        assert theirs
        assert erase(chain.client, [viewer], cluster="two") == Erased(events=theirs, rejects=0)
        sink.insert(SOURCE, rows, "another token")
        assert {viewer for (viewer,) in mine} - {viewer} == {
            viewer for (viewer,) in held(chain, "raw.playback_events", "viewer_id")
        }


def test_with_a_node_that_does_not_take_note_nothing_is_erased(shards: list[Chain]) -> None:
    client, asked = shards[0].client, []

    class Lacking:
        """The shard, where an insert that all nodes shall have fails as it does without one of them."""

        def __getattr__(self, name: str) -> Any:
            return getattr(client, name)

        def insert(self, *_: Any, settings: dict[str, Any], **__: Any) -> None:
            asked.append(settings)
            raise DatabaseError(
                "Code: 285. DB::Exception: Number of alive replicas (1) is less than requested quorum (2/2)"
            )

    with pytest.raises(ServiceError, match=r"not every node of two took note .*285.*erase again when all are up"):
        erase(Lacking(), ["somebody"], cluster="two")  # type: ignore[arg-type]
    assert asked == [{"insert_quorum": 2, "insert_quorum_timeout": 60_000}]
    assert shards[0].ask("select count() from raw.erased_viewers") == [(0,)]


def test_readers_find_over_all_shards_what_each_holds_and_nothing_of_the_way_in_between(shards: list[Chain]) -> None:
    client = shards[0].client
    found = client.query("select database || '.' || name, engine from system.tables where database in ('raw', 'live')")
    engines = dict(found.result_rows)
    whole = {"raw.erased_viewers", "raw.replayed_rejects", "raw.schema_migrations"}
    assert {name for name, engine in engines.items() if engine != "Distributed"} == whole
    assert set(engines) - whole == {
        *("raw.inbox", "raw.put_aside", "raw.playback_events", "raw.videos", "raw.rejected_events", "raw.deliveries"),
        *("raw.erased_messages", "live.events", "live.ticks"),
        *("live.viewers_now", "live.concurrency", "live.retention_curve"),
    }
    for name in engines.keys() - {"raw.inbox", "raw.put_aside"}:
        client.query(f"select * from {name} limit 1")
    migrate(client, cluster="two", sharded=True, raw_ttl_days=40)
    kept = client.command("select engine_full from system.tables where database || name = 'raw_localplayback_events'")
    assert "toIntervalDay(40)" in str(kept)


def test_a_warehouse_with_shards_is_not_migrated_without_them(shards: list[Chain]) -> None:
    with pytest.raises(RetentionError, match="made with shards: set CLICKHOUSE_SHARDED to true"):
        migrate(shards[0].client, cluster="two")


def test_shards_without_a_cluster_are_refused() -> None:
    with pytest.raises(SettingsError, match="CLICKHOUSE_SHARDED has no effect without CLICKHOUSE_CLUSTER"):
        load_settings(clickhouse_sharded=True)
    assert load_settings(clickhouse_sharded=True, clickhouse_cluster="retention").clickhouse_sharded
