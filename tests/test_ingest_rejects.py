"""`retention rejects`: filters, the export that is mended, and sending again: each once, whatever is repeated."""

from __future__ import annotations

import io
import json
import uuid
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from retention_platform.errors import RetentionError, ServiceError
from retention_platform.ingest.batch import Source
from retention_platform.ingest.rejects import Filter, Reject, Replay, count, export, find, read_export, replay
from retention_platform.ingest.rejects_cli import moment
from retention_platform.ingest.sink import ClickHouseSink
from retention_platform.warehouse.client import connect
from tests.conftest import Warehouse
from tests.messages import EVENT, VIDEO
from tests.test_cli import retention

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client


def event(number: int, **wrong: Any) -> bytes:
    return json.dumps({**EVENT, "event_id": str(uuid.UUID(int=number)), **wrong}).encode()


#: Offset to message; what is wrong with each is plain.
EVENTS = {
    0: event(0, position_ms="a while"),
    1: event(1, video_id=""),
    2: b"not JSON \xff\xfe",
    3: event(3, position_ms=-1),
    4: b"",
}
VIDEOS = {0: json.dumps({**VIDEO, "title": ""}).encode()}


@pytest.fixture
def client(empty_warehouse: Warehouse) -> Iterator[Client]:
    sink = ClickHouseSink(empty_warehouse.settings)
    for topic, messages in (("playback_events", EVENTS), ("videos", VIDEOS)):
        rows = [(offset, 0, b"\xffkey", message) for offset, message in messages.items()]
        sink.insert(Source("log", topic, 2), rows, f"token {topic}")
    client = connect(empty_warehouse.settings)
    yield client
    client.close()


class Topic:
    """A publisher that keeps what it is given, and may fail."""

    def __init__(self, fail: bool = False) -> None:
        self.sent: list[tuple[str, str, bytes]] = []
        self.fail = fail

    def send(self, topic: str, key: str, value: bytes) -> None:
        self.sent.append((topic, key, value))

    def flush(self, seconds: float = 0) -> None:
        if self.fail:
            raise ServiceError("broker away")


def mended(client: Client) -> list[str]:
    """The export's lines, each mended by hand, but for the one that is no JSON."""
    out = io.StringIO()
    assert export(find(client, Filter()), out) == 6
    lines = []
    for line in out.getvalue().splitlines():
        value = json.loads(line)
        if value["topic"] == "videos":
            # As an object of its own, which is easier to edit than a text that holds one.
            value["payload"] = {**VIDEO, "title": "A title"}
        elif value["offset"] in (0, 3):
            value["payload"] = json.dumps(json.loads(value["payload"]) | {"position_ms": 7 + value["offset"]})
        lines.append(json.dumps(value))
    return lines


def test_rejects_are_found_by_field_reason_topic_and_time(client: Client) -> None:
    def offsets(**wanted: Any) -> list[tuple[str, int]]:
        chosen = Filter(**wanted)
        found = [(reject.topic, reject.offset) for reject in find(client, chosen)]
        assert count(client, chosen) == len(found)
        return found

    now = datetime.now(timezone.utc)
    assert offsets(field="position_ms") == [("playback_events", 0), ("playback_events", 3)]
    assert offsets(reason="NOT JSON") == [("playback_events", 2)]
    assert offsets(topic="videos") == [("videos", 0)]
    assert offsets(field="message", reason="empty") == [("playback_events", 4)]
    assert offsets(field="'; drop table raw.rejected_events; --") == []
    assert len(offsets(since=now - timedelta(minutes=5))) == 6
    assert offsets(since=now + timedelta(minutes=5)) == []


def test_an_export_read_back_is_what_was_rejected_byte_by_byte(client: Client) -> None:
    out = io.StringIO()
    export(find(client, Filter()), out)
    back = list(read_export(out.getvalue().splitlines(), "file"))
    assert {reject.offset: reject.payload for reject in back if reject.topic == "playback_events"} == EVENTS
    assert {reject.key for reject in back} == {b"\xffkey"}
    assert back == list(find(client, Filter()))


def test_mended_messages_are_sent_once_and_the_others_stay(client: Client) -> None:
    topic, told = Topic(), []

    def on_fault(reject: Reject, why: str) -> None:
        told.append((reject.offset, why.split(":", maxsplit=1)[0]))

    result = replay(client, topic, read_export(mended(client), "file"), on_fault)
    assert result == Replay(sent=3, still_wrong=3)
    assert sorted(told) == [(1, "video_id"), (2, "message"), (4, "message")]
    assert {(name, key) for name, key, _ in topic.sent} == {
        ("playback_events", EVENT["session_id"]),
        ("videos", VIDEO["video_id"]),
    }
    assert sorted(json.loads(value).get("position_ms", -5) for _, _, value in topic.sent) == [-5, 7, 10]
    # What was sent is listed no more, and never sent again.
    assert [reject.offset for reject in find(client, Filter())] == [1, 2, 4]
    assert count(client, Filter(replayed=True)) == 6
    lines = io.StringIO()
    export(find(client, Filter(replayed=True)), lines)
    again = [
        json.dumps(json.loads(line) | {"payload": event(7).decode()})
        for line in lines.getvalue().splitlines()
        if json.loads(line)["offset"] in (0, 3) and json.loads(line)["topic"] == "playback_events"
    ]
    assert replay(client, topic, read_export(again * 2, "file"), on_fault) == Replay(sent_before=4)
    assert len(topic.sent) == 3


def test_what_the_broker_did_not_take_is_not_marked_as_sent(client: Client) -> None:
    with pytest.raises(ServiceError):
        replay(client, Topic(fail=True), read_export(mended(client), "file"), lambda *_: None)
    assert count(client, Filter()) == 6
    assert replay(client, Topic(), read_export(mended(client), "file"), lambda *_: None).sent == 3


def test_a_message_that_was_never_rejected_here_is_not_sent(client: Client) -> None:
    topic = Topic()
    foreign = [json.dumps(json.loads(line) | {"log_id": "elsewhere"}) for line in mended(client)]
    assert replay(client, topic, read_export(foreign, "file"), lambda *_: None) == Replay(unknown=3, still_wrong=3)
    assert topic.sent == []


@pytest.mark.parametrize("line", ["no json", "{}", '{"log_id": 1}', "[]", '{"payload_base64": "%"}', "null"])
def test_a_line_that_is_no_export_is_named(line: str) -> None:
    with pytest.raises(RetentionError, match=r"^wrong.jsonl, line 2: not a line of"):
        list(read_export(["", line], "wrong.jsonl"))


def test_times_are_given_as_people_write_them() -> None:
    now = datetime(2026, 1, 31, 8, tzinfo=timezone.utc)
    assert moment("", now) is None
    assert moment("90min", now) == now - timedelta(minutes=90)
    assert moment("3 d", now) == now - timedelta(days=3)
    assert moment("2026-01-31T08:00:00Z") == moment("2026-01-31T08:00") == now
    for wrong in ("soon", "3 weeks", "-1h", "99999999999d"):
        with pytest.raises(RetentionError, match="cannot be used"):
            moment(wrong)


def test_the_command_exports_and_says_what_to_do_next(
    client: Client, empty_warehouse: Warehouse, tmp_path: Path
) -> None:
    file = tmp_path / "wrong.jsonl"
    told = retention(empty_warehouse, "rejects", "--field", "position_ms", "--export", str(file))
    assert told.returncode == 0 and "2 rejected messages" in told.stdout.replace("\n", " ")
    assert len(file.read_text().splitlines()) == 2
    listed = retention(empty_warehouse, "rejects", "--topic", "videos", COLUMNS="160").stdout
    assert "title" in listed and "position_ms" not in listed and "1 rejected that match" in listed
    for arguments, why in (
        (["rejects", "--export", str(tmp_path / "no" / "file")], "cannot write"),
        (["rejects", "--since", "soon"], "--since"),
        (["rejects", "replay", str(tmp_path / "none.jsonl")], "KAFKA_BOOTSTRAP_SERVERS"),
    ):
        failed = retention(empty_warehouse, *arguments)
        assert failed.returncode == 1 and failed.stderr.startswith("error: "), failed.stderr
        assert why in failed.stderr and len(failed.stderr.strip().splitlines()) == 1
