"""The soak itself, some seconds of it; `make soak` is the real one. And its traffic: steady, and what it says it is."""

from __future__ import annotations

import json
from collections import Counter

import pytest

from retention_platform.contract import parse_event
from retention_platform.errors import ContractError
from tests.soak.run import Plan, State, soak
from tests.soak.traffic import BREAKS, Message, Traffic

NOW_MS = 1_780_000_000_000

#: On a busy machine its seconds are minutes.
pytestmark = pytest.mark.timeout(900)


def a_minute(seed: int) -> list[Message]:
    traffic = Traffic(seed, 100, NOW_MS)
    messages = [message for second in range(61) for message in traffic.until(NOW_MS + 1000 * second)]
    return [*messages, *traffic.rest(NOW_MS + 60_000)]


def test_traffic_is_steady_and_has_every_accident_in_it() -> None:
    messages = a_minute(1)
    kinds = Counter(message.kind for message in messages)
    assert 5_000 < kinds["event"] < 7_000
    assert all(kinds[kind] > 20 for kind in ("repeat", "malformed", "video"))
    assert sum(message.late for message in messages) > 100
    assert messages == a_minute(1) != a_minute(2)
    events = {message.value for message in messages if message.kind == "event"}
    assert {message.value for message in messages if message.kind == "repeat"} <= events
    times = [json.loads(value)["event_time"] for value in events]
    assert NOW_MS - 40 * 3_600_000 < min(times) < NOW_MS - 4 * 3_600_000
    assert NOW_MS < max(times) <= NOW_MS + 60_000


def test_events_are_the_contract_and_malformed_messages_are_not() -> None:
    messages = a_minute(3)
    event = next(json.loads(message.value) for message in messages if message.kind == "event")
    malformed = [message.value for message in messages if message.kind == "malformed"]
    for message in messages:
        if message.kind == "event":
            parse_event(message.value)
    for value in [*malformed, *(broken(event) for broken in BREAKS)]:
        with pytest.raises(ContractError):
            parse_event(value)


def run(plan: Plan) -> tuple[State, list[str]]:
    state, notes = State(plan), list[str]()
    soak(plan, state, notes.append)
    return state, notes


def test_some_seconds_of_soak_end_exact() -> None:
    kinds = ("clickhouse_is_killed", "ingest_is_killed", "answers_are_lost", "the_broker_does_not_answer")
    plan = Plan(10, 150, 1, kafka=False, only=kinds, rounds=1, calm=0.5, refresh_rest=0, jobs=("marts",))
    state, notes = run(plan)
    assert state.difference is None, notes
    assert {one.kind for one in state.suffered} == set(kinds), notes
    assert state.sender is not None and state.sender.sent["repeat"] and state.sender.sent["malformed"]
    assert state.stored > 1_000


def test_a_soak_without_deduplication_finds_what_is_doubled() -> None:
    plan = Plan(
        2, 150, 2, kafka=False, deduplicate=False, only=("answers_are_lost",), rounds=3, calm=0.3, refresh_rest=0
    )
    state, notes = run(plan)
    assert state.difference is not None and "are stored twice in raw.playback_events" in state.difference, notes
