"""The consumer of a usual tutorial, to be measured beside ingest: ``python -m benchmarks.delivery_tutorial``.

Each message is parsed on its own and becomes a row; a thousand rows are an insert. Nothing is checked, a message that
is no JSON ends it, and what was inserted before a crash and not committed is inserted again.
"""

from __future__ import annotations

import json
from datetime import datetime, timezone
from typing import Any

from confluent_kafka import Consumer

from retention_platform.contract import EVENTS_TOPIC
from retention_platform.settings import get_settings
from retention_platform.warehouse.client import connect

ROWS = 1_000
FIELDS = (
    *("event_id", "event_type", "event_time", "session_id", "viewer_id", "video_id", "position_ms", "played_from_ms"),
    *("played_to_ms", "seek_from_ms", "duration_ms", "playback_rate", "device_type", "os", "browser", "country"),
    *("traffic_source", "player", "is_live", "sent_at"),
)
#: What a field is that a message does not have.
ABSENT = {"playback_rate": 1.0, "is_live": False, **dict.fromkeys(FIELDS[12:18], "")}


def row(event: dict[str, Any]) -> list[Any]:
    """An event as the table has it."""
    values = [event.get(name, ABSENT.get(name)) for name in FIELDS]
    values[2] = datetime.fromtimestamp(event["event_time"] / 1000, timezone.utc)
    return values


def main() -> None:
    """Consume until ended."""
    settings = get_settings()
    client = connect(settings)
    client.command("create database if not exists tutorial")
    # Repeated events stay, so that what has arrived can be counted.
    client.command(
        "create table if not exists tutorial.events as raw.playback_events engine = MergeTree "
        "partition by toYYYYMM(event_time) order by (video_id, session_id, event_time, event_id)"
    )
    consumer = Consumer(
        {
            **settings.kafka_config(),
            "group.id": settings.kafka_group,
            "auto.offset.reset": "earliest",
            "enable.auto.commit": False,
        }
    )
    consumer.subscribe([EVENTS_TOPIC])
    rows = []
    while True:
        message = consumer.poll(1.0)
        if message is not None and message.error() is None:
            rows.append(row(json.loads(message.value())))
        if len(rows) >= ROWS or (rows and message is None):
            client.insert("tutorial.events", rows, column_names=FIELDS)
            consumer.commit(asynchronous=False)
            rows = []


if __name__ == "__main__":
    main()
