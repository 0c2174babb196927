"""Open edX tracking logs to contract events.

Events of one (user, course, video) are sorted by time; ``play_video`` is paired with the next ``pause_video`` or
``stop_video`` (their currentTime) or ``seek_video`` (its old_time). After a seek the next play starts at the seek's
new_time, because players report a stale currentTime. A repeated play replaces the earlier start.

edX has no playback sessions. A new one begins with ``load_video``, and after 30 minutes without an event, unless what
comes then ends a play (somebody watched that long). Sessions only group what is paired: a stretch belongs to the
session of its play, and pairing goes on across their borders.
"""

from __future__ import annotations

import json
import math
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from pydantic import ValidationError
from pydantic_core import PydanticCustomError

from retention_platform.contract import PlaybackEvent, format_time, parse_time
from retention_platform.importers.reading import Line, Outcome, Problem, event_id, json_object

#: Longest offset taken for real, in seconds: 10 hours.
MAX_OFFSET = 10 * 3600
#: Shortest stretch taken for watching, in seconds.
MIN_PLAYED = 0.25
#: How far beyond the duration an end may lie, in seconds.
TOLERANCE = 1.0
SESSION_GAP = timedelta(minutes=30)

#: Both generations of names, web and mobile.
_KINDS = {
    **dict.fromkeys(("load_video", "edx.video.loaded"), "load"),
    **dict.fromkeys(("play_video", "edx.video.played"), "play"),
    **dict.fromkeys(("pause_video", "edx.video.paused"), "pause"),
    **dict.fromkeys(("stop_video", "edx.video.stopped", "edx.video.completed"), "stop"),
    **dict.fromkeys(("seek_video", "edx.video.position.changed"), "seek"),
    **dict.fromkeys(("speed_change_video", "edx.video.speed.changed"), "speed"),
}
Key = tuple[str, str, str]


@dataclass(frozen=True)
class Action:
    """One video event of the log. Offsets in seconds of content, NaN where it gives no number."""

    line: int
    at: datetime
    #: Digits of the time below the millisecond, which the contract cuts and the order needs.
    below_ms: str
    kind: str
    key: Key
    current: float
    old: float
    new: float
    duration: float
    speed: float

    @property
    def order(self) -> tuple[Any, ...]:
        """By time; ties by content, so that the order of lines never counts. Equal for a line logged twice."""
        numbers = (self.current, self.old, self.new, self.speed, self.duration)
        return (self.at, self.below_ms, self.kind, *map(repr, numbers))

    @property
    def end(self) -> float:
        """Where playback stood when this ended it."""
        return self.old if self.kind == "seek" else self.current


@dataclass(frozen=True)
class Played:
    """One stretch from a play to its end."""

    start: float
    play: Action
    end: Action
    speed: float


def convert(lines: Iterable[Line]) -> Iterator[Outcome]:
    """The events viewer by viewer, whatever the order of the lines. Lines of other kinds are passed over."""
    actions: dict[Key, list[Action]] = defaultdict(list)
    for line in lines:
        fields = json_object(line)
        action = fields if isinstance(fields, Problem) else read_action(line.number, fields)
        if isinstance(action, Problem):
            yield action
        elif action is not None:
            actions[action.key].append(action)
    for key in sorted(actions):
        # Of a line logged twice the first counts.
        once = {action.order: action for action in sorted(actions[key], key=lambda action: -action.line)}
        yield from _events(key, [once[order] for order in sorted(once)])


def read_action(line: int, fields: dict[str, Any]) -> Action | Problem | None:
    """The video event on a line; None for a line that is none."""
    kind = _KINDS.get(str(fields.get("name") or fields.get("event_type"))) or _KINDS.get(str(fields.get("event_type")))
    if kind is None:
        return None
    try:
        payload = fields.get("event")
        if isinstance(payload, str):
            payload = json.loads(payload)
        if not isinstance(payload, dict):
            return Problem(line, "event: neither an object nor a JSON string of one")
        context = fields.get("context") or {}
        user = context.get("user_id") or fields.get("username") or ""
        video = payload.get("id") or (context.get("module") or {}).get("usage_key") or ""
        if not user or not video:
            return Problem(line, f"{'username' if not user else 'event.id'}: missing")
        return Action(
            line=line,
            at=parse_time(fields.get("time")),
            below_ms=_below_ms(str(fields.get("time"))),
            kind=kind,
            key=(str(user), str(context.get("course_id") or ""), str(video)),
            current=_number(payload.get("currentTime", payload.get("current_time"))),
            old=_number(payload.get("old_time")),
            new=_number(payload.get("new_time")),
            duration=_number(payload.get("duration")),
            speed=_number(payload.get("new_speed")),
        )
    except PydanticCustomError as error:
        return Problem(line, f"time: {error.message()}")
    except (ValueError, AttributeError, TypeError) as error:
        return Problem(line, f"not an edX video event ({error})")


def session_starts(actions: list[Action]) -> dict[int, datetime]:
    """When the playback began that each of one viewer's actions on one video belongs to, by the action's line."""
    starts: dict[int, datetime] = {}
    playing = False
    previous: Action | None = None
    for action in actions:
        idle = previous is not None and action.at - previous.at > SESSION_GAP
        goes_on = playing and action.kind != "play"
        if previous is None or action.kind == "load" or (idle and not goes_on):
            start = action.at
        starts[action.line] = start
        if action.kind != "speed":
            playing = action.kind == "play"
        previous = action
    return starts


def pair(actions: list[Action]) -> Iterator[Played | Problem]:
    """The stretches played in one viewer's actions on one video, and what had to be dropped."""
    play: tuple[Action, float, float] | None = None  # the play, where it starts, at which speed
    after_seek: float | None = None
    speed = 1.0
    for action in actions:
        if action.kind == "play":
            if play is not None:
                yield Problem(play[0].line, "dropped: no end event before the next play")
            play = (action, action.current if after_seek is None else after_seek, speed)
            after_seek = None
        elif action.kind == "speed":
            speed = action.speed if 0 < action.speed <= 16 else speed
        elif action.kind in ("pause", "stop", "seek"):
            if play is not None:
                stretch = Played(play[1], play[0], action, play[2])
                fault = fault_of(stretch)
                yield stretch if fault is None else Problem(action.line, f"dropped: {fault}")
                play = None
            if action.kind == "seek":
                after_seek = action.new
    if play is not None:
        yield Problem(play[0].line, "dropped: no end event")


def fault_of(played: Played) -> str | None:
    """Why a stretch is no watching; None when it is."""
    start, end = played.start, played.end.end
    duration = played.end.duration if played.end.duration > 0 else played.play.duration
    if not (math.isfinite(start) and math.isfinite(end)):
        return "an offset is not a number"
    if start < 0 or end < 0:
        return "a negative offset"
    if start > MAX_OFFSET or end > MAX_OFFSET:
        return "an offset over 10 h"
    if end < start:
        return "the end lies before the start"
    if end - start < MIN_PLAYED:
        return "shorter than 0.25 s"
    if duration > 0 and end > duration + TOLERANCE:
        return "the end lies beyond the duration"
    return None


def _events(key: Key, actions: list[Action]) -> Iterator[Outcome]:
    starts = session_starts(actions)
    sessions = {line: event_id("edx session", *key, format_time(start)) for line, start in starts.items()}
    told: set[int] = set()
    for played in pair(actions):
        if isinstance(played, Problem):
            yield played
            continue
        session_id, start, end = sessions[played.play.line], _ms(played.start), _ms(played.end.end)
        yield _event(session_id, key, "play", played.play, start, played.speed)
        kind = {"pause": "pause", "stop": "ended", "seek": "seek"}[played.end.kind]
        position = _ms(played.end.new) if kind == "seek" and _is_offset(played.end.new) else end
        yield _event(session_id, key, kind, played.end, position, played.speed, played=(start, end))
        told.add(played.end.line)
    # A seek while nothing plays is no watching, but it is a seek.
    for action in actions:
        if action.kind == "seek" and action.line not in told and _is_offset(action.new):
            yield _event(sessions[action.line], key, "seek", action, _ms(action.new))


def _event(
    session_id: str,
    key: Key,
    kind: str,
    action: Action,
    position_ms: int,
    speed: float | None = None,
    played: tuple[int, int] | None = None,
) -> Outcome:
    try:
        return PlaybackEvent.model_validate(
            {
                "schema_version": 1,
                "event_id": event_id("edx", *key, kind, format_time(action.at), position_ms, played),
                "event_type": kind,
                "event_time": action.at,
                "session_id": session_id,
                "viewer_id": key[0],
                "video_id": key[2],
                "position_ms": position_ms,
                "played_from_ms": played[0] if played else None,
                "played_to_ms": played[1] if played else None,
                "seek_from_ms": _ms(action.old) if kind == "seek" and _is_offset(action.old) else None,
                "duration_ms": _ms(action.duration) if 0 < action.duration <= MAX_OFFSET else None,
                "playback_rate": speed,
                "player": "edx",
            }
        )
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        return Problem(action.line, f"{first['loc'][0]}: {first['msg']}")


def _below_ms(time: str) -> str:
    """The digits after the third of a time's fraction, without trailing zeros, so that equal times are equal."""
    found = re.search(r"\.[0-9]{3}([0-9]+)", time)
    return found.group(1).rstrip("0") if found else ""


def _is_offset(seconds: float) -> bool:
    """Whether this can be a place in a video; NaN cannot."""
    return 0 <= seconds <= MAX_OFFSET


def _number(value: Any) -> float:
    """A number of the log, which writes some as text; NaN for what is none."""
    if isinstance(value, bool) or value is None:
        return math.nan
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError):
        return math.nan


def _ms(seconds: float) -> int:
    return round(seconds * 1000)
