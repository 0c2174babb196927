"""The xAPI importer on the real viewers' log, and on the awkward cases it does not hold."""

from __future__ import annotations

import json
import random
from collections import defaultdict
from typing import Any

import pytest

from retention_platform.contract import PlaybackEvent, Video
from retention_platform.importers import xapi
from retention_platform.importers.reading import Line, Outcome, Problem, read_lines
from tests.xapi_truth import EXTENSION, STATEMENTS, covered, lengths_s, needs_statements, watched_sessions


def statement(verb: str, second: int, session: str = "s", **result: Any) -> dict[str, Any]:
    names = {"position": "time", "position_from": "time-from", "segments": "played-segments"}
    return {
        "verb": {"id": f"https://w3id.org/xapi/video/verbs/{verb}"},
        "actor": {"account": {"name": "learner", "homePage": "http://example.org"}},
        "object": {"id": "uuid://video-a", "definition": {"name": {"en-US": "A"}}},
        "context": {"extensions": {EXTENSION + "session-id": session, EXTENSION + "length": 100}},
        "result": {"extensions": {EXTENSION + names.get(key, key): value for key, value in result.items()}},
        "timestamp": f"2026-01-01T10:{second // 60:02d}:{second % 60:02d}Z",
    }


def convert(statements: list[Any]) -> list[Outcome]:
    return list(xapi.convert(Line(n, json.dumps(s)) for n, s in enumerate(statements, start=1)))


def intervals(outcomes: list[Outcome]) -> list[tuple[int, int]]:
    events = [event for event in outcomes if isinstance(event, PlaybackEvent) and event.played_to_ms is not None]
    return [(e.played_from_ms or 0, e.played_to_ms or 0) for e in sorted(events, key=lambda e: e.event_time)]


def test_the_fullest_list_is_the_truth_and_open_segments_are_left_out() -> None:
    outcomes = convert(
        [
            statement("played", 0, position=0),
            statement("paused", 10, position=10, segments="0[.]10"),
            statement("seeked", 30, position_from=25, segments="0[.]10[,]10[.]25[,]60"),
            statement("paused", 50, position=80, segments="0[.]10[,]10[.]25[,]60[.]80"),
        ]
    )
    assert intervals(outcomes) == [(0, 10_000), (10_000, 25_000), (60_000, 80_000)]


def test_without_lists_played_is_paired_with_what_ends_it() -> None:
    outcomes = convert(
        [
            statement("played", 0, position=0),
            statement("played", 5, position=3),
            statement("paused", 20, position=18),
            statement("paused", 30, position=25),
            statement("played", 40, position=50),
            statement("seeked", 45, position_from=55),
        ]
    )
    assert intervals(outcomes) == [(3_000, 18_000), (50_000, 55_000)]


def test_segments_follow_each_other_in_time_and_take_the_time_they_took() -> None:
    outcomes = convert([statement("paused", 30, position=25, segments="0[.]10[,]60[.]70[,]20[.]25")])
    events = [event for event in outcomes if isinstance(event, PlaybackEvent)]
    assert events[0].event_type == "play"
    assert intervals(outcomes) == [(0, 10_000), (60_000, 70_000), (20_000, 25_000)]
    span = (events[-1].event_time - events[0].event_time).total_seconds()
    assert span >= 25


def test_a_rewatched_segment_counts_each_time() -> None:
    assert intervals(convert([statement("paused", 30, segments="0[.]10[,]0[.]10")])) == [(0, 10_000), (0, 10_000)]


def test_one_session_id_for_several_viewers_or_videos_gives_each_its_own_session() -> None:
    mine = statement("paused", 30, segments="0[.]10")
    others = [json.loads(json.dumps(mine)) for _ in range(2)]
    others[0]["object"]["id"], others[1]["actor"]["account"]["name"] = "uuid://video-b", "another"
    others[0]["result"]["extensions"][EXTENSION + "played-segments"] = "20[.]50"
    outcomes = convert([mine, *others])
    events = [e for e in outcomes if isinstance(e, PlaybackEvent) and e.played_to_ms is not None]
    assert len({event.session_id for event in events}) == 3
    assert {(e.video_id, e.viewer_id, e.played_to_ms) for e in events} == {
        ("video-a", "learner", 10_000),
        ("video-b", "learner", 50_000),
        ("video-a", "another", 10_000),
    }


def test_statements_of_other_profiles_are_passed_over() -> None:
    other = statement("paused", 0)
    other["verb"]["id"] = "http://adlnet.gov/expapi/verbs/completed"
    other["context"], other["result"] = {"registration": "a-course", "extensions": {"http://example.org/x": 1}}, {}
    assert convert([other]) == []


@pytest.mark.parametrize(
    ("last", "verb", "segments", "kinds"),
    [
        (30, "paused", "0[.]10[,]10[.]20", ["play", "pause", "pause"]),
        (30, "paused", "0[.]10[,]60[.]70", ["play", "seek", "pause"]),
        (30, "terminated", "0[.]10", ["play", "exit"]),
        (99, "completed", "0[.]10[,]10[.]99.5", ["play", "pause", "ended"]),
    ],
)
def test_a_segment_ends_as_what_follows_it_says(last: int, verb: str, segments: str, kinds: list[str]) -> None:
    outcomes = convert([statement(verb, last, position=last, segments=segments, length=100)])
    assert [o.event_type for o in outcomes if isinstance(o, PlaybackEvent)] == kinds


@pytest.mark.parametrize(
    ("broken", "reason"),
    [
        ([1], "not a JSON object"),
        ({**statement("played", 0), "timestamp": "soon"}, "timestamp"),
        ({**statement("played", 0), "actor": {}}, "actor"),
        ({k: v for k, v in statement("played", 0).items() if k != "object"}, "object"),
        ({**statement("played", 0), "context": {}}, "session-id"),
        (statement("paused", 0, segments="a[.]b"), "not an xAPI statement"),
    ],
)
def test_a_broken_statement_is_told_by_its_line_and_does_not_stop_the_rest(broken: Any, reason: str) -> None:
    outcomes = convert([broken, statement("paused", 10, segments="0[.]10")])
    (problem,) = [outcome for outcome in outcomes if isinstance(outcome, Problem)]
    assert problem.line == 1
    assert reason in problem.reason
    assert intervals(outcomes) == [(0, 10_000)]


@needs_statements
def test_every_real_session_has_the_union_that_its_player_reports() -> None:
    outcomes = list(xapi.convert(read_lines(STATEMENTS)))
    assert not [outcome for outcome in outcomes if isinstance(outcome, Problem)]
    sessions: dict[str, list[tuple[int, int]]] = defaultdict(list)
    for event in outcomes:
        if isinstance(event, PlaybackEvent) and event.played_to_ms is not None:
            sessions[event.session_id].append((event.played_from_ms or 0, event.played_to_ms))
    truth = watched_sessions()
    assert sessions.keys() == truth.keys()
    checked = 0
    for session, watched in truth.items():
        mask = covered(sessions[session])
        assert mask == covered(watched.segments)
        if watched.progress is not None:
            # The player gives three decimals, cut or rounded, of seconds it holds more precisely than milliseconds.
            assert abs(mask.count(1) / 1000 / watched.length_s - watched.progress) <= 0.0011
            checked += 1
    assert checked > 2000


@needs_statements
def test_the_real_log_gives_its_ten_videos_with_their_longest_length() -> None:
    videos = {o.video_id: o for o in xapi.convert(read_lines(STATEMENTS)) if isinstance(o, Video)}
    assert {video_id: video.duration_ms for video_id, video in videos.items()} == {
        video_id: round(length * 1000) for video_id, length in lengths_s().items()
    }
    assert len(videos) == 10


@needs_statements
def test_the_order_of_lines_changes_nothing_and_ids_are_stable_and_unique() -> None:
    lines = list(read_lines(STATEMENTS))
    once = list(xapi.convert(lines))
    random.Random(3).shuffle(lines)
    assert list(xapi.convert(lines)) == once
    ids = [event.event_id for event in once if isinstance(event, PlaybackEvent)]
    assert len(set(ids)) == len(ids)


@needs_statements
def test_no_real_session_is_implausible() -> None:
    spans: dict[str, list[PlaybackEvent]] = defaultdict(list)
    for event in xapi.convert(read_lines(STATEMENTS)):
        if isinstance(event, PlaybackEvent):
            spans[event.session_id].append(event)
    for events in spans.values():
        times = [event.event_time for event in events]
        played_s = sum((e.played_to_ms or 0) - (e.played_from_ms or 0) for e in events) / 1000
        assert played_s <= (max(times) - min(times)).total_seconds() * 16 + 30
