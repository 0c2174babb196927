"""Invented viewers: seeded, true to what they report, and different from each other."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import random
import subprocess
import sys
from collections import Counter, defaultdict
from datetime import datetime, timezone
from statistics import mean
from typing import Any

import pytest

from producer.behaviours import BEHAVIOURS, cumulative_hazard
from producer.catalogue import CATALOGUE
from producer.simulator import (
    MAX_SESSION_MS,
    MIN_SESSION_MS,
    Crowd,
    Session,
    history,
    in_sending_order,
    simulate_session,
    viewer_of,
)
from retention_platform.contract import MAX_MESSAGE_BYTES, parse_event, parse_video

END = datetime(2026, 1, 31, tzinfo=timezone.utc)


@pytest.fixture(scope="module")
def sessions() -> list[Session]:
    return list(history(1, 1500, 30, END))


def events_of(session: Session) -> list[dict[str, Any]]:
    """The session's distinct events in the order they happened."""
    found: dict[str, dict[str, Any]] = {}
    for _, message in session.messages:
        event = json.loads(message)
        found.setdefault(event["event_id"], event)
    return list(found.values())


def test_the_same_seed_gives_the_same_bytes_in_every_process() -> None:
    command = [sys.executable, "-m", "retention_platform.cli", "produce", "--history", "3", "--sessions", "40"]
    command += ["--end", "2026-01-31T00:00:00Z", "--dry-run", "--seed", "9"]
    outputs = [
        subprocess.run(command, capture_output=True, check=True, env={**os.environ, "PYTHONHASHSEED": seed}).stdout
        for seed in ("1", "2")
    ]
    assert outputs[0] == outputs[1]
    here = b"".join(m + b"\n" for _, m in in_sending_order(history(9, 40, 3, END), int(END.timestamp() * 1000)))
    assert hashlib.sha256(here).digest() == hashlib.sha256(outputs[0]).digest()
    assert list(history(10, 5, 3, END)) != list(history(9, 5, 3, END))


def test_every_message_is_the_contract(sessions: list[Session]) -> None:
    checked = 0
    for session in sessions[:400]:
        for _, message in session.messages:
            event = parse_event(message)
            assert len(message) <= MAX_MESSAGE_BYTES
            assert json.loads(event.to_json()) | {"event_time": 0} == json.loads(message) | {"event_time": 0}
            checked += 1
    assert checked > 10_000


def test_the_catalogue_is_a_dozen_videos_with_chapters() -> None:
    assert len({demo.video.video_id for demo in CATALOGUE}) == 12
    for demo in CATALOGUE:
        assert parse_video(demo.video.to_json()) == demo.video
        starts = [chapter.start_ms for chapter in demo.video.chapters]
        assert starts == sorted(set(starts))
        assert starts[0] == 0
        assert starts[-1] < demo.duration_ms


def test_the_truth_is_what_the_events_report(sessions: list[Session]) -> None:
    for session in sessions:
        reported = [
            [event["played_from_ms"], event["played_to_ms"]] for event in events_of(session) if "played_to_ms" in event
        ]
        truth = json.loads(session.truth())
        assert truth["intervals"] == reported
        assert truth["events"] == len(events_of(session))


def test_intervals_are_whole_within_the_video_and_take_their_time(sessions: list[Session]) -> None:
    lengths = {demo.video.video_id: demo.duration_ms for demo in CATALOGUE}
    for session in sessions:
        last = session.start_ms
        for event in events_of(session):
            if "played_to_ms" in event:
                start, end = event["played_from_ms"], event["played_to_ms"]
                assert 0 <= start < end <= lengths[session.video_id]
                wall = event["event_time"] - last
                # A player rounds each step to whole milliseconds.
                assert (end - start) / event["playback_rate"] <= wall + 50
                last = event["event_time"]
            elif event["event_type"] == "play":
                last = event["event_time"]


def test_consecutive_intervals_tile_unless_somebody_seeks(sessions: list[Session]) -> None:
    for session in sessions:
        at = 0
        for event in events_of(session):
            if "played_to_ms" in event:
                assert event["played_from_ms"] == at
                at = event["played_to_ms"]
            if event["event_type"] == "seek":
                assert event["seek_from_ms"] == at
                at = event["position_ms"]


def test_while_a_video_plays_a_heartbeat_comes_every_ten_seconds(sessions: list[Session]) -> None:
    for session in sessions:
        resting, last = False, session.start_ms
        for event in events_of(session):
            kind, now = event["event_type"], event["event_time"]
            if not resting and kind != "buffer_end":
                assert now - last <= 10_001, (session.session_id, kind)
            resting = kind in ("pause", "buffer_start")
            if kind in ("play", "pause", "heartbeat", "rate_change", "buffer_end"):
                last = now


def test_sessions_last_from_half_a_minute_to_half_an_hour(sessions: list[Session]) -> None:
    lengths = [session.end_ms - session.start_ms for session in sessions]
    assert all(MIN_SESSION_MS - 1 <= length <= MAX_SESSION_MS for length in lengths), (min(lengths), max(lengths))
    assert max(lengths) > MAX_SESSION_MS / 2


def test_everything_that_viewers_and_networks_do_occurs(sessions: list[Session]) -> None:
    kinds = Counter(event["event_type"] for session in sessions for event in events_of(session))
    for kind in ("play", "pause", "seek", "heartbeat", "rate_change", "buffer_start", "ended", "exit", "error"):
        assert kinds[kind], kind
    assert kinds["buffer_start"] == kinds["buffer_end"]
    messages = [json.loads(message)["event_id"] for session in sessions for _, message in session.messages]
    assert len(messages) > len(set(messages)), "no duplicates"
    late = [s for s in sessions if any(sent - json.loads(m)["event_time"] > 60_000 for sent, m in s.messages)]
    assert 0.005 < len(late) / len(sessions) < 0.05
    silent = [s for s in sessions if events_of(s)[-1]["event_type"] not in ("exit", "ended", "error")]
    assert 0.02 < len(silent) / len(sessions) < 0.2
    assert any(session.lost_ms for session in silent)
    assert all(session.lost_ms <= 10_000 * 2 for session in sessions)
    backward = sum(e["position_ms"] < e["seek_from_ms"] for s in sessions for e in events_of(s) if "seek_from_ms" in e)
    assert 0 < backward < kinds["seek"]


def test_viewers_return_and_come_on_several_devices_from_several_places(sessions: list[Session]) -> None:
    visits = Counter(session.viewer_id for session in sessions)
    assert max(visits.values()) > 2
    assert len(visits) > len(sessions) / 10
    seen: dict[str, set[str]] = defaultdict(set)
    by_viewer: dict[str, set[str]] = defaultdict(set)
    for session in sessions:
        event = json.loads(session.messages[0][1])
        for name in ("device_type", "os", "browser", "country", "traffic_source"):
            seen[name].add(event[name])
        by_viewer[session.viewer_id].add(event["device_type"])
    assert all(len(values) > 3 for values in seen.values())
    assert all(len(devices) == 1 for devices in by_viewer.values())


def test_the_four_behaviours_differ_as_their_names_say() -> None:
    demo = next(demo for demo in CATALOGUE if demo.video.video_id == "demo-06")
    viewers = {}
    for number in range(400):
        viewer = viewer_of(5, number)
        viewers.setdefault(viewer.behaviour.name, viewer)
    watched, skips = {}, {}
    for name, viewer in viewers.items():
        played = [simulate_session(random.Random(n), demo, viewer, 1_700_000_000_000) for n in range(150)]
        watched[name] = mean(max(end for _, end in s.intervals) / demo.duration_ms for s in played)
        skips[name] = mean(
            sum(e["event_type"] == "seek" and e["position_ms"] > e["seek_from_ms"] for e in events_of(s))
            for s in played
        )
    assert viewers.keys() == {kind.name for kind in BEHAVIOURS}
    assert watched["completer"] > watched["binge"] > watched["casual"]
    assert skips["skipper"] > 2 * max(skips["casual"], skips["binge"], skips["completer"])


def test_leaving_is_likelier_at_the_beginning_at_chapters_and_at_the_end() -> None:
    demo = CATALOGUE[0]
    sums = cumulative_hazard(demo, BEHAVIOURS[0])
    hazard = [after - before for before, after in itertools.pairwise(sums)]
    ordinary = hazard[350]
    assert hazard[1] > 2 * ordinary
    assert hazard[demo.video.chapters[2].start_ms // 1000] > 2 * ordinary
    assert hazard[-1] > 2 * ordinary


def test_a_cliff_loses_the_share_it_says() -> None:
    demo = next(demo for demo in CATALOGUE if demo.cliff and demo.cliff[0] == 725)
    assert demo.cliff is not None
    completer = next(v for v in (viewer_of(1, n) for n in range(100)) if v.behaviour.name == "completer")
    sessions = [simulate_session(random.Random(n), demo, completer, 1_700_000_000_000) for n in range(3000)]
    first, last = demo.cliff[0] * 1000, demo.cliff[0] * 1000 + 5000

    def furthest(session: Session) -> int:
        return max(end for _, end in session.intervals) + session.lost_ms

    reached = [s for s in sessions if furthest(s) >= first]
    left = [s for s in reached if furthest(s) < last]
    assert len(left) / len(reached) == pytest.approx(demo.cliff[1], abs=0.025)


def test_messages_are_sent_in_order_and_none_after_the_end(sessions: list[Session]) -> None:
    end_ms = int(END.timestamp() * 1000)
    sent = [message for _, message in in_sending_order(iter(sessions), end_ms)]
    assert len(sent) == sum(len(session.messages) for session in sessions)
    assert all(json.loads(message)["event_time"] <= end_ms for message in sent)
    times = [json.loads(message)["event_time"] for message in sent]
    in_order = sum(before <= after for before, after in itertools.pairwise(times))
    assert in_order / len(times) > 0.9


def test_a_crowd_keeps_between_its_bounds() -> None:
    crowd = Crowd(1, 2, 5)
    active: list[Session] = []
    sizes = []
    for now in range(1_700_000_000_000, 1_700_000_000_000 + 3_600_000, 2_000):
        active = [session for session in active if session.end_ms > now] + crowd.arrivals(now)
        sizes.append(len(active))
    assert set(sizes) <= {2, 3, 4, 5}
    assert len(set(sizes)) > 1


def test_a_crowd_makes_about_the_rate_it_is_asked_for() -> None:
    crowd = Crowd(1, 1, 1, rate=20)
    begin = 1_700_000_000_000
    times = [t for now in range(begin, begin + 3_600_000, 1_000) for s in crowd.arrivals(now) for t, _ in s.messages]
    in_the_hour = sum(begin + 1_200_000 <= time < begin + 3_600_000 for time in times)
    assert in_the_hour / 2400 == pytest.approx(20, rel=0.25)
