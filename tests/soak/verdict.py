"""What the soak proves at its end, by exact sets: acknowledged = stored = in the marts, each once, rejects = malformed.

Each function raises AssertionError with the first thing that differs, in one line.
"""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from tests import oracle, oracle_moments
from tests.dbt_support import Chain
from tests.delivery.world import World
from tests.soak.log import Place, Sender, Witness
from tests.test_dbt_marts import assert_engagement_equal, assert_equal, assert_segments_equal

Event = dict[str, Any]
Ask = Callable[[str], list[tuple[Any, ...]]]


def assert_log_is_whole(sender: Sender, witness: Witness, ends: Mapping[int, int]) -> None:
    """The log holds each message that was acknowledged where it was said to be, and nothing that nobody sent."""
    assert not sender.given_up, f"{len(sender.given_up)} messages were never acknowledged: {sender.given_up[0]}"
    assert witness.lost is None, f"the log dropped messages before they were read: {witness.lost}"
    assert not witness.twice, f"the log was read twice at {witness.twice[:3]}"
    everywhere = {(partition, offset) for partition, end in ends.items() for offset in range(end)}
    assert witness.log.keys() == everywhere, f"the log has holes: {some(everywhere ^ witness.log.keys())}"
    moved = [place for place, value in sender.acknowledged.items() if witness.log.get(place) != value]
    assert not moved, f"{len(moved)} acknowledged messages are not where they were said to be: {moved[:3]}"
    values = set(witness.log.values())
    assert values <= sender.kinds.keys(), "the log has messages that nobody sent"
    assert values >= set(sender.somewhere), "an acknowledged message is not in the log"


def assert_stored_once(ask: Ask, sender: Sender, log: Mapping[Place, bytes]) -> None:
    """Without FINAL: every message of the log is stored once as an event or, if it is malformed, as a reject."""
    malformed = {place: value for place, value in log.items() if sender.kinds[value] == "malformed"}
    good = log.keys() - malformed.keys()
    stored = _stored_once("raw.playback_events", ask)
    # What a client sent twice within one batch is one row from the beginning; raw.deliveries, below, counts both.
    kept_once = {log[place] for place in stored if place in log}
    missing = {place for place in good - stored if log[place] not in kept_once}
    assert not missing, f"{len(missing)} events are not stored: {some(missing)}"
    assert stored <= good, f"{len(stored - good)} events are stored that were not sent: {some(stored - good)}"
    rejected = _stored_once("raw.rejected_events", ask)
    assert rejected == malformed.keys(), f"rejects are not the malformed messages: {some(rejected ^ malformed.keys())}"
    bytes_of = (
        "select partition, offset, base64Encode(payload) from raw.rejected_events where topic = 'playback_events'"
    )
    kept = {(partition, offset): base64.b64decode(text) for partition, offset, text in ask(bytes_of)}
    changed = [place for place in malformed if kept[place] != malformed[place]]
    assert not changed, f"{len(changed)} rejects are not the bytes that were sent: {changed[:3]}"
    ids = {row[0] for row in ask("select distinct toString(event_id) from raw.playback_events")}
    wanted = {json.loads(log[place])["event_id"] for place in good}
    assert ids == wanted, f"event ids stored and sent differ: {some(ids ^ wanted)}"
    ((counted,),) = ask("select sum(messages) from raw.deliveries")
    assert counted == len(good), f"raw.deliveries counts {counted} messages, {len(good)} are in the log"


def _stored_once(table: str, ask: Ask) -> set[Place]:
    rows = ask(f"select partition, offset from {table} where topic = 'playback_events'")
    found = {(row[0], row[1]) for row in rows}
    assert len(rows) == len(found), f"{len(rows) - len(found)} messages are stored twice in {table}"
    return found


def assert_marts(place: World, events: Sequence[Event], videos: Sequence[Event]) -> None:
    """Every mart is what brute force makes of the events; what clients sent twice counts once, and as a repeat."""
    chain = Chain(place.settings, place.folder)
    try:
        found = chain.marts()
        expected = oracle.marts(events, videos)
        for row in found["videos"].values():
            row["chapters"] = json.dumps([(c["start_ms"], c["title"]) for c in row["chapters"]])
        for name in ("videos", "retention_curve", "engagement_summary", "dropoff_points"):
            assert_equal(name, found[name], getattr(expected, name))
        assert_engagement_equal(chain, found, list(events), list(videos))
        assert_segments_equal(found["retention_curve_by_segment"], list(events), list(videos))
        _assert_moments(found["key_moments"], events, videos)
        copies = "select sum(found) from marts.data_quality where figure = 'duplicate_messages'"
        ((counted,),) = chain.ask(copies)
        distinct = len({event["event_id"] for event in events})
        assert counted == len(events) - distinct, f"{counted} repeats are counted, {len(events) - distinct} were sent"
        ((in_sessions,),) = chain.ask("select sum(events) from marts.sessions")
        assert in_sessions == distinct, f"marts.sessions counts {in_sessions} events, {distinct} were sent"
    finally:
        chain.client.close()


def _assert_moments(found: Mapping[Any, Mapping[str, Any]], events: Sequence[Event], videos: Sequence[Event]) -> None:
    chapters = {video_id: video["chapters"] for video_id, video in oracle.newest(videos).items()}
    wanted = {
        (video_id, moment_id): row
        for video_id, (duration_ms, views) in oracle_moments.watches(events, videos).items()
        for moment_id, row in oracle_moments.moments(duration_ms, views, chapters.get(video_id, [])).items()
    }
    assert found.keys() == wanted.keys(), f"key_moments: {some(found.keys() ^ wanted.keys())}"
    for key, row in wanted.items():
        for column, value in row.items():
            other = found[key][column]
            same = other == value
            if isinstance(value, float) and isinstance(other, float):
                same = math.isclose(other, value, rel_tol=1e-9, abs_tol=1e-9)
            assert same, f"key_moments {key} {column}: {other!r}, expected {value!r}"


def some(places: Iterable[Any]) -> list[Any]:
    """The first few, to be shown."""
    return sorted(places)[:3]
