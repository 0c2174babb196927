"""An erased viewer is gone from every table, the marts are those of the others' events, and no replay undoes it."""

from __future__ import annotations

import itertools
import json
import random
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from confluent_kafka import Producer

from retention_platform.contract import EVENTS_TOPIC, VIDEOS_TOPIC
from retention_platform.ingest.batch import Source
from retention_platform.ingest.consumer import Ingest
from retention_platform.ingest.erase import Erased, erase, viewer_hash
from retention_platform.ingest.rejects import Filter, Replay, export, find, read_export, replay
from retention_platform.ingest.sink import ClickHouseSink
from retention_platform.settings import load_settings
from retention_platform.warehouse.client import connect
from retention_platform.warehouse.migrate import migrate
from tests.conftest import DATABASES, unique
from tests.dbt_support import Chain

if TYPE_CHECKING:
    from tests.conftest import Warehouse

GONE = "viewer-to-be-erased"

LIVE = {
    "live.viewers_now": "select video_id, viewers from live.viewers_now order by all",
    "live.concurrency": "select at, video_id, viewers from live.concurrency order by all",
    "live.retention_curve": "select * from live.retention_curve order by all",
}
DELIVERED = (
    "select video_id, day, sum(messages) as n, sum(late_messages) as late from raw.deliveries "
    "group by video_id, day having n != 0 order by all"
)


@pytest.fixture
def chain(empty_warehouse: Warehouse, tmp_path: Path) -> Iterator[Chain]:
    chain = Chain(empty_warehouse.settings, tmp_path)
    yield chain
    chain.client.close()


def some_events(seed: int, sessions: int) -> list[dict[str, Any]]:
    """Sessions of several viewers within the last 50 minutes, one in five of them of the viewer to be erased."""
    rng, events = random.Random(seed), []
    now = int(time.time() * 1000)
    for number in range(sessions):
        viewer = GONE if number % 5 == 0 else f"viewer-{rng.randrange(9)}"
        clock, position = now - rng.randrange(400_000, 3_000_000), rng.randrange(0, 30_000)
        for _ in range(rng.randrange(1, 8)):
            clock += 10_000
            events.append(
                {
                    "schema_version": 1,
                    "event_id": str(uuid.UUID(int=rng.getrandbits(128), version=4)),
                    "event_type": "heartbeat",
                    "event_time": clock,
                    "session_id": f"session-{number}",
                    "viewer_id": viewer,
                    "video_id": f"video-{number % 3}",
                    "position_ms": position + 10_000,
                    "played_from_ms": position,
                    "played_to_ms": position + 10_000,
                    "duration_ms": 120_000,
                }
            )
            position += 10_000
    return events


def wrong_messages(viewer: str) -> list[dict[str, Any]]:
    """No contract events; each names the viewer in a way of its own."""
    return [
        {"schema_version": 2, "viewer_id": viewer},
        {"schema_version": 1, "viewerId": viewer},
        {"actor": {"name": [f"{viewer}"]}, "note": "no such field is known"},
    ]


def wait_until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline, f"waited too long for {what}"
        time.sleep(0.1)


def mentions(chain: Chain, viewer: str) -> list[str]:
    """Tables of every database that hold the viewer's id in any text column."""
    columns = chain.ask(
        "select c.database, c.table, c.name from system.columns as c inner join system.tables as t "
        "on c.database = t.database and c.table = t.name where t.engine like '%MergeTree' "
        f"and c.database in {DATABASES} and c.type ilike '%String%' and c.type not ilike '%AggregateFunction%'"
    )
    assert ("raw", "playback_events", "viewer_id") in columns
    return [
        f"{database}.{table}.{column}"
        for database, table, column in columns
        if chain.ask(f"select count() from {database}.{table} where toString({column}) like '%{viewer}%'")[0][0]
    ]


def test_after_erasing_every_table_is_that_of_the_events_without_the_viewer(chain: Chain) -> None:
    events = some_events(1, 120)
    theirs = [event for event in events if event["viewer_id"] == GONE]
    wrong = [*wrong_messages(GONE), *wrong_messages("viewer-who-stays")]
    videos = [{"video_id": "video-0", "title": "One", "duration_ms": 120_000, "updated_at": events[0]["event_time"]}]

    def everything() -> dict[str, Any]:
        found: dict[str, Any] = {name: chain.ask(sql) for name, sql in LIVE.items()}
        found["deliveries"] = chain.ask(DELIVERED)
        found["rejects"] = chain.ask("select payload, reason from raw.rejected_events final order by all")
        return found | chain.marts()

    chain.send_videos(videos)
    chain.send_events([event for event in events if event["viewer_id"] != GONE] + wrong_messages("viewer-who-stays"))
    chain.build()
    without = everything()
    assert without["live.concurrency"] and without["sessions"] and len(without["rejects"]) == 3

    for database in DATABASES:
        chain.client.command(f"drop database if exists {database} sync")
    migrate(chain.client)
    chain.send_videos(videos)
    chain.send_events(events + wrong)
    chain.build()
    assert {"raw.playback_events.viewer_id", "staging.int_sessions.viewer_id", "raw.rejected_events.payload"} <= set(
        mentions(chain, GONE)
    )
    assert len(everything()["sessions"]) > len(without["sessions"])

    assert erase(chain.client, [GONE]) == Erased(events=len(theirs), rejects=3)
    chain.build("--full-refresh")
    now = everything()
    for name, rows in without.items():
        assert now[name] == rows, name
    assert mentions(chain, GONE) == []
    assert chain.ask("select viewer_hash from raw.erased_viewers") == [(viewer_hash(GONE),)]
    assert chain.ask("select count() from raw.erased_messages final") == [(len(theirs) + 3,)]
    assert erase(chain.client, [GONE]) == Erased(events=0, rejects=0)


def test_the_topic_read_again_does_not_bring_an_erased_viewer_back(
    empty_warehouse: Warehouse, broker: str, tmp_path: Path
) -> None:
    events = some_events(2, 60)
    messages = [*events, *wrong_messages(GONE), *wrong_messages("viewer-who-stays")]
    stays = sorted(event["event_id"] for event in events if event["viewer_id"] != GONE)

    def read_all(log_id: str) -> None:
        """By a new group from the beginning, under tokens of its own, so that nothing is taken for a repetition."""
        settings = load_settings(
            retention_home=tmp_path,
            clickhouse_port=empty_warehouse.settings.clickhouse_port,
            kafka_bootstrap_servers=broker,
            kafka_group=unique("erase"),
            kafka_log_id=log_id,
        )
        ingest = Ingest(settings, ClickHouseSink(settings))
        thread = threading.Thread(target=ingest.run)
        thread.start()
        try:
            wait_until(lambda: len(places(log_id)) >= len(messages), f"all of {log_id}")
        finally:
            ingest.stop()
            thread.join(60)

    def places(log_id: str) -> list[tuple[Any, ...]]:
        tables = ("playback_events", "rejected_events", "erased_messages")
        found = " union all ".join(
            f"select topic, partition, offset from raw.{table} where log_id = '{log_id}'" for table in tables
        )
        return empty_warehouse.rows(f"select distinct * from ({found}) where topic = '{EVENTS_TOPIC}'")

    def stored() -> list[str]:
        found = empty_warehouse.rows("select distinct toString(event_id) from raw.playback_events")
        return sorted(row[0] for row in found)

    producer = Producer({"bootstrap.servers": broker})
    producer.list_topics(VIDEOS_TOPIC, timeout=10)
    before = unique("log")
    for message in messages:
        producer.produce(EVENTS_TOPIC, key=str(message.get("session_id", "")), value=json.dumps(message).encode())
    assert producer.flush(30) == 0

    read_all(before)
    assert set(stored()) >= {event["event_id"] for event in events}
    client = connect(empty_warehouse.settings)
    assert erase(client, [GONE]).rejects == 3
    client.close()
    assert set(stored()) & {event["event_id"] for event in events} == set(stays)

    read_all(unique("log"))
    assert set(stored()) & {event["event_id"] for event in events} == set(stays)
    left = empty_warehouse.rows("select payload from raw.rejected_events")
    assert not [payload for (payload,) in left if GONE in payload]
    assert [payload for (payload,) in left if "viewer-who-stays" in payload]


def test_an_erased_viewers_message_that_cannot_be_stored_is_not_put_aside_either(empty_warehouse: Warehouse) -> None:
    """As on a second reading: under another log's tokens, and repeated as after a crash."""
    client, sink = connect(empty_warehouse.settings), ClickHouseSink(empty_warehouse.settings)
    messages = [event for event in some_events(3, 10) if event["event_type"] == "heartbeat"]
    theirs = {number for number, event in enumerate(messages) if event["viewer_id"] == GONE}
    assert theirs and len(theirs) < len(messages)

    def put_aside(log_id: str) -> None:
        source = Source(log_id, EVENTS_TOPIC, 0)
        rows = [(at, 0, b"k", json.dumps(message).encode()) for at, message in enumerate(messages)]
        for _ in range(2):
            sink.reject(source, rows, ["no such luck"] * len(rows), f"{log_id}/0-{len(rows)}")

    def places(table: str, log_id: str) -> set[int]:
        found = empty_warehouse.rows(f"select offset from raw.{table} where log_id = '{log_id}'")
        assert len(set(found)) == len(found), "repeated under one token"
        return {offset for (offset,) in found}

    put_aside("before")
    assert places("rejected_events", "before") == set(range(len(messages)))
    assert places("erased_messages", "before") == set()
    assert erase(client, [GONE]).rejects == len(theirs)
    put_aside("again")
    for log_id in ("before", "again"):
        assert places("rejected_events", log_id) == set(range(len(messages))) - theirs
        assert places("erased_messages", log_id) == theirs
    client.close()


def store_and_put_aside(chain: Chain, events: list[dict[str, Any]], bad: set[int]) -> None:
    """Store events but for ``bad`` ones, which ingest puts aside after they passed every other view.

    In what order the engine runs views, and so what has passed when one breaks, is its own affair.
    """
    sink, source = ClickHouseSink(chain.settings), Source("log", EVENTS_TOPIC, 0)
    rows = [(at, 0, b"k", json.dumps(event).encode()) for at, event in enumerate(events)]
    sink.insert(source, rows, "token")
    sink.reject(source, [rows[at] for at in sorted(bad)], ["no such luck"] * len(bad), "token")


def test_of_an_erased_viewers_message_that_was_put_aside_the_live_tables_keep_nothing(chain: Chain) -> None:
    """What had passed a view before another broke: also where nothing else of the viewer was stored."""
    events = some_events(6, 80)
    only, both = "viewer-all-put-aside", GONE
    for event in events:
        if event["session_id"] == "session-7":
            event["viewer_id"] = only
    mine = {at for at, event in enumerate(events) if event["viewer_id"] == only}
    bad = mine | {at for at, event in enumerate(events) if event["viewer_id"] == both and at % 2}
    stays = [event for event in events if event["viewer_id"] not in (only, both)]
    assert mine and bad - mine and len(bad) < len(events) - len(stays)

    def live() -> dict[str, Any]:
        found = {name: chain.ask(sql) for name, sql in LIVE.items()}
        return found | {"live.events": chain.ask("select toString(event_id) from live.events final order by all")}

    chain.send_events(stays)
    without = live()
    assert without["live.concurrency"] and len(without["live.events"]) == len(stays)

    for database in DATABASES:
        chain.client.command(f"drop database if exists {database} sync")
    migrate(chain.client)
    store_and_put_aside(chain, events, bad)
    assert {row[0] for row in live()["live.events"]} >= {events[at]["event_id"] for at in bad}, "the test reaches none"
    assert live()["live.concurrency"] != without["live.concurrency"]

    def in_files(viewer: str) -> int:
        """Rows, those included that a mark alone hides."""
        hidden = "select count() from raw.playback_events where viewer_id = {viewer:String}"
        found = chain.client.query(hidden, parameters={"viewer": viewer}, settings={"apply_deleted_mask": 0})
        return int(found.result_rows[0][0])

    assert in_files(only) == len(mine), "the test hides none"
    assert erase(chain.client, [only]) == Erased(events=0, rejects=len(mine))
    assert in_files(only) == 0
    erase(chain.client, [both])
    assert in_files(both) == 0
    now = live()
    for name, rows in without.items():
        assert now[name] == rows, name


def test_an_erasure_that_died_is_done_by_the_next(chain: Chain, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whichever statement was its last, what the next leaves is that of a warehouse that never saw the viewer."""
    events = some_events(7, 80)

    def everything() -> dict[str, Any]:
        found: dict[str, Any] = {name: chain.ask(sql) for name, sql in LIVE.items()}
        found["deliveries"] = chain.ask(DELIVERED)
        found["events"] = chain.ask("select toString(event_id) from raw.playback_events final order by all")
        return found | {"rejects": chain.ask("select offset from raw.rejected_events final order by all")}

    class Dying(Exception):
        pass

    def die_after(statements: int) -> bool:
        """Whether there were more of them to come."""
        command, left = chain.client.command, itertools.count()

        def dying(*args: Any, **named: Any) -> Any:
            if next(left) == statements:
                raise Dying
            return command(*args, **named)

        with monkeypatch.context() as patch:
            patch.setattr(chain.client, "command", dying)
            try:
                erase(chain.client, [GONE])
            except Dying:
                return True
        return False

    chain.send_events([event for event in events if event["viewer_id"] != GONE])
    without, died = everything(), 0
    while True:
        for database in DATABASES:
            chain.client.command(f"drop database if exists {database} sync")
        migrate(chain.client)
        chain.send_events(events + wrong_messages(GONE))
        if not die_after(died):
            break
        erase(chain.client, [GONE])
        now = everything()
        for name, rows in without.items():
            assert now[name] == rows, f"{name}, died after {died} statements"
        died += 1
    assert died > 5


def test_an_erased_viewers_id_is_in_no_others_reason(empty_warehouse: Warehouse) -> None:
    """ClickHouse's words quote the value on which a view broke: here every one, and of most messages nobody asks."""
    client, sink = connect(empty_warehouse.settings), ClickHouseSink(empty_warehouse.settings)
    client.command("create table live.seen (n UInt8) engine = Null")
    client.command(
        "create materialized view live.broken to live.seen as select toUInt8(viewer_id) as n from raw.playback_events"
    )
    messages = some_events(5, 60)[:128]
    for message in messages[::2]:
        message["viewer_id"] = GONE
    source = Source("log", EVENTS_TOPIC, 0)
    rows = [(at, 0, b"k", json.dumps(message).encode()) for at, message in enumerate(messages)]
    poison = sink.poison(source, rows)
    assert [at for at, _ in poison] == list(range(len(rows)))
    sink.reject(source, rows, [why for _, why in poison], "token")
    quoted = "select count() from raw.rejected_events where position(reason, {gone:String}) > 0"
    assert empty_warehouse.rows(quoted, gone=GONE) > [(0,)], "the test quotes nobody"
    erase(client, [GONE])
    assert empty_warehouse.rows(quoted, gone=GONE) == [(0,)]
    ((left,),) = empty_warehouse.rows("select count() from raw.rejected_events")
    assert left == sum(message["viewer_id"] != GONE for message in messages)
    client.close()


def test_an_export_from_before_the_erasure_brings_nobody_back(empty_warehouse: Warehouse, tmp_path: Path) -> None:
    class Sent:
        def __init__(self) -> None:
            self.messages: list[dict[str, Any]] = []

        def send(self, topic: str, key: str, value: bytes) -> None:
            self.messages.append(json.loads(value))

        def flush(self, seconds: float = 0) -> None:
            pass

    client, publisher = connect(empty_warehouse.settings), Sent()
    right = some_events(4, 2)
    assert {event["viewer_id"] == GONE for event in right} == {True, False}
    rows = [
        ["log", EVENTS_TOPIC, 0, at, 0, "", json.dumps({**event, "schema_version": 2})]
        for at, event in enumerate(right)
    ]
    columns = ["log_id", "topic", "partition", "offset", "message_time", "key", "payload"]
    client.insert("raw.inbox", rows, column_names=columns)
    exported = tmp_path / "rejects.jsonl"
    with exported.open("w", encoding="utf-8") as out:
        assert export(find(client, Filter()), out) == len(right)
    erase(client, [GONE])
    mended = exported.read_text(encoding="utf-8").replace('\\"schema_version\\": 2', '\\"schema_version\\": 1')
    result = replay(client, publisher, read_export(mended.splitlines(), "rejects"), lambda *_: None)
    stays = [event for event in right if event["viewer_id"] != GONE]
    assert publisher.messages == stays
    assert result == Replay(sent=len(stays), unknown=len(right) - len(stays))
    client.close()
