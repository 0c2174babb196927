"""ClickHouse judges every message as the Python contract does: same verdict, same field named, same values stored."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from datetime import datetime, timezone
from typing import Any

import pytest

from retention_platform.contract import EVENTS_TOPIC, VIDEOS_TOPIC, parse_event, parse_video
from retention_platform.errors import ContractError
from retention_platform.ingest.batch import Source
from retention_platform.ingest.sink import INSERT_SETTINGS, ClickHouseSink
from tests.conftest import Warehouse
from tests.messages import EVENT, VIDEO

RECEIVED = datetime(2026, 6, 1, tzinfo=timezone.utc)

#: Raw JSON for a value: everything that a broken or hostile client may put anywhere.
VALUES = [
    *("null", "true", "false", "0", "1", "-1", "-0", "2", "1.0", "1.5", "-1.5", "1e3", "1E400", "0.0625", "16", "16.5"),
    *("604800000", "604800001", "1000000000000", "1000000000001", "-1000000000001", "1700000000000"),
    *("9223372036854775807", "9223372036854775808", "-9223372036854775809", "99999999999999999999999"),
    *('""', '" "', '"1"', '"abc"', '"null"', '"\\u0000"', '"\\u00e9\\ud83d\\ude00"', '"\\n\\t\\"\\\\"', '"[1]"'),
    *("[]", "{}", "[1]", '{"a": 1}', '["x"]', '[{"start_ms": 1, "title": "t"}]', '[{"start_ms": 1}]', "[null]"),
    *('[{"start_ms": "1", "title": "t"}]', '[{"start_ms": 1, "title": ""}]', '[{"start_ms": 1.5, "title": "t"}]'),
    *('[{"start_ms": -1, "title": "t"}]', '[{"start_ms": 1, "title": 2}]', '[{"start_ms": null, "title": "t"}]'),
    *('"play"', '"Play"', '"exit"', '"heartbeat"', '"0193e000-0000-7000-8000-00000000000A"'),
    *('"0193e000-0000-7000-8000-00000000000"', '"0193e0000000700080000000000000aa"', '"{0193e000}"'),
    *('"2026-01-15T12:00:00Z"', '"2026-01-15T12:00:00"', '"2026-01-15 12:00:00"', '"2026-01-15"', '"20260115T120000Z"'),
    *('"2026-01-15T12:00:00.123456789Z"', '"2026-01-15T12:00:00.1+05:30"', '"2026-01-15T12:00:00-0500"'),
    *('"2026-02-29T12:00:00Z"', '"2024-02-29T12:00:00Z"', '"2026-04-31T00:00:00Z"', '"2026-01-15T24:00:00Z"'),
    *('"2026-01-15T12:00:60Z"', '"1999-12-31T23:59:59Z"', '"2000-01-01T00:00:00Z"', '"2100-01-01T00:00:00Z"'),
    *('"2000-01-01T00:30:00+01:00"', '"2026-06-02T00:00:00Z"', '"2026-06-02T00:00:00.001Z"', '"0000-01-01T00:00:00Z"'),
    *('"1"', '"1700000000000"', '"Jan 15 2026"', '"now"', '"2026-01-15T12:00:00.Z"', '"2026-01-15T12:00:00z"'),
    f'"{"x" * 256}"',
    f'"{"x" * 257}"',
    f'"{"é" * 256}"',
    f'"{"x" * 1000}"',
    f'"{"x" * 1001}"',
]
#: Whole messages that are no event at all.
WHOLE = [
    *(b"", b" ", b"x", b"null", b"1", b'"a"', b"[]", b"{}", b"{", b'{"a"', b"{}{}", b"{} x", b"\xff", b'{"a": "\xff"}'),
    *(b'{"a": 01}', b'{"a": NaN}', b"{'a': 1}", b'{"a": 1,}', b'\xef\xbb\xbf{"a": 1}', b'{"a": "\\ud800"}', b"\x00"),
    b" " * 65535 + b"{}",
    b" " * 65534 + b"{}",
]
OPTIONAL_EVENT = [
    *("played_from_ms", "played_to_ms", "seek_from_ms", "duration_ms", "playback_rate", "device_type", "os", "browser"),
    *("country", "traffic_source", "player", "is_live", "sent_at", "unknown_field"),
]


def messages(base: dict[str, Any], optional: list[str], seed: int) -> list[bytes]:
    """Each field with each value, then random mixtures of several."""
    names = [*base, *(name for name in optional if name not in base)]
    raw = {name: json.dumps(value) for name, value in base.items()}

    def text(fields: dict[str, str]) -> bytes:
        return ("{" + ", ".join(f"{json.dumps(k)}: {v}" for k, v in fields.items()) + "}").encode()

    made = [text(raw), *WHOLE]
    made += [text({**raw, name: value}) for name in names for value in VALUES]
    made += [text({k: v for k, v in raw.items() if k != name}) for name in base]
    chance = random.Random(seed)
    for _ in range(2000):
        fields = {**raw, **{chance.choice(names): chance.choice(VALUES) for _ in range(chance.randint(1, 3))}}
        order = list(fields)
        chance.shuffle(order)
        made.append(text({name: fields[name] for name in order if chance.random() > 0.02}))
    return made


@pytest.fixture(autouse=True)
def keep_equal_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    """Most messages here share an event_id: an insert would fold them into one."""
    monkeypatch.setitem(INSERT_SETTINGS, "optimize_on_insert", 0)


def store(warehouse: Warehouse, topic: str, payloads: list[bytes]) -> None:
    received_ms = int(RECEIVED.timestamp() * 1000)
    rows = [(n, received_ms, b"key", payload) for n, payload in enumerate(payloads)]
    ClickHouseSink(warehouse.settings).insert(Source("log", topic, 0), rows, f"log/{topic}/0/0-{len(payloads) - 1}")


def compare(
    warehouse: Warehouse, topic: str, table: str, payloads: list[bytes], parse: Callable[[bytes], Any]
) -> dict[int, Any]:
    """Store the payloads, then hold ClickHouse's verdicts against ``parse``; the parsed messages by offset."""
    store(warehouse, topic, payloads)
    taken = {row[0] for row in warehouse.rows(f"select offset from {table}")}
    refused = dict(warehouse.rows(f"select offset, field from raw.rejected_events where topic = '{topic}'"))
    assert not taken & refused.keys()
    parsed, differences = {}, []
    for offset, payload in enumerate(payloads):
        field = refused.get(offset)
        try:
            parsed[offset] = parse(payload)
            expected = None
        except ContractError as error:
            expected = error.field
        if (field is None) != (expected is None) or (offset in taken) != (expected is None):
            differences.append((payload[:300], f"python: {expected}", f"clickhouse: {field}"))
        elif field != expected:
            differences.append((payload[:300], f"python names {expected}", f"clickhouse names {field}"))
    assert not differences, f"{len(differences)} differ, first: {differences[:8]}"
    assert len(parsed) > 100
    assert len(refused) > 100
    return parsed


def test_events_are_judged_alike_and_stored_with_the_same_values(empty_warehouse: Warehouse) -> None:
    payloads = messages(EVENT, OPTIONAL_EVENT, seed=1)
    columns = [
        *("event_id", "event_type", "session_id", "viewer_id", "video_id", "position_ms", "played_from_ms"),
        *("played_to_ms", "seek_from_ms", "duration_ms", "playback_rate", "device_type", "os", "browser", "country"),
        *("traffic_source", "player", "is_live", "event_time", "sent_at"),
    ]
    parsed = compare(
        empty_warehouse, EVENTS_TOPIC, "raw.playback_events", payloads, lambda raw: parse_event(raw, RECEIVED)
    )
    stored = empty_warehouse.rows(f"select offset, {', '.join(columns)} from raw.playback_events")
    for offset, *values in stored:
        event = parsed[offset]
        for name, value in zip(columns, values, strict=True):
            expected = getattr(event, name)
            if name == "playback_rate" and expected is None:
                expected = 1.0
            elif name == "is_live":
                expected = bool(expected)
            elif expected is None and isinstance(value, str):
                expected = ""
            if isinstance(value, datetime):
                value = value.replace(tzinfo=timezone.utc)  # noqa: PLW2901
            assert (str(value) if name == "event_id" else value) == expected, (name, payloads[offset][:300])


def test_videos_are_judged_alike(empty_warehouse: Warehouse) -> None:
    payloads = messages(VIDEO, ["unknown_field"], seed=2)
    compare(empty_warehouse, VIDEOS_TOPIC, "raw.videos", payloads, parse_video)
