"""The live layer equals a plain recomputation over the last hour, whatever batches and repeats the events came in."""

from __future__ import annotations

import random
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.dbt_support import Chain
from tests.live_oracle import HOUR_MS, Event, assert_live, concurrency, curve, viewers_now

if TYPE_CHECKING:
    from tests.conftest import Warehouse


@pytest.fixture
def chain(empty_warehouse: Warehouse, tmp_path: Path) -> Iterator[Chain]:
    chain = Chain(empty_warehouse.settings, tmp_path)
    yield chain
    chain.client.close()


def events_around(now_ms: int, seed: int) -> list[Event]:
    """Sessions of the last hours that nobody could call well-behaved; none near a border that the test's time moves."""
    rng, events = random.Random(seed), []

    def away_from_borders(at: int) -> bool:
        return all(abs(now_ms - border - at) > 25_000 for border in (30_000, HOUR_MS, 3 * HOUR_MS)) and at < now_ms

    for number in range(300):
        duration = rng.choice([None, 1, 30_500, 90_000, 600_000])
        clock = now_ms - rng.choice([rng.randrange(80_000), rng.randrange(HOUR_MS), rng.randrange(4 * HOUR_MS)])
        position, rate = rng.randrange(0, 60_000), rng.choice([1, 1, 1.25, 2, 0.5, 16])
        for _ in range(rng.randrange(1, 12)):
            length = rng.choice([0, 999, 1000, 10_000, 10_000, rng.randrange(1, 40_000)])
            start, end = position, position + length
            if rng.random() < 0.1:
                start, end = rng.choice([(-5, 10), (end, start), (0, 10**12), (0, HOUR_MS * 20), (0, 604_800_000)])
            event: Event = {
                "schema_version": 1,
                "event_id": str(uuid.UUID(int=rng.getrandbits(128), version=4)),
                "event_type": rng.choice(["heartbeat", "heartbeat", "heartbeat", "seek", "pause", "exit", "play"]),
                "event_time": clock,
                "session_id": f"s{number}",
                "viewer_id": "v",
                "video_id": f"video-{number % 7}",
                "position_ms": max(0, min(end, 604_800_000)),
                "playback_rate": rate,
            }
            if event["event_type"] != "play":
                event |= {"played_from_ms": start, "played_to_ms": end}
            if duration is not None:
                event["duration_ms"] = duration
            if away_from_borders(clock):
                events.append(event)
            position, clock = max(0, end) % 700_000, clock + round(length / rate) + rng.choice([0, 0, 5000])
    return events


@pytest.mark.parametrize("seed", [1, 2])
def test_the_live_tables_equal_a_recomputation_however_the_events_came(chain: Chain, seed: int) -> None:
    now_ms = int(time.time() * 1000)
    events = events_around(now_ms, seed)
    rng = random.Random(seed)
    repeated = events + rng.sample(events, len(events) // 3)
    rng.shuffle(repeated)
    while repeated:
        batch, repeated = repeated[:170], repeated[170:]
        chain.send_events(batch)
    assert chain.client.command("select count() from raw.rejected_events") == 0
    assert len(curve(events, now_ms)) > 200 and len(concurrency(events, now_ms)) > 100, "the seed tests too little"
    assert_live(chain.ask, events)


def test_who_watches_now_is_who_played_lately_and_did_not_stop(chain: Chain) -> None:
    def event(session: str, seconds_ago: int, kind: str) -> Event:
        return {
            "schema_version": 1,
            "event_id": str(uuid.uuid4()),
            "event_type": kind,
            "event_time": int(time.time() * 1000) - 1000 * seconds_ago,
            "session_id": session,
            "viewer_id": "v",
            "video_id": "film" if session < "m" else "talk",
            "position_ms": 10_000,
        }

    events = [
        event("a", 4, "heartbeat"),
        event("b", 3, "heartbeat"),
        event("b", 2, "pause"),
        event("c", 3, "exit"),
        event("d", 9, "pause"),
        event("d", 2, "play"),
        event("e", 100, "heartbeat"),
        event("z", 5, "buffer_start"),
    ]
    chain.send_events(events)
    chain.send_events(events[::-1])
    found = {video: viewers for video, viewers, _ in chain.ask("select * from live.viewers_now")}
    assert found == viewers_now(events, int(time.time() * 1000)) == {"film": 2, "talk": 1}


def test_no_message_makes_more_rows_than_an_hour_has_and_history_makes_none(chain: Chain) -> None:
    now_ms = int(time.time() * 1000)

    def event(**more: Any) -> Event:
        return {
            "schema_version": 1,
            "event_id": str(uuid.uuid4()),
            "event_type": "heartbeat",
            "event_time": now_ms - 5000,
            "session_id": "s",
            "viewer_id": "v",
            "video_id": "film",
            "position_ms": 0,
            "played_from_ms": 0,
            "played_to_ms": 10_000,
        } | more

    chain.send_events(
        [
            event(played_to_ms=10**12),
            event(played_to_ms=604_800_000),
            event(playback_rate=1e-300),
            event(playback_rate=5e-324),
            event(played_from_ms=-(10**12)),
            event(event_time=now_ms - 4 * HOUR_MS),
            event(event_time=now_ms + 3 * HOUR_MS),
            event(event_time=946_684_800_001),
        ]
    )
    assert chain.client.command("select count() from raw.rejected_events") == 0
    assert chain.client.command("select count() from live.ticks") == 0
    assert chain.client.command("select count() from live.events where played_to_ms > 0") == 0
    chain.send_events([event(played_to_ms=57_600_000, playback_rate=16), event(played_to_ms=3_600_000)])
    assert 359 <= int(str(chain.client.command("select count() from live.ticks"))) <= 361
