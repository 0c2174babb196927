"""Invented players at a steady rate, with the accidents that a soak must survive: messages that are held back, come out
of order, twice, days late, or are not the contract. Seeded and pure: the clock is the caller's; nothing is sent here.
"""

from __future__ import annotations

import heapq
import json
import random
import uuid
from collections.abc import Callable, Iterator
from typing import Any, Literal, NamedTuple

from retention_platform.contract import EVENTS_TOPIC, VIDEOS_TOPIC, format_time, parse_time

Event = dict[str, Any]
Kind = Literal["event", "repeat", "malformed", "video"]

#: Shares of all messages, or of sessions where it says so.
MALFORMED = 0.01
REPEATED = 0.015
HELD_BACK = 0.03
SHAKEN = 0.10
OFFLINE_SESSIONS = 0.01
#: A message that comes so long after its event is late.
LATE_MS = 5_000
#: No session lasts longer: those that had begun this long before the first message are over.
LONGEST_MS = 400_000
HOUR_MS = 3_600_000


class Message(NamedTuple):
    """What a player sends."""

    topic: str
    key: str
    value: bytes
    kind: Kind
    late: bool


def _without(field: str) -> Callable[[Event], bytes]:
    return lambda event: json.dumps({name: value for name, value in event.items() if name != field}).encode()


def _with(**fields: Any) -> Callable[[Event], bytes]:
    return lambda event: json.dumps(event | fields).encode()


#: Ways in which a message is not the contract.
BREAKS: tuple[Callable[[Event], bytes], ...] = (
    lambda event: json.dumps(event).encode()[:-7],
    lambda event: b"\xff\xfe" + json.dumps(event).encode(),
    lambda event: json.dumps([event]).encode(),
    _without("session_id"),
    _without("event_time"),
    _without("video_id"),
    _with(position_ms="a while"),
    _with(position_ms=-1),
    _with(event_type="blink"),
    _with(event_id="not a UUID"),
    _with(schema_version=2),
    _with(playback_rate=0),
    _with(event_time="2026-02-30T00:00:00Z"),
    _with(played_from_ms=0, played_to_ms=None, seek_from_ms="there"),
    lambda event: json.dumps(event | {"note": "long " * 14_000}).encode(),
)


class Traffic:
    """Messages of a crowd that was there before the soak began, so that the rate is steady from the first second."""

    def __init__(self, seed: int, rate: float, now_ms: int) -> None:
        self._rng = random.Random(f"soak {seed}")
        self._began = now_ms
        # Two dozens of like length, so that each video has its place among its like.
        lengths = [(55_000, 75_000)] * 12 + [(150_000, 200_000)] * 12
        self._durations = {f"video-{n:02}": self._rng.randrange(*length) for n, length in enumerate(lengths)}
        self._viewers = max(200, round(rate * 20))
        self._number = 0
        #: (due, number, time of the event, message)
        self._held: list[tuple[float, int, float, Message]] = []
        #: Descriptions of videos as they were sent, the newer behind the older.
        self.videos: list[dict[str, Any]] = []
        sample = random.Random(0)
        messages = sum(len(self._session(sample, 0.0)) for _ in range(500)) / 500 * (1 + MALFORMED + REPEATED)
        self._pause_ms = 1000 * messages / rate
        self._next = float(now_ms - LONGEST_MS)
        for number, video_id in enumerate(self._durations):
            # Of every third nobody ever hears but from players.
            if number % 3:
                self._describe(video_id, now_ms)

    def until(self, now_ms: int) -> Iterator[Message]:
        """What is due by now and was not asked for yet."""
        while self._next <= now_ms:
            self._begin(self._next)
            self._next += self._rng.expovariate(1 / self._pause_ms)
        while self._held and self._held[0][0] <= now_ms:
            yield heapq.heappop(self._held)[3]

    def rest(self, now_ms: int) -> Iterator[Message]:
        """What had happened by now and was held back."""
        held, self._held = sorted(self._held), []
        yield from (message for _, _, at, message in held if at <= now_ms)

    def _begin(self, at: float) -> None:
        rng = self._rng
        session = self._session(rng, at)
        offline = rng.random() < OFFLINE_SESSIONS
        if offline:
            # Watched without a network, from minutes to days ago; all of it comes at once now, in any order.
            away = rng.choice([rng.randrange(HOUR_MS // 6, 4 * HOUR_MS), rng.randrange(4 * HOUR_MS, 40 * HOUR_MS)])
            for event in session:
                event["event_time"] -= away
        for event in session:
            happened = float(event["event_time"])
            if offline:
                due = at + rng.uniform(0, 3_000)
            elif (luck := rng.random()) < HELD_BACK:
                due = happened + rng.uniform(LATE_MS, 60_000)
            else:
                due = happened + (rng.uniform(0, 2_000) if luck < HELD_BACK + SHAKEN else 0)
            if (at if offline else happened) >= self._began:
                self._send(event, happened, due)
        if rng.random() < 0.02:
            self._describe(rng.choice([video["video_id"] for video in self.videos]), round(max(at, self._began)))

    def _send(self, event: Event, happened: float, due: float) -> None:
        rng = self._rng
        value = json.dumps(event).encode()
        self._hold(due, happened, Message(EVENTS_TOPIC, event["session_id"], value, "event", due - happened > LATE_MS))
        if rng.random() < REPEATED:
            again = due + rng.uniform(0, 20_000)
            message = Message(EVENTS_TOPIC, event["session_id"], value, "repeat", again - happened > LATE_MS)
            self._hold(again, happened, message)
        if rng.random() < MALFORMED:
            broken = rng.choice(BREAKS)(event | {"event_id": _uuid(rng)})
            self._hold(due, happened, Message(EVENTS_TOPIC, event["session_id"], broken, "malformed", False))

    def _hold(self, due: float, happened: float, message: Message) -> None:
        self._number += 1
        heapq.heappush(self._held, (due, self._number, happened, message))

    def _describe(self, video_id: str, at_ms: int) -> None:
        """One more description of a video, newer than all before it."""
        edition = len(self.videos)
        video = {
            "video_id": video_id,
            "title": f"{video_id}, edition {edition}",
            "duration_ms": self._durations[video_id],
            "category": self._rng.choice(["talks", "films"]),
            "chapters": [{"start_ms": 0, "title": "Beginning"}, {"start_ms": 30_000, "title": f"Middle {edition}"}],
            "updated_at": format_time(parse_time(at_ms + edition)),
        }
        self.videos.append(video)
        self._hold(at_ms, at_ms, Message(VIDEOS_TOPIC, video_id, json.dumps(video).encode(), "video", False))

    def _session(self, rng: random.Random, at: float) -> list[Event]:
        """The events of one session that begins at ``at``, epoch ms."""
        video_id = rng.choice(list(self._durations))
        duration = self._durations[video_id]
        viewer = rng.randrange(self._viewers)
        base = {
            "schema_version": 1,
            "session_id": f"session-{rng.getrandbits(60):015x}",
            "viewer_id": f"viewer-{viewer}",
            "video_id": video_id,
        }
        said = {
            "device_type": rng.choice(["tv", "phone", "desktop"]),
            "country": rng.choice(["DE", "FR", "ES"]),
            "traffic_source": rng.choice(["search", "mail", "direct"]),
            "os": rng.choice(["Linux", "Android"]),
            "player": "soak",
        }
        if rng.random() < 0.6:
            base["duration_ms"] = duration
        clock, rate = at, 1.0
        position = 0 if rng.random() < 0.8 else rng.randrange(duration - 1)
        events: list[Event] = []

        def tell(event_type: str, **fields: Any) -> None:
            attributes = said if event_type == "play" or rng.random() < 0.1 else {}
            event = base | attributes | fields
            event |= {"event_id": _uuid(rng), "event_type": event_type, "event_time": round(clock)}
            event["position_ms"] = position
            if rate != 1:
                event["playback_rate"] = rate
            events.append(event)

        tell("play")
        if rng.random() < 0.003:
            # No player plays three times all of it at once.
            for _ in range(3):
                tell("heartbeat", played_from_ms=0, played_to_ms=duration)
        while clock < at + LONGEST_MS - 60_000:
            what = rng.choices(
                ["heartbeat", "seek", "pause", "rate_change", "buffer", "exit", "nonsense"],
                [80, 5, 4, 3, 3, 4, 1],
            )[0]
            length = 10_000 if what == "heartbeat" else rng.randrange(200, 10_000)
            played = min(length, duration - position)
            start, position = position, position + played
            clock += played / rate
            interval = {"played_from_ms": start, "played_to_ms": position}
            if position >= duration:
                tell("ended", **interval)
                break
            if what == "nonsense":
                wrong = rng.choice([(position, start), (-5, 10), (0, 10**12), (duration + 1, duration + 2)])
                tell("heartbeat", played_from_ms=wrong[0], played_to_ms=wrong[1])
            elif what == "buffer":
                tell("heartbeat", **interval)
                tell("buffer_start")
                clock += rng.randrange(100, 3_000)
                tell("buffer_end")
            else:
                tell(what, **interval, **({"seek_from_ms": position} if what == "seek" else {}))
            if what == "exit":
                break
            if what == "pause":
                clock += rng.randrange(500, 15_000)
                tell("play")
            elif what == "seek":
                position = rng.randrange(duration - 1)
            elif what == "rate_change":
                rate = rng.choice([0.5, 1.0, 1.0, 1.25, 1.5, 2.0])
        return events


def _uuid(rng: random.Random) -> str:
    return str(uuid.UUID(int=rng.getrandbits(128), version=4))
