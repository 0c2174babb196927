"""Invented sessions: pure and seeded, the same seed gives the same bytes, whatever the process.

A session is played through in steps of one heartbeat or one action. Every event that ends or continues playback carries
the interval played since the last report, so the truth of a session is the list of intervals it reported.
"""

from __future__ import annotations

import bisect
import functools
import heapq
import json
import math
import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timezone

from producer.behaviours import BEHAVIOURS, BUFFERING, FAILURE, Behaviour, cumulative_hazard
from producer.catalogue import CATALOGUE, DemoVideo

HEARTBEAT_MS = 10_000
MIN_SESSION_MS = 30_000
MAX_SESSION_MS = 30 * 60_000
#: Share of leaving viewers whose tab is gone without a word, of events sent twice, of sessions partly sent late.
LOST_TAB = 0.12
DUPLICATED = 0.004
LATE = 0.02
#: Viewers a catalogue has, for each session: below 1, so that viewers return.
VIEWERS_PER_SESSION = 0.45

_DEVICES = (
    (0.46, "mobile", (("iOS", ("Safari", "Chrome")), ("Android", ("Chrome", "Firefox", "Samsung Internet")))),
    (
        0.40,
        "desktop",
        (("Windows", ("Chrome", "Edge", "Firefox")), ("macOS", ("Safari", "Chrome")), ("Linux", ("Firefox",))),
    ),
    (0.08, "tablet", (("iPadOS", ("Safari",)), ("Android", ("Chrome",)))),
    (0.06, "tv", (("Tizen", ("App",)), ("webOS", ("App",)))),
)
_COUNTRIES = ("DE", "US", "FR", "GB", "IN", "BR", "ES", "PL", "JP", "NG")
_COUNTRY_WEIGHTS = (24, 20, 12, 10, 9, 7, 6, 5, 4, 3)
_SOURCES = ("search", "newsletter", "social", "embedded", "direct", "course")
_SOURCE_WEIGHTS = (26, 14, 24, 12, 14, 10)
#: Relative traffic of the hours of a day (UTC) and of the days of a week.
_HOURS = (2, 1, 1, 1, 1, 2, 3, 5, 7, 8, 8, 8, 9, 8, 7, 7, 8, 9, 11, 13, 14, 12, 8, 4)
_WEEKDAYS = (10, 10, 10, 10, 9, 12, 13)


@dataclass(frozen=True)
class Viewer:
    """Somebody who watches, always on the same device."""

    viewer_id: str
    behaviour: Behaviour
    #: JSON members of every event of this viewer.
    attributes: str


@dataclass
class Session:
    """One invented playback: what is sent, and what truly happened."""

    session_id: str
    viewer_id: str
    video_id: str
    behaviour: str
    start_ms: int
    #: (when it is sent, message) in the order of events; times in epoch milliseconds.
    messages: list[tuple[int, bytes]] = field(default_factory=list)
    #: The intervals reported, in content milliseconds, in the order of playback.
    intervals: list[tuple[int, int]] = field(default_factory=list)
    #: Distinct events; duplicates are messages of their own.
    events: int = 0
    #: Content played after the last report and never reported.
    lost_ms: int = 0
    end_ms: int = 0

    def truth(self) -> bytes:
        """The session's truth as one line of JSON."""
        return json.dumps(
            {
                "session_id": self.session_id,
                "viewer_id": self.viewer_id,
                "video_id": self.video_id,
                "behaviour": self.behaviour,
                "intervals": self.intervals,
                "events": self.events,
                "lost_ms": self.lost_ms,
            }
        ).encode()


@functools.lru_cache(maxsize=100_000)
def viewer_of(seed: int, number: int) -> Viewer:
    """The viewer of that number."""
    chance = random.Random(f"{seed}/viewer/{number}")
    behaviour = chance.choices(BEHAVIOURS, [kind.share for kind in BEHAVIOURS])[0]
    _, device, systems = chance.choices(_DEVICES, [share for share, _, _ in _DEVICES])[0]
    system, browsers = chance.choice(systems)
    values = {
        "device_type": device,
        "os": system,
        "browser": chance.choice(browsers),
        "country": chance.choices(_COUNTRIES, _COUNTRY_WEIGHTS)[0],
        "traffic_source": chance.choices(_SOURCES, _SOURCE_WEIGHTS)[0],
        "player": "demo-player/2",
    }
    attributes = "".join(f',"{name}":{json.dumps(value)}' for name, value in values.items())
    return Viewer(f"viewer-{number:06d}", behaviour, attributes)


def simulate_session(chance: random.Random, demo: DemoVideo, viewer: Viewer, start_ms: int) -> Session:
    """Play one session from its start (epoch milliseconds) to its end, 30 s to 30 min later."""
    player = _Player(chance, demo, viewer, start_ms)
    player.play_through()
    session = player.session
    _send_some_late_or_twice(chance, session)
    return session


class _Player:
    """A player's state: where it is, how fast it plays, and what it has not reported yet."""

    def __init__(self, chance: random.Random, demo: DemoVideo, viewer: Viewer, start_ms: int) -> None:
        session_id = f"{chance.getrandbits(128):032x}"
        video_id = demo.video.video_id
        self.session = Session(session_id, viewer.viewer_id, video_id, viewer.behaviour.name, start_ms)
        self._chance = chance
        self._demo = demo
        self._behaviour = viewer.behaviour
        self._duration = demo.duration_ms
        self._hazard = cumulative_hazard(demo, viewer.behaviour)
        self._head = (
            f'{{"schema_version":1,"session_id":"{session_id}","viewer_id":"{viewer.viewer_id}",'
            f'"video_id":"{video_id}","duration_ms":{demo.duration_ms}{viewer.attributes},"event_type":"'
        )
        self._now = start_ms
        self._position = 0
        self._reported = 0
        self._last_report = start_ms
        self._rate = 1.0

    def play_through(self) -> None:
        """Everything from the first play to the last event."""
        chance, kind = self._chance, self._behaviour
        self._emit("play")
        #: The hazard this viewer stands before leaving: the inverse of an exponential's distribution.
        patience = chance.expovariate(1.0)
        actions = kind.pause + kind.seek_back + kind.seek_forward + kind.change_rate + BUFFERING + FAILURE
        next_action = chance.expovariate(actions) * 1000
        while True:
            step = min(HEARTBEAT_MS - (self._now - self._last_report), next_action)
            step = max(1, int(min(step, (self._duration - self._position) / self._rate + 1)))
            before = self._position
            target = min(self._duration, before + int(step * self._rate))
            old = self._is_old
            spent = self._hazard_between(before, target)
            if old and spent >= patience:
                self._advance(max(before, min(target, self._leaving_point(before, patience))), step)
                self._leave()
                break
            patience -= min(spent, patience) if old else 0.0
            self._advance(target, step)
            next_action -= step
            if self._position >= self._duration:
                self._report("ended")
                break
            if self._now - self.session.start_ms >= MAX_SESSION_MS - HEARTBEAT_MS:
                self._report("exit")
                break
            if next_action <= 0:
                if not self._act(chance.random() * actions):
                    break
                next_action = chance.expovariate(actions) * 1000
            if self._now - self._last_report >= HEARTBEAT_MS:
                self._report("heartbeat")
        self.session.end_ms = self._now

    @property
    def _is_old(self) -> bool:
        """Whether the session has lasted long enough to end."""
        return self._now - self.session.start_ms >= MIN_SESSION_MS

    # -- leaving

    def _hazard_between(self, start_ms: int, end_ms: int) -> float:
        return self._hazard_at(end_ms) - self._hazard_at(start_ms)

    def _hazard_at(self, position_ms: int) -> float:
        second, rest = divmod(position_ms, 1000)
        sums = self._hazard
        if second + 1 >= len(sums):
            return sums[-1]
        return sums[second] + (sums[second + 1] - sums[second]) * rest / 1000

    def _leaving_point(self, start_ms: int, patience: float) -> int:
        """The content position at which the summed hazard reaches what the viewer stands."""
        goal = self._hazard_at(start_ms) + patience
        second = bisect.bisect_left(self._hazard, goal) - 1
        width = self._hazard[second + 1] - self._hazard[second]
        return second * 1000 + math.ceil(1000 * (goal - self._hazard[second]) / width)

    def _leave(self) -> None:
        if self._chance.random() < LOST_TAB:
            self.session.lost_ms = self._position - self._reported
        else:
            self._report("exit")

    # -- acting

    def _act(self, draw: float) -> bool:
        """Do one of the things viewers and networks do; False when the session ends by it."""
        kind, chance = self._behaviour, self._chance
        if (draw := draw - kind.pause) < 0:
            self._report("pause")
            self._rest(int(2_000 + chance.expovariate(1 / 15_000)))
            self._emit("play")
        elif (draw := draw - kind.seek_back) < 0:
            self._seek(self._back_to())
        elif (draw := draw - kind.seek_forward) < 0:
            if self._is_old:
                self._seek(self._forward_to())
        elif (draw := draw - kind.change_rate) < 0:
            if self._duration >= 2 * MIN_SESSION_MS * max(kind.rates):
                self._report("rate_change")
                self._rate = chance.choice(kind.rates)
        elif draw - BUFFERING < 0 or not self._is_old:
            self._emit("buffer_start")
            self._rest(int(200 + chance.expovariate(1 / 1500)))
            self._emit("buffer_end")
        else:
            self._emit("error")
            self.session.lost_ms = self._position - self._reported
            return False
        return True

    def _back_to(self) -> int:
        highlight = self._demo.highlight
        if highlight is not None and self._position > highlight[1] * 1000 and self._chance.random() < 0.6:
            return highlight[0] * 1000
        return max(0, self._position - self._chance.randint(5_000, 40_000))

    def _forward_to(self) -> int:
        dull = self._demo.dull
        if dull is not None and dull[0] * 1000 <= self._position < dull[1] * 1000:
            return dull[1] * 1000
        return min(self._duration - 1_000, self._position + self._chance.randint(10_000, 60_000))

    def _seek(self, target: int) -> None:
        if target == self._position:
            return
        came_from, self._position = self._position, target
        self._emit("seek", played=(self._reported, came_from), extra=f',"seek_from_ms":{came_from}')
        self._reported = target

    def _rest(self, wait_ms: int) -> None:
        """Let wall time pass without playing, up to the end of the longest session."""
        left = self.session.start_ms + MAX_SESSION_MS - HEARTBEAT_MS - self._now
        self._now += max(0, min(wait_ms, left))
        # A player sends heartbeats only while it plays.
        self._last_report = self._now

    def _advance(self, position: int, step: int) -> None:
        """Play on to ``position``; takes what the rate makes of the way, ``step`` at most."""
        way = math.ceil((position - self._position) / self._rate)
        self._now += min(step, way) if position < self._position + int(step * self._rate) else step
        self._position = position

    # -- reporting

    def _report(self, kind: str) -> None:
        self._emit(kind, played=(self._reported, self._position))
        self._reported = self._position
        self._last_report = self._now

    def _emit(self, kind: str, played: tuple[int, int] | None = None, extra: str = "") -> None:
        now = self._now
        bits = f"{self._chance.getrandbits(72):018x}"
        stamp = f"{now:012x}"
        if played is not None and played[1] > played[0]:
            extra = f'{extra},"played_from_ms":{played[0]},"played_to_ms":{played[1]}'
            self.session.intervals.append(played)
        message = (
            f'{self._head}{kind}","event_id":"{stamp[:8]}-{stamp[8:]}-7{bits[:3]}-8{bits[3:6]}-{bits[6:]}",'
            f'"event_time":{now},"position_ms":{self._position},"playback_rate":{self._rate}{extra}}}'
        )
        self.session.messages.append((now, message.encode()))
        self.session.events += 1


def _send_some_late_or_twice(chance: random.Random, session: Session) -> None:
    """What networks do to a session's messages on their way."""
    messages = session.messages
    if chance.random() < LATE:
        # Offline for a while: everything from some point on arrives minutes to hours later.
        first = chance.randrange(len(messages))
        delay = int(chance.expovariate(1 / 3_600_000)) + 60_000
        messages[first:] = [(sent + delay, message) for sent, message in messages[first:]]
    for _ in range(len(messages)):
        if chance.random() >= DUPLICATED:
            break
        sent, message = chance.choice(messages)
        messages.append((sent + chance.randint(50, 5_000), message))


def pick_video(chance: random.Random) -> DemoVideo:
    """A video of the catalogue, popular ones more often."""
    return chance.choices(CATALOGUE, [demo.popularity for demo in CATALOGUE])[0]


def pick_viewer(chance: random.Random, seed: int, viewers: int) -> Viewer:
    """One of so many viewers, some of whom come much more often than others."""
    return viewer_of(seed, int(chance.random() ** 1.5 * viewers))


def history(seed: int, sessions: int, days: int, end: datetime) -> Iterator[Session]:
    """Sessions of the ``days`` before ``end``, by their start; nothing in them is later than ``end``."""
    last_ms = int(end.timestamp() * 1000)
    first_ms = last_ms - days * 86_400_000
    starts = _starts(random.Random(f"{seed}/starts"), sessions, first_ms, last_ms - MAX_SESSION_MS)
    viewers = max(1, int(sessions * VIEWERS_PER_SESSION))
    for number, start in enumerate(starts):
        chance = random.Random(f"{seed}/session/{number}")
        yield simulate_session(chance, pick_video(chance), pick_viewer(chance, seed, viewers), start)


def _starts(chance: random.Random, count: int, first_ms: int, last_ms: int) -> list[int]:
    """Start times with the rhythm of days and weeks, sorted."""
    hours = range(first_ms // 3_600_000, last_ms // 3_600_000 + 1)
    weights = []
    for hour in hours:
        moment = datetime.fromtimestamp(hour * 3600, tz=timezone.utc)
        weights.append(_HOURS[moment.hour] * _WEEKDAYS[moment.weekday()])
    drawn = chance.choices(hours, weights, k=count)
    return sorted(min(max(hour * 3_600_000 + chance.randrange(3_600_000), first_ms), last_ms) for hour in drawn)


def in_sending_order(sessions: Iterator[Session], until_ms: int | None = None) -> Iterator[tuple[Session, bytes]]:
    """All messages of sessions that come by their start, in the order they are sent.

    Holds only what is not yet due. What would be sent after ``until_ms`` (epoch milliseconds) is sent then, at the end.
    """
    waiting: list[tuple[int, int, Session, bytes]] = []
    count = 0
    for session in sessions:
        while waiting and waiting[0][0] < session.start_ms:
            _, _, sender, message = heapq.heappop(waiting)
            yield sender, message
        for sent, message in session.messages:
            heapq.heappush(waiting, (sent if until_ms is None else min(sent, until_ms), count, session, message))
            count += 1
    while waiting:
        _, _, sender, message = heapq.heappop(waiting)
        yield sender, message


class Crowd:
    """Viewers of the present: a number that wanders between two bounds, or as many as a rate of events takes."""

    #: Messages a session sends in a second while it lasts; measured over 2,000 sessions of seed 1.
    EVENTS_PER_SECOND = 0.112

    def __init__(self, seed: int, minimum: int, maximum: int, rate: float | None = None) -> None:
        self._chance = random.Random(f"{seed}/crowd")
        self._seed = seed
        if rate is not None:
            minimum = maximum = max(1, round(rate / self.EVENTS_PER_SECOND))
        self._minimum, self._maximum = minimum, maximum
        self._wanted = minimum
        self._ends: list[int] = []
        self._count = 0

    def arrivals(self, now_ms: int) -> list[Session]:
        """The sessions that start now, already played through; their messages are to be sent when their time comes."""
        while self._ends and self._ends[0] <= now_ms:
            heapq.heappop(self._ends)
        if self._chance.random() < 0.1:
            self._wanted = min(self._maximum, max(self._minimum, self._wanted + self._chance.choice((-1, 1, 1))))
        arrived = []
        while len(self._ends) < self._wanted:
            chance = random.Random(f"{self._seed}/live/{now_ms}/{self._count}")
            self._count += 1
            viewers = max(200, 20 * self._maximum)
            session = simulate_session(chance, pick_video(chance), pick_viewer(chance, self._seed, viewers), now_ms)
            heapq.heappush(self._ends, session.end_ms)
            arrived.append(session)
        return arrived
