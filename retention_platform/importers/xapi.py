"""xAPI Video Profile statements to contract events.

A player's ``played-segments`` list is cumulative over its session, so one list is the whole truth: the one with the
most content in it. Each of its segments becomes one event. Where a session has no such list, ``played`` is paired with
the next statement that ends playback. Segments without an end say only where the player stands; they are left out.

A session must be in one file: a later file with a longer list of the same session adds segments anew. It is one viewer
and one video: where a log gives several the same ``session-id`` (or only a ``registration``, which a whole course may
share), each gets a session of its own. Statements of other profiles, which such logs also hold, are passed over.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from pydantic import ValidationError
from pydantic_core import PydanticCustomError

from retention_platform.contract import PlaybackEvent, Video, format_time, parse_time
from retention_platform.importers.reading import Line, Outcome, Problem, event_id, json_object

EXTENSION = "https://w3id.org/xapi/video/extensions/"
VERBS = "https://w3id.org/xapi/video/verbs/"
#: Verbs that end playback, and where each says the position at which it did.
_ENDS = {"paused": "time", "seeked": "time-from", "terminated": "time", "completed": "time"}

Segment = tuple[int, int]  # [from, to) in content milliseconds


@dataclass(frozen=True)
class Statement:
    """What we need of one statement. Times of content in milliseconds; None where it does not say."""

    line: int
    at: datetime
    verb: str
    session_id: str
    viewer_id: str
    video_id: str
    title: str
    length_ms: int | None
    position_ms: int | None
    speed: float | None
    segments: tuple[Segment, ...] | None

    @property
    def order(self) -> tuple[Any, ...]:
        """By time; ties by content, so that the order of lines never counts."""
        rest = (self.segments, self.length_ms, self.speed, self.title)
        return (self.at, self.verb, self.position_ms or 0, played_ms(self.segments or ()), repr(rest))


def convert(lines: Iterable[Line]) -> Iterator[Outcome]:
    """Videos first, then the events session by session, whatever the order of the lines."""
    by_source: dict[str, dict[tuple[str, str], list[Statement]]] = defaultdict(lambda: defaultdict(list))
    for line in lines:
        fields = json_object(line)
        statement = fields if isinstance(fields, Problem) else read_statement(line.number, fields)
        if isinstance(statement, Problem):
            yield statement
        elif statement is not None:
            by_source[statement.session_id][statement.viewer_id, statement.video_id].append(statement)
    sessions: dict[str, list[Statement]] = {}
    for source, playbacks in by_source.items():
        for whose, statements in playbacks.items():
            session_id = source if len(playbacks) == 1 else event_id("xapi session", source, *whose)
            renamed = [replace(statement, session_id=session_id) for statement in statements]
            sessions[session_id] = sorted(renamed, key=lambda statement: statement.order)
    yield from _videos(sessions)
    for session_id in sorted(sessions):
        yield from _events(sessions[session_id])


def read_statement(line: int, fields: dict[str, Any]) -> Statement | Problem | None:
    """A statement's parts, or what it lacks; None for one that is not about playback."""
    try:
        verb = _last(fields["verb"]["id"])
        context_fields = fields.get("context") or {}
        context, result = _extensions(context_fields), _extensions(fields.get("result"))
        # Initialized and the like are verbs of many profiles: the video profile's own names tell.
        if not context and not result and not fields["verb"]["id"].startswith(VERBS):
            return None
        thing = fields["object"]
        session_id = context.get("session-id") or context_fields.get("registration")
        if not session_id:
            return Problem(line, "context.extensions.session-id: missing")
        length = _milliseconds(result.get("length", context.get("length")))
        position = result.get("time-from" if verb == "seeked" else "time")
        played = result.get("played-segments")
        return Statement(
            line=line,
            at=parse_time(fields["timestamp"]),
            verb=verb,
            session_id=str(session_id),
            viewer_id=_viewer(fields["actor"]),
            video_id=str(thing["id"]).removeprefix("uuid://"),
            title=_title(thing),
            length_ms=length if length and length > 0 else None,
            position_ms=_milliseconds(position),
            speed=_speed(context.get("speed", result.get("speed"))),
            segments=None if played is None else parse_segments(str(played)),
        )
    except PydanticCustomError as error:
        return Problem(line, f"timestamp: {error.message()}")
    except KeyError as error:
        return Problem(line, f"{error.args[0]}: missing")
    except (AttributeError, TypeError, ValueError, OverflowError) as error:
        return Problem(line, f"not an xAPI statement ({error})")


def parse_segments(text: str) -> tuple[Segment, ...]:
    """The closed segments with content of ``0[.]42.6[,]43.1[.]124``, in the player's order.

    Raises ValueError for what is no list of segments.
    """
    segments = []
    for part in filter(None, (part.strip() for part in text.split("[,]"))):
        start, _, end = part.partition("[.]")
        first, last = _milliseconds(float(start)), _milliseconds(float(end)) if end else None
        if first is not None and last is not None and last > first:
            segments.append((first, last))
    return tuple(segments)


def played_ms(segments: Iterable[Segment]) -> int:
    """Content milliseconds played, rewatches counted."""
    return sum(end - start for start, end in segments)


def union_ms(segments: Iterable[Segment]) -> int:
    """Content milliseconds covered at least once."""
    total, reached = 0, 0
    for start, end in sorted(segments):
        total += max(0, end - max(start, reached))
        reached = max(reached, end)
    return total


def _videos(sessions: dict[str, list[Statement]]) -> Iterator[Outcome]:
    """Every video spoken of, with its longest length: players round it differently from one statement to the next."""
    newest: dict[str, Statement] = {}
    lengths: dict[str, int] = defaultdict(int)
    for session in sessions.values():
        for statement in session:
            known = newest.get(statement.video_id)
            if known is None or (statement.at, statement.title) > (known.at, known.title):
                newest[statement.video_id] = statement
            lengths[statement.video_id] = max(lengths[statement.video_id], statement.length_ms or 0)
    for video_id, statement in sorted(newest.items()):
        try:
            yield Video(
                video_id=video_id,
                title=statement.title or video_id,
                duration_ms=lengths[video_id] or None,
                updated_at=statement.at,
            )
        except ValidationError as error:
            yield Problem(statement.line, _fault(error))


def _events(session: list[Statement]) -> Iterator[Outcome]:
    """The events of one session."""
    with_list = [statement for statement in session if statement.segments is not None]
    if with_list:
        truth = max(with_list, key=lambda s: (union_ms(s.segments or ()), played_ms(s.segments or ()), s.order))
        segments, last = list(truth.segments or ()), truth
    else:
        segments, last = _paired(session), session[-1]
    if not segments:
        first = next((statement for statement in session if statement.verb == "played"), None)
        if first is not None:
            yield _event(first, "play", first.at, first.position_ms or 0, 1.0)
        return
    moments = _moments(session, segments, last.at)
    began = moments[0] - timedelta(milliseconds=segments[0][1] - segments[0][0])
    yield _event(last, "play", began, segments[0][0], _speed_at(session, began))
    for number, (segment, at) in enumerate(zip(segments, moments, strict=True)):
        following = segments[number + 1][0] if number + 1 < len(segments) else None
        yield _event(
            last,
            _kind(session, segment, following, last.length_ms),
            at,
            segment[1],
            _speed_at(session, at),
            number=number,
            segment=segment,
        )


def _paired(session: list[Statement]) -> list[Segment]:
    """The stretches from each ``played`` to the next end of playback; a repeated ``played`` replaces the earlier."""
    segments: list[Segment] = []
    start: int | None = None
    for statement in session:
        if statement.verb == "played":
            start = statement.position_ms
        elif statement.verb in _ENDS and start is not None:
            if statement.position_ms is not None and statement.position_ms > start:
                segments.append((start, statement.position_ms))
            start = None
    return segments


def _moments(session: list[Statement], segments: list[Segment], last: datetime) -> list[datetime]:
    """When each segment ended: as a statement at its end says, else laid out backwards from the last one.

    Never later than the next segment allows, so segments keep the player's order and take the time they took.
    """
    said: dict[int, datetime] = {}
    for statement in session:
        if statement.verb in _ENDS and statement.position_ms is not None:
            said.setdefault(statement.position_ms, statement.at)
    moments = [last]
    for segment, following in zip(reversed(segments[:-1]), reversed(segments[1:]), strict=True):
        latest = moments[-1] - timedelta(milliseconds=following[1] - following[0])
        moments.append(min(said.get(segment[1], latest), latest))
    return moments[::-1]


def _kind(session: list[Statement], segment: Segment, following: int | None, length_ms: int | None) -> str:
    """The event type that ends a segment."""
    if following is not None:
        return "pause" if abs(following - segment[1]) <= 1000 else "seek"
    if length_ms is not None and segment[1] >= length_ms - 1000:
        return "ended"
    return "exit" if any(statement.verb == "terminated" for statement in session) else "pause"


def _speed_at(session: list[Statement], at: datetime) -> float:
    """The speed last said at or before a moment; 1 where nobody said."""
    speed = 1.0
    for statement in session:
        if statement.at > at:
            break
        speed = statement.speed or speed
    return speed


def _event(
    source: Statement,
    kind: str,
    at: datetime,
    position_ms: int,
    speed: float,
    *,
    number: int = -1,
    segment: Segment | None = None,
) -> Outcome:
    try:
        return PlaybackEvent.model_validate(
            {
                "schema_version": 1,
                "event_id": event_id("xapi", source.session_id, number, kind, segment, format_time(at)),
                "event_type": kind,
                "event_time": at,
                "session_id": source.session_id,
                "viewer_id": source.viewer_id,
                "video_id": source.video_id,
                "position_ms": position_ms,
                "played_from_ms": segment[0] if segment else None,
                "played_to_ms": segment[1] if segment else None,
                "duration_ms": source.length_ms,
                "playback_rate": speed,
                "player": "xapi",
            }
        )
    except ValidationError as error:
        return Problem(source.line, _fault(error))


def _fault(error: ValidationError) -> str:
    first = error.errors(include_url=False)[0]
    return f"{first['loc'][0] if first['loc'] else 'message'}: {first['msg']}"


def _last(iri: str) -> str:
    return iri.rsplit("/", 1)[-1]


def _extensions(part: Any) -> dict[str, Any]:
    """The video profile's extensions of a part of a statement, by their short names."""
    found = (part or {}).get("extensions") or {}
    return {key.removeprefix(EXTENSION): value for key, value in found.items() if key.startswith(EXTENSION)}


def _viewer(actor: dict[str, Any]) -> str:
    """The actor's inverse functional identifier."""
    account = actor.get("account")
    if account:
        return str(account["name"])
    for key in ("mbox", "mbox_sha1sum", "openid"):
        if actor.get(key):
            return str(actor[key])
    raise KeyError("actor.account")


def _title(thing: dict[str, Any]) -> str:
    """The object's name in English if it has one, else in whatever language comes first by its tag."""
    names = (thing.get("definition") or {}).get("name") or {}
    for tag in ("en-US", "en", *sorted(names)):
        if names.get(tag):
            return str(names[tag])[:1000]
    return ""


def _milliseconds(seconds: Any) -> int | None:
    """Seconds to the nearest millisecond; None for what is no number of seconds."""
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not math.isfinite(seconds):
        return None
    return round(float(seconds) * 1000)


def _speed(value: Any) -> float | None:
    """``1.5x`` or 1.5 as 1.5; None for what no player can do."""
    try:
        speed = float(str(value).removesuffix("x"))
    except ValueError:
        return None
    return speed if 0 < speed <= 16 else None
