"""The Open edX importer: pairing against a slow direct reading of its rules, and what logs really hold."""

from __future__ import annotations

import gzip
import io
import json
import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retention_platform.contract import PlaybackEvent
from retention_platform.errors import RetentionError
from retention_platform.importers import edx, jsonl
from retention_platform.importers.reading import Line, Outcome, Problem, read_lines
from retention_platform.importers.run import convert_file
from tests.messages import EVENT, VIDEO


def log(name: str, second: float, **event: Any) -> dict[str, Any]:
    minutes, rest = divmod(second, 60)
    return {
        "event_type": name,
        "event_source": "browser",
        "username": "anna",
        "time": f"2026-01-01T{10 + int(minutes) // 60:02d}:{int(minutes) % 60:02d}:{rest:06.3f}+00:00",
        "context": {"user_id": 7, "course_id": "course-v1:X+1"},
        "event": {"id": "video-a", "duration": 600, **event},
    }


def convert(records: list[dict[str, Any]]) -> list[Outcome]:
    return list(edx.convert(Line(n, json.dumps(r)) for n, r in enumerate(records, start=1)))


def intervals(outcomes: list[Outcome]) -> list[tuple[int, int]]:
    events = [event for event in outcomes if isinstance(event, PlaybackEvent) and event.played_to_ms is not None]
    return sorted((e.played_from_ms or 0, e.played_to_ms or 0) for e in events)


def test_play_is_paired_with_pause_stop_or_seek() -> None:
    records = [
        log("play_video", 0, currentTime=0),
        log("pause_video", 10, currentTime=10),
        log("play_video", 20, currentTime=10),
        log("seek_video", 30, old_time=20, new_time=100),
        log("play_video", 31, currentTime=20),
        log("stop_video", 41, currentTime=110),
    ]
    assert intervals(convert(records)) == [(0, 10_000), (10_000, 20_000), (100_000, 110_000)]


def test_modern_names_and_events_in_a_json_string_are_read() -> None:
    records = [log("edx.video.played", 0, currentTime=0), log("edx.video.paused", 5, currentTime=5)]
    for record in records:
        record["name"], record["event_type"] = record["event_type"], "browser"
        record["event"] = json.dumps(record["event"])
    assert intervals(convert(records)) == [(0, 5_000)]


@pytest.mark.parametrize(
    ("start", "end", "duration", "reason"),
    [
        (0, 601.1, 600, "beyond the duration"),
        (10, 5, 600, "before the start"),
        (10, 10.2, 600, "shorter"),
        (-1, 5, 600, "negative"),
        (None, 5, 600, "not a number"),
        ("x", 5, 600, "not a number"),
        (0, float("nan"), 600, "not a number"),
        (0, 36_001, 0, "over 10 h"),
    ],
)
def test_what_is_no_watching_is_dropped_with_its_line_and_reason(
    start: Any, end: Any, duration: float, reason: str
) -> None:
    outcomes = convert(
        [log("play_video", 0, currentTime=start), log("pause_video", 9, currentTime=end, duration=duration)]
    )
    (problem,) = [outcome for outcome in outcomes if isinstance(outcome, Problem)]
    assert problem.line == 2
    assert reason in problem.reason
    assert not intervals(outcomes)


def test_an_end_just_beyond_the_duration_is_kept() -> None:
    records = [log("play_video", 0, currentTime=590), log("stop_video", 11, currentTime=601)]
    assert intervals(convert(records)) == [(590_000, 601_000)]


def test_a_play_without_an_end_is_dropped() -> None:
    problems = [o for o in convert([log("play_video", 0, currentTime=0)]) if isinstance(o, Problem)]
    assert "no end event" in problems[0].reason


def test_a_new_session_begins_with_load_or_after_half_an_hour_of_nothing() -> None:
    def played(second: float) -> list[dict[str, Any]]:
        return [log("play_video", second, currentTime=0), log("pause_video", second + 5, currentTime=5)]

    def sessions(records: list[dict[str, Any]]) -> int:
        return len({o.session_id for o in convert(records) if isinstance(o, PlaybackEvent)})

    assert sessions(played(0) + played(1000)) == 1
    assert sessions(played(0) + played(2000)) == 2
    assert sessions([*played(0), log("load_video", 100), *played(200)]) == 2
    tab_closed = [*played(0), log("play_video", 100, currentTime=5)]
    assert sessions([*tab_closed, *played(18000)]) == 2
    long_watching = [log("play_video", 0, currentTime=0), log("pause_video", 2400, currentTime=599)]
    assert sessions(long_watching) == 1


def test_sessions_do_not_cut_the_pairing_and_a_stretch_belongs_to_the_session_of_its_play() -> None:
    records = [
        log("play_video", 0, currentTime=0),
        log("seek_video", 10, old_time=10, new_time=100),
        log("load_video", 3600),
        log("play_video", 3700, currentTime=10),
        log("load_video", 3705),
        log("pause_video", 3710, currentTime=110),
    ]
    outcomes = convert(records)
    assert intervals(outcomes) == [(0, 10_000), (100_000, 110_000)]
    by_session = [o.session_id for o in outcomes if isinstance(o, PlaybackEvent)]
    assert by_session[0] == by_session[1] != by_session[2] == by_session[3]


def test_a_session_has_the_same_id_whether_its_day_is_read_alone_or_with_the_days_before() -> None:
    first = [log("load_video", 0), log("play_video", 1, currentTime=0), log("pause_video", 9, currentTime=8)]
    second = [log("load_video", 9000), log("play_video", 9001, currentTime=8), log("pause_video", 9009, currentTime=16)]
    alone = [o.to_json() for o in (*convert(first), *convert(second)) if isinstance(o, PlaybackEvent)]
    together = [o.to_json() for o in convert(first + second) if isinstance(o, PlaybackEvent)]
    assert sorted(alone) == sorted(together)


def test_actions_within_one_millisecond_keep_their_order() -> None:
    records = [
        log("seek_video", 1, old_time=0, new_time=100),
        log("play_video", 1, currentTime=0),
        log("pause_video", 9, currentTime=108),
    ]
    records[0]["time"] = "2026-01-01T10:00:01.0001+00:00"
    records[1]["time"] = "2026-01-01T10:00:01.000900+00:00"
    assert intervals(convert(records[::-1])) == [(100_000, 108_000)]


def test_a_line_logged_twice_counts_once() -> None:
    records = [log("play_video", 0, currentTime=0), log("pause_video", 5, currentTime=5)]
    doubled = convert([record for record in records for _ in range(2)])
    assert doubled == convert(records)


def test_a_seek_while_nothing_plays_is_told_without_an_interval() -> None:
    (seek,) = convert([log("seek_video", 0, old_time=3, new_time=100)])
    assert isinstance(seek, PlaybackEvent)
    assert (seek.event_type, seek.seek_from_ms, seek.position_ms) == ("seek", 3_000, 100_000)
    assert (seek.played_from_ms, seek.played_to_ms) == (None, None)


@pytest.mark.parametrize("told", [{}, {"duration": 0}])
def test_the_play_tells_the_duration_where_its_end_does_not(told: dict[str, float]) -> None:
    end = log("pause_video", 9, currentTime=700)
    del end["event"]["duration"]
    end["event"].update(told)
    outcomes = convert([log("play_video", 0, currentTime=550), end])
    assert not intervals(outcomes)
    assert "beyond the duration" in next(o.reason for o in outcomes if isinstance(o, Problem))


def by_the_rules(records: list[dict[str, Any]]) -> list[tuple[int, int]]:
    """The rules read literally: for each play look for its end, then judge the stretch."""
    found = []
    for at, record in enumerate(records):
        if record["event_type"] != "play_video":
            continue
        start = record["event"]["currentTime"]
        for earlier in reversed(records[:at]):
            if earlier["event_type"] == "play_video":
                break
            if earlier["event_type"] == "seek_video":
                start = earlier["event"]["new_time"]
                break
        for later in records[at + 1 :]:
            kind = later["event_type"]
            if kind == "play_video":
                break
            if kind in ("pause_video", "stop_video", "seek_video"):
                end = later["event"]["old_time" if kind == "seek_video" else "currentTime"]
                if 0 <= start <= 36_000 and 0 <= end <= 36_000 and end - start >= 0.25 and end <= 601:
                    found.append((round(start * 1000), round(end * 1000)))
                break
    return sorted(found)


offsets = st.integers(-5, 620).map(float) | st.sampled_from([10.1, 10.2, 601.0, 601.001, 36_001.0])
actions = st.lists(
    st.one_of(
        st.builds(lambda at: ("play_video", {"currentTime": at}), offsets),
        st.builds(lambda at: ("pause_video", {"currentTime": at}), offsets),
        st.builds(lambda at: ("stop_video", {"currentTime": at}), offsets),
        st.builds(lambda old, new: ("seek_video", {"old_time": old, "new_time": new}), offsets, offsets),
        st.just(("speed_change_video", {"new_speed": "1.5"})),
        st.just(("load_video", {})),
    ),
    max_size=25,
)
#: Also so far apart that each may begin a session; 25 of them still fit the day.
records = st.builds(
    lambda made, step: [log(name, n * step, **event) for n, (name, event) in enumerate(made)],
    actions,
    st.sampled_from([1, 1801]),
)


@given(records, st.randoms(use_true_random=False))
def test_pairing_is_what_the_rules_say_in_whatever_order_the_lines_come(
    made: list[dict[str, Any]], chance: random.Random
) -> None:
    expected = by_the_rules(made)
    assert intervals(convert(made)) == expected
    shuffled = list(made)
    chance.shuffle(shuffled)
    once, again = convert(made), convert(shuffled)
    assert [o for o in again if isinstance(o, PlaybackEvent)] == [o for o in once if isinstance(o, PlaybackEvent)]


def test_broken_lines_are_told_by_number_and_gz_is_read_as_is(tmp_path: Path) -> None:
    good = [json.dumps(log("play_video", 0, currentTime=0)), json.dumps(log("pause_video", 5, currentTime=5))]
    path = tmp_path / "tracking.log.gz"
    path.write_bytes(gzip.compress("\n".join([good[0], "{broken", "", good[1]]).encode() + b"\n\xff\xfe\n"))
    outcomes = list(edx.convert(read_lines(path)))
    assert intervals(outcomes) == [(0, 5_000)]
    assert [o.line for o in outcomes if isinstance(o, Problem)] == [2, 5]


def test_jsonl_takes_events_and_videos_and_names_the_field_of_others() -> None:
    texts = [json.dumps(EVENT), json.dumps(VIDEO), json.dumps({**EVENT, "position_ms": "1"}), "nonsense"]
    outcomes = list(jsonl.convert(Line(n, text) for n, text in enumerate(texts, start=1)))
    assert [type(o).__name__ for o in outcomes] == ["PlaybackEvent", "Video", "Problem", "Problem"]
    assert outcomes[2] == Problem(3, outcomes[2].reason)  # type: ignore[union-attr]
    assert "position_ms" in outcomes[2].reason  # type: ignore[union-attr]


def test_convert_prints_contract_messages_and_tells_problems_apart(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    path.write_text(json.dumps(EVENT) + "\nnonsense\n")
    out, errors = io.StringIO(), io.StringIO()
    assert convert_file("jsonl", path, out, errors) == 1
    assert json.loads(out.getvalue())["event_id"] == EVENT["event_id"]
    assert errors.getvalue().startswith(f"{path}:2: not JSON")


@pytest.mark.parametrize("content", [b"", b"no log at all\n", b"\x1f\x8b\x00broken"])
def test_a_file_that_gives_nothing_is_one_clear_line(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / ("file.gz" if content.startswith(b"\x1f") else "file")
    path.write_bytes(content)
    errors = io.StringIO()
    with pytest.raises(RetentionError) as caught:
        convert_file("xapi", path, io.StringIO(), errors)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not errors.getvalue()
