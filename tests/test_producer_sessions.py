"""Invented sessions against the contract, against their own truth, and against what they are meant to tell."""

from __future__ import annotations

import hashlib
import json
import math
import os
import subprocess
import sys
import uuid
from collections import Counter, defaultdict
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest

from producer.catalogue import CATALOGUE, DemoVideo
from producer.session import Session
from producer.simulator import Crowd, history, in_sending_order
from retention_platform.contract import EVENT_TYPES, format_time, parse_event, parse_video

END = datetime(2026, 2, 2, 12, 0, tzinfo=timezone.utc)
END_MS = int(END.timestamp() * 1000)
DAYS = 14
SESSIONS = 5000
VIDEOS = {demo.video.video_id: demo for demo in CATALOGUE}

Event = dict[str, Any]


@pytest.fixture(scope="module")
def sessions() -> list[Session]:
    return list(history(7, SESSIONS, DAYS, END))


@pytest.fixture(scope="module")
def played(sessions: list[Session]) -> list[list[Event]]:
    """The distinct events of each session in the order of their times, read back from the messages."""
    return [distinct(message for _, message in session.messages) for session in sessions]


def distinct(messages: Any) -> list[Event]:
    events = {}
    for event in map(json.loads, messages):
        events[event["event_id"]] = event
    return sorted(events.values(), key=lambda event: event["event_time"])


def intervals_of(events: list[Event]) -> list[list[int]]:
    return [[e["played_from_ms"], e["played_to_ms"]] for e in events if "played_from_ms" in e]


def watched_seconds(events: list[Event]) -> set[int]:
    return {
        second
        for start, end in intervals_of(events)
        for second in range(math.ceil(start / 1000), math.ceil(end / 1000))
    }


def of_video(played: list[list[Event]], demo: DemoVideo) -> list[list[Event]]:
    return [events for events in played if events[0]["video_id"] == demo.video.video_id]


def exit_second(events: list[Event]) -> int:
    return math.ceil(intervals_of(events)[-1][1] / 1000) - 1


# -- the same seed, the same bytes


def test_the_same_seed_gives_the_same_bytes_in_every_process() -> None:
    code = (
        "import hashlib, sys; from datetime import datetime, timezone; from producer.simulator import *\n"
        "digest = hashlib.sha256()\n"
        "for session, message in in_sending_order(history(int(sys.argv[1]), 60, 3, "
        "datetime(2026, 2, 2, 12, tzinfo=timezone.utc))):\n"
        "    digest.update(message); digest.update(session.truth())\n"
        "print(digest.hexdigest())"
    )

    def run(seed: int, hash_seed: str) -> str:
        environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
        command = [sys.executable, "-c", code, str(seed)]
        return subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout.strip()

    here = hashlib.sha256()
    for session, message in in_sending_order(history(5, 60, 3, END)):
        here.update(message)
        here.update(session.truth())
    assert run(5, "1") == run(5, "2") == here.hexdigest()
    assert run(6, "1") != here.hexdigest()


# -- the contract


def test_every_message_is_the_contract_and_what_the_typed_model_would_send(sessions: list[Session]) -> None:
    checked = 0
    for session in sessions[:300]:
        for _, message in session.messages:
            event = parse_event(message, received_at=END)
            raw = json.loads(message)
            moment = datetime.fromtimestamp(raw["event_time"] / 1000, timezone.utc)
            assert json.loads(event.to_json()) == {**raw, "event_time": format_time(moment)}
            assert event.key == session.session_id
            checked += 1
    assert checked > 5000


def test_event_ids_are_version_7_uuids_of_the_event_time_and_never_repeat(played: list[list[Event]]) -> None:
    seen = set()
    for events in played:
        for event in events:
            event_id = uuid.UUID(event["event_id"])
            assert event_id.version == 7
            assert event_id.variant == uuid.RFC_4122
            assert event_id.int >> 80 == event["event_time"]
            seen.add(event_id)
    assert len(seen) == sum(map(len, played))


def test_the_catalogue_is_twelve_videos_with_chapters_inside_them() -> None:
    assert len(VIDEOS) == len({demo.video.title for demo in CATALOGUE}) == 12
    for demo in CATALOGUE:
        starts = [chapter.start_ms for chapter in demo.video.chapters]
        assert starts[0] == 0
        assert starts == sorted(set(starts))
        assert starts[-1] < demo.duration_ms
        assert 30_000 <= demo.duration_ms <= 30 * 60_000
        assert demo.video.published_at is not None
        assert demo.video.published_at < END - timedelta(days=90)
        assert parse_video(demo.video.to_json()) == demo.video


# -- the truth


def test_the_truth_is_what_the_events_say(sessions: list[Session], played: list[list[Event]]) -> None:
    for session, events in zip(sessions, played, strict=True):
        truth = json.loads(session.truth())
        assert truth["intervals"] == intervals_of(events)
        assert truth["events"] == len(events)
        assert {(e["session_id"], e["viewer_id"], e["video_id"]) for e in events} == {
            (truth["session_id"], truth["viewer_id"], truth["video_id"])
        }
        assert truth["is_complete"]


def test_a_player_that_obeys_the_events_plays_exactly_the_reported_intervals(played: list[list[Event]]) -> None:
    """Replays each session by positions, rates and the clock alone, and demands the reported intervals."""
    for events in played:
        duration = VIDEOS[events[0]["video_id"]].duration_ms
        position, since, playing, reported = 0, events[0]["event_time"], False, 0
        for event in events:
            here = event.get("seek_from_ms", event["position_ms"])
            assert 0 <= here <= duration
            if not playing:
                assert here == position or event["event_type"] == "seek"
            else:
                # Wall time is whole milliseconds, so at most one rounding a step apart.
                wall = event["event_time"] - since
                assert here - position <= (wall + 1) * event["playback_rate"]
            if "played_from_ms" in event:
                assert event["played_from_ms"] == reported
                assert event["played_to_ms"] == here
                assert event["played_from_ms"] < event["played_to_ms"]
                reported = here
            elif event["event_type"] not in {"buffer_start", "buffer_end", "error"}:
                assert here == reported
            position, since = event["position_ms"], event["event_time"]
            if event["event_type"] == "seek":
                reported = position
            if event["event_type"] in {"play", "buffer_end"}:
                playing = True
            elif event["event_type"] in {"pause", "ended", "exit", "error"}:
                playing = False


def test_a_lost_tab_loses_at_most_one_heartbeat(sessions: list[Session], played: list[list[Event]]) -> None:
    lost = 0
    for session, events in zip(sessions, played, strict=True):
        if session.lost_ms:
            assert events[-1]["event_type"] != "exit"
            # A rate_change carries the rate of the interval it ends; what comes after it may be the fastest.
            rate = 2.0 if events[-1]["event_type"] == "rate_change" else events[-1]["playback_rate"]
            assert session.lost_ms <= 10_000 * rate
            lost += 1
    assert 0.02 * SESSIONS < lost < 0.2 * SESSIONS


def test_sessions_cut_off_tell_the_truth_of_what_was_sent(sessions: list[Session]) -> None:
    session = max(sessions, key=lambda s: s.events)
    sent = [message for _, message in session.messages[:40]]
    truth = json.loads(session.truth(sent + sent[5:9]))
    assert truth["intervals"] == intervals_of(distinct(sent))
    assert truth["events"] == 40
    assert not truth["is_complete"]


# -- the wire and the clock


def test_sessions_last_from_30_seconds_to_30_minutes(played: list[list[Event]]) -> None:
    spans = [events[-1]["event_time"] - events[0]["event_time"] for events in played]
    assert min(spans) >= 30_000
    assert 25 * 60_000 < max(spans) <= 30 * 60_000
    assert sum(span < 60_000 for span in spans) > 0.1 * SESSIONS


def test_while_it_plays_a_player_reports_at_least_every_10_seconds(played: list[list[Event]]) -> None:
    longest = 0
    for events in played:
        last, playing = 0, False
        for event in events:
            if playing:
                longest = max(longest, event["event_time"] - last)
            if event["event_type"] == "play":
                playing, last = True, event["event_time"]
            elif event["event_type"] in {"pause", "ended", "exit", "error"}:
                playing = False
            elif event["event_type"] in {"heartbeat", "rate_change"}:
                last = event["event_time"]
    assert longest == 10_000


def test_some_events_come_twice_and_some_late(sessions: list[Session]) -> None:
    messages = [message for session in sessions for _, message in session.messages]
    copies = Counter(messages)
    twice = sum(count - 1 for count in copies.values())
    assert 0.003 < twice / len(copies) < 0.005
    late = 0
    for session in sessions:
        delays = [sent - json.loads(message)["event_time"] for sent, message in session.messages]
        assert min(delays) >= 0
        late += max(delays) >= 60_000
    assert 0.01 < late / SESSIONS < 0.03


def test_everything_that_players_do_occurs(played: list[list[Event]]) -> None:
    def values(name: str) -> Counter[Any]:
        return Counter(event[name] for events in played for event in events)

    assert set(values("event_type")) == set(EVENT_TYPES)
    assert set(values("video_id")) == set(VIDEOS)
    assert set(values("playback_rate")) == {0.75, 1.0, 1.25, 1.5, 2.0}
    for name, least in {"device_type": 4, "os": 7, "browser": 6, "country": 10, "traffic_source": 6}.items():
        assert len(values(name)) >= least
    assert any(e["event_type"] == "seek" and e["position_ms"] < e["seek_from_ms"] for es in played for e in es)
    assert any(e["event_type"] == "seek" and e["position_ms"] > e["seek_from_ms"] for es in played for e in es)
    last = Counter(events[-1]["event_type"] for events in played)
    assert last["exit"] > last["ended"] > last["heartbeat"] > 0


# -- how viewers behave


def test_viewers_come_back_and_keep_their_device(played: list[list[Event]]) -> None:
    visits: dict[str, list[Event]] = defaultdict(list)
    for events in played:
        visits[events[0]["viewer_id"]].append(events[0])
    assert 0.2 * SESSIONS < len(visits) < 0.6 * SESSIONS
    assert sum(len(v) > 1 for v in visits.values()) > 0.3 * len(visits)
    for seen in visits.values():
        assert len({(e["device_type"], e["os"], e["browser"], e["country"]) for e in seen}) == 1


def test_the_four_behaviours_can_be_told_apart(sessions: list[Session], played: list[list[Event]]) -> None:
    shares: dict[str, list[float]] = defaultdict(list)
    skips: Counter[str] = Counter()
    minutes: Counter[str] = Counter()
    by_viewer: dict[str, list[tuple[int, int, str, str]]] = defaultdict(list)
    for session, events in zip(sessions, played, strict=True):
        kind = session.viewer.behaviour.name
        shares[kind].append(len(watched_seconds(events)) / (VIDEOS[session.video_id].duration_ms / 1000))
        skips[kind] += sum(e["event_type"] == "seek" and e["position_ms"] > e["seek_from_ms"] for e in events)
        minutes[kind] += (events[-1]["event_time"] - events[0]["event_time"]) // 60_000
        start, end = events[0]["event_time"], events[-1]["event_time"]
        by_viewer[session.viewer.viewer_id].append((start, end, session.video_id, kind))
    mean = {kind: sum(values) / len(values) for kind, values in shares.items()}
    assert mean["completer"] > mean["binge"] > mean["casual"]
    assert mean["completer"] > 0.8
    assert mean["casual"] < 0.5
    assert skips["skipper"] / minutes["skipper"] > 3 * max(skips[k] / minutes[k] for k in ("casual", "completer"))

    followed: Counter[str] = Counter()
    for visits in by_viewer.values():
        for (_, end, video, kind), (start, _, following, _) in zip(sorted(visits), sorted(visits)[1:], strict=False):
            if 0 <= start - end <= 60_000 + 20_000 and video != following:
                followed[kind] += 1
    assert followed["binge"] > 0.2 * len(shares["binge"])
    assert followed["binge"] > 0.9 * followed.total()


def test_leaving_is_likelier_at_the_beginning_the_end_and_after_a_chapter_begins(
    played: list[list[Event]],
) -> None:
    left: Counter[str] = Counter()
    seconds: Counter[str] = Counter()
    for demo in CATALOGUE:
        duration = demo.duration_ms // 1000
        if duration < 300:
            continue
        chapters = [chapter.start_ms // 1000 for chapter in demo.video.chapters][1:]
        near_cliff = range(demo.cliff[0] - 10, demo.cliff[0] + 10) if demo.cliff else range(0)

        def part(second: int) -> str:
            if second in near_cliff:  # noqa: B023
                return "cliff"
            if second < 15:
                return "beginning"
            if second >= 0.93 * duration:  # noqa: B023
                return "end"
            return "chapter" if any(0 <= second - start < 4 for start in chapters) else "middle"  # noqa: B023

        for events in of_video(played, demo):
            for second in watched_seconds(events):
                seconds[part(second)] += 1
            second = exit_second(events)
            if second < duration - 1:
                left[part(second)] += 1
    hazard = {name: left[name] / seconds[name] for name in seconds}
    assert hazard["beginning"] > 2 * hazard["middle"]
    assert hazard["end"] > 2 * hazard["middle"]
    assert hazard["chapter"] > 2 * hazard["middle"]


@pytest.mark.parametrize("demo", [d for d in CATALOGUE if d.cliff], ids=lambda d: d.video.video_id)
def test_a_cliff_loses_its_share_of_those_who_come_to_it(demo: DemoVideo, played: list[list[Event]]) -> None:
    assert demo.cliff is not None
    second, share = demo.cliff
    views = of_video(played, demo)
    exits = [exit_second(events) for events in views]
    # A lost tab is seen up to ten seconds early.
    after = sum(second - 10 <= at < second + 5 for at in exits) / sum(at >= second - 10 for at in exits)
    before = sum(second - 40 <= at < second - 10 for at in exits) / sum(at >= second - 40 for at in exits) / 2
    assert after - before == pytest.approx(share, abs=0.08)
    assert after > 2 * before


@pytest.mark.parametrize("demo", [d for d in CATALOGUE if d.highlight], ids=lambda d: d.video.video_id)
def test_a_highlight_is_watched_again(demo: DemoVideo, played: list[list[Event]]) -> None:
    assert demo.highlight is not None

    def plays_per_viewer(second: int) -> float:
        counts = [
            sum(start <= second * 1000 < end for start, end in intervals_of(events))
            for events in of_video(played, demo)
        ]
        return sum(counts) / sum(count > 0 for count in counts)

    first, last = demo.highlight
    assert plays_per_viewer((first + last) // 2) > 1.2
    assert plays_per_viewer(first - 30) < 1.1


@pytest.mark.parametrize("demo", [d for d in CATALOGUE if d.dull], ids=lambda d: d.video.video_id)
def test_a_dull_stretch_is_skipped(demo: DemoVideo, played: list[list[Event]]) -> None:
    assert demo.dull is not None
    views = [watched_seconds(events) for events in of_video(played, demo)]
    inside = sum((demo.dull[0] + demo.dull[1]) // 2 in seconds for seconds in views)
    behind = sum(demo.dull[1] + 3 in seconds for seconds in views)
    assert inside < 0.85 * behind


# -- many sessions


def test_a_history_has_as_many_sessions_as_asked_within_its_days_by_their_start(
    sessions: list[Session], played: list[list[Event]]
) -> None:
    assert len({session.session_id for session in sessions}) == SESSIONS
    starts = [events[0]["event_time"] for events in played]
    assert starts == sorted(starts)
    assert starts[0] >= END_MS - DAYS * 86_400_000
    assert END_MS - 3_600_000 < max(events[-1]["event_time"] for events in played) <= END_MS


def test_a_history_has_the_rhythm_of_days(played: list[list[Event]]) -> None:
    hours = Counter(datetime.fromtimestamp(events[0]["event_time"] / 1000, timezone.utc).hour for events in played)
    assert hours[20] > 4 * hours[3]


def test_a_history_of_one_session_in_one_day_is_possible() -> None:
    (session,) = history(1, 1, 1, END)
    assert session.start_ms >= END_MS - 86_400_000
    assert session.end_ms <= END_MS


def test_messages_are_sent_in_order_each_once_and_late_ones_by_the_end(sessions: list[Session]) -> None:
    due = {}
    for session in sessions:
        for number, (sent, message) in enumerate(sorted(session.messages)):
            due[message, number] = min(sent, END_MS)
    copies: Counter[bytes] = Counter()
    in_order = [message for _, message in in_sending_order(iter(sessions), END_MS)]
    assert Counter(in_order) == Counter(message for message, _ in due)
    times: dict[bytes, list[int]] = defaultdict(list)
    for (message, _), sent in due.items():
        times[message].append(sent)
    for sendings in times.values():
        sendings.sort()
    last = 0
    for message in in_order:
        sent = times[message][copies[message]]
        copies[message] += 1
        assert sent >= last
        last = sent


# -- the present


def _crowd_over(crowd: Crowd, minutes: int) -> tuple[list[Session], list[int]]:
    """The sessions that came in so many minutes, and how many were there at each look, four looks a second."""
    start, came, present = END_MS, [], []
    ends: list[int] = []
    for now in range(start, start + minutes * 60_000, 250):
        arrived = crowd.arrivals(now)
        came += arrived
        ends = [end for end in ends if end > now] + [session.end_ms for session in arrived]
        present.append(len(ends))
    return came, present


def test_one_to_eight_watch_at_once_and_the_number_wanders() -> None:
    _, present = _crowd_over(Crowd(3, 1, 8), 120)
    assert min(present) == 1
    assert max(present) == 8
    assert set(present) == set(range(1, 9))


def test_a_rate_of_events_is_kept() -> None:
    came, _ = _crowd_over(Crowd(3, 1, 8, rate=40), 20)
    begin = END_MS + 60_000
    sent = sum(begin <= at < begin + 18 * 60_000 for session in came for at, _ in session.messages)
    assert sent / (18 * 60) == pytest.approx(40, rel=0.1)


def test_a_crowd_of_nobody_new_gathers_without_beating_together() -> None:
    crowd = Crowd(3, 200, 200)
    came, present = _crowd_over(crowd, 1)
    assert len({session.start_ms for session in came}) > 30
    assert present[4 * 11] == 200
