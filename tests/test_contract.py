"""The event contract: what is taken, what is refused, and that the refusal names the field."""

from __future__ import annotations

import json
from datetime import datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retention_platform.contract import (
    EVENT_TYPES,
    MAX_MEDIA_MS,
    PlaybackEvent,
    Video,
    format_time,
    parse_event,
    parse_time,
    parse_video,
)
from retention_platform.errors import ContractError
from tests.messages import EVENT, VIDEO


def refusal(fields: object) -> ContractError:
    with pytest.raises(ContractError) as caught:
        parse_event(json.dumps(fields))
    return caught.value


def test_the_smallest_event_is_taken() -> None:
    event = parse_event(json.dumps(EVENT))
    assert event.key == EVENT["session_id"]
    assert event.played_from_ms is None


@pytest.mark.parametrize("name", sorted(EVENT))
def test_each_required_field_is_missed_by_name(name: str) -> None:
    error = refusal({k: v for k, v in EVENT.items() if k != name})
    assert (error.field, str(error)) == (name, f"{name}: missing")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("schema_version", 2),
        ("schema_version", True),
        ("event_id", "not-a-uuid"),
        ("event_type", "stop"),
        ("event_time", "yesterday"),
        ("event_time", "2026-02-30T00:00:00Z"),
        ("event_time", "1999-12-31T23:59:59Z"),
        ("event_time", True),
        ("session_id", ""),
        ("viewer_id", 7),
        ("video_id", "v" * 257),
        ("position_ms", -1),
        ("position_ms", 1.5),
        ("position_ms", "1"),
        ("position_ms", True),
        ("position_ms", MAX_MEDIA_MS + 1),
        ("duration_ms", 0),
        ("playback_rate", 0),
        ("playback_rate", 16.1),
        ("playback_rate", "1"),
        ("is_live", "true"),
        ("is_live", 1),
        ("country", 49),
        ("sent_at", "now"),
    ],
)
def test_an_impossible_value_is_refused_by_the_fields_name(name: str, value: object) -> None:
    assert refusal({**EVENT, name: value}).field == name


@pytest.mark.parametrize(
    ("given_end", "missing"), [("played_from_ms", "played_to_ms"), ("played_to_ms", "played_from_ms")]
)
def test_half_an_interval_is_refused(given_end: str, missing: str) -> None:
    assert refusal({**EVENT, given_end: 5}).field == missing


@pytest.mark.parametrize(
    "payload", [b"", b"x", b"[]", b"1", b'"a"', b"{", b'{"a":1}x', b"\xff", b"{" + b" " * 65536 + b"}"]
)
def test_what_is_no_json_object_is_refused_as_message(payload: bytes) -> None:
    with pytest.raises(ContractError) as caught:
        parse_event(payload)
    assert caught.value.field == "message"


def test_unknown_fields_are_kept_out_and_null_means_absent() -> None:
    event = parse_event(json.dumps({**EVENT, "mood": "good", "country": None}))
    assert b"mood" not in event.to_json()
    assert b"country" not in event.to_json()


def test_a_clock_a_day_ahead_of_the_broker_is_refused() -> None:
    received = datetime(2026, 1, 1, tzinfo=timezone.utc)
    message = {**EVENT, "event_time": format_time(received + timedelta(hours=24))}
    assert parse_event(json.dumps(message), received).event_time == received + timedelta(hours=24)
    message["event_time"] = format_time(received + timedelta(hours=24, milliseconds=1))
    with pytest.raises(ContractError, match="event_time"):
        parse_event(json.dumps(message), received)


@given(st.datetimes(datetime(2000, 1, 2), datetime(2099, 12, 30)), st.integers(-12 * 60, 12 * 60))
def test_a_time_means_the_same_as_text_with_offset_and_as_epoch_milliseconds(moment: datetime, offset: int) -> None:
    utc = moment.replace(tzinfo=timezone.utc, microsecond=moment.microsecond // 1000 * 1000)
    local = utc.astimezone(timezone(timedelta(minutes=offset)))
    epoch_ms = (utc - datetime(1970, 1, 1, tzinfo=timezone.utc)) // timedelta(milliseconds=1)
    assert parse_time(local.isoformat()) == parse_time(epoch_ms) == parse_time(format_time(utc)) == utc


@given(
    st.builds(
        PlaybackEvent,
        event_id=st.uuids().map(str),
        event_type=st.sampled_from(EVENT_TYPES),
        event_time=st.datetimes(datetime(2000, 1, 2), datetime(2099, 1, 1)).map(
            lambda t: t.replace(microsecond=0, tzinfo=timezone.utc)
        ),
        session_id=st.text(st.characters(codec="utf-8"), min_size=1, max_size=50),
        viewer_id=st.text(st.characters(codec="utf-8"), min_size=1, max_size=50),
        video_id=st.text(st.characters(codec="utf-8"), min_size=1, max_size=50),
        position_ms=st.integers(0, MAX_MEDIA_MS),
        playback_rate=st.none() | st.floats(0.0625, 16),
        is_live=st.none() | st.booleans(),
    )
)
def test_an_event_survives_its_own_json(event: PlaybackEvent) -> None:
    assert parse_event(event.to_json()) == event


def test_a_video_survives_its_own_json_and_names_its_faults() -> None:
    video = parse_video(json.dumps(VIDEO))
    assert isinstance(video, Video)
    assert parse_video(video.to_json()) == video
    for name, value in [
        ("title", ""),
        ("chapters", 3),
        ("chapters", [{"start_ms": -1, "title": "x"}]),
        ("duration_ms", 0),
    ]:
        with pytest.raises(ContractError) as caught:
            parse_video(json.dumps({**VIDEO, name: value}))
        assert caught.value.field == name
