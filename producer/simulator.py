"""Many sessions: a history with the rhythm of days and weeks, and a crowd of the present. Pure and seeded.

How one session goes is in `session`; publishing is elsewhere.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Iterable, Iterator
from datetime import datetime, timezone

from producer.catalogue import CATALOGUE, DemoVideo
from producer.session import MAX_SESSION_MS, Session, simulate_session
from producer.viewers import Viewer, pick_viewer

#: Viewers a catalogue has, for each session: below 1, so that viewers return.
VIEWERS_PER_SESSION = 0.45
#: Chance that a binge viewer goes on to another video, the most of them in a row, and the longest rest in between.
GOES_ON = 0.55
MAX_IN_A_ROW = 4
MAX_REST_MS = 60_000
#: Relative traffic of the hours of a day (UTC) and of the days of a week.
_HOURS = (2, 1, 1, 1, 1, 2, 3, 5, 7, 8, 8, 8, 9, 8, 7, 7, 8, 9, 11, 13, 14, 12, 8, 4)
_WEEKDAYS = (10, 10, 10, 10, 9, 12, 13)


def history(seed: int, sessions: int, days: int, end: datetime) -> Iterator[Session]:
    """Sessions of the ``days`` before ``end``, by their start; no event in them is later than ``end``."""
    chance = random.Random(f"{seed}/visits")
    people = max(1, int(sessions * VIEWERS_PER_SESSION))
    visits: list[tuple[Viewer, int]] = []
    left = sessions
    while left:
        viewer = pick_viewer(chance, seed, people)
        videos = min(left, _videos_in_a_row(chance, viewer))
        visits.append((viewer, videos))
        left -= videos
    last_ms = int(end.timestamp() * 1000)
    starts = _starts(chance, len(visits), last_ms - days * 86_400_000, last_ms)
    # A visit that would not be over by the end comes earlier.
    latest = (last_ms - videos * (MAX_SESSION_MS + MAX_REST_MS) for _, videos in visits)
    planned = sorted((min(starts[n], bound), n) for n, bound in enumerate(latest))
    return _by_start(_visit(random.Random(f"{seed}/visit/{n}"), *visits[n], start) for start, n in planned)


def _videos_in_a_row(chance: random.Random, viewer: Viewer) -> int:
    count = 1
    while viewer.behaviour.name == "binge" and count < MAX_IN_A_ROW and chance.random() < GOES_ON:
        count += 1
    return count


def _visit(chance: random.Random, viewer: Viewer, videos: int, start_ms: int) -> Iterator[Session]:
    """So many different videos, one after the other."""
    seen: set[str] = set()
    while len(seen) < videos:
        demo = pick_video(chance)
        if demo.video.video_id in seen:
            continue
        seen.add(demo.video.video_id)
        session = simulate_session(chance, demo, viewer, start_ms)
        yield session
        start_ms = session.end_ms + chance.randrange(1_000, MAX_REST_MS)


def _by_start(visits: Iterable[Iterator[Session]]) -> Iterator[Session]:
    """The sessions of visits by their start, given visits by the start of their first session."""
    going: list[tuple[int, int, Session, Iterator[Session]]] = []

    def next_of_the_earliest() -> Session:
        _, number, session, visit = heapq.heappop(going)
        follower = next(visit, None)
        if follower is not None:
            heapq.heappush(going, (follower.start_ms, number, follower, visit))
        return session

    for number, visit in enumerate(visits):
        session = next(visit)
        heapq.heappush(going, (session.start_ms, number, session, visit))
        while going[0][0] < session.start_ms:
            yield next_of_the_earliest()
    while going:
        yield next_of_the_earliest()


def pick_video(chance: random.Random) -> DemoVideo:
    """A video of the catalogue, popular ones more often."""
    return chance.choices(CATALOGUE, [demo.popularity for demo in CATALOGUE])[0]


def _starts(chance: random.Random, count: int, first_ms: int, last_ms: int) -> list[int]:
    """Start times with the rhythm of days and weeks."""
    hours = range(first_ms // 3_600_000, last_ms // 3_600_000 + 1)
    weights = []
    for hour in hours:
        moment = datetime.fromtimestamp(hour * 3600, tz=timezone.utc)
        weights.append(_HOURS[moment.hour] * _WEEKDAYS[moment.weekday()])
    drawn = chance.choices(hours, weights, k=count)
    return [min(max(hour * 3_600_000 + chance.randrange(3_600_000), first_ms), last_ms) for hour in drawn]


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
    #: A crowd that is wanted at once comes within one heartbeat, so that their heartbeats do not come all together.
    GATHER_MS = 10_000
    #: Mean time until one more or one fewer is wanted.
    WANDER_MS = 20_000

    def __init__(self, seed: int, minimum: int, maximum: int, rate: float | None = None) -> None:
        self._chance = random.Random(f"{seed}/crowd")
        self._seed = seed
        if rate is not None:
            minimum = maximum = max(1, round(rate / self.EVENTS_PER_SECOND))
        self._minimum, self._maximum = minimum, maximum
        self._wanted = minimum
        self._viewers = max(200, 20 * maximum)
        self._present: list[tuple[int, int, Viewer]] = []
        self._count = 0
        self._looked_at: int | None = None

    def arrivals(self, now_ms: int) -> list[Session]:
        """The sessions that start now, already played through; their messages are to be sent when their time comes.

        To be asked often, with times (epoch milliseconds) that do not fall.
        """
        chance = self._chance
        passed = 0 if self._looked_at is None else now_ms - self._looked_at
        self._looked_at = now_ms
        going_on = []
        while self._present and self._present[0][0] <= now_ms:
            _, _, viewer = heapq.heappop(self._present)
            if viewer.behaviour.name == "binge" and chance.random() < GOES_ON:
                going_on.append(viewer)
        if chance.random() < passed / self.WANDER_MS:
            self._wanted = min(self._maximum, max(self._minimum, self._wanted + chance.choice((-1, 1))))
        missing = self._wanted - len(self._present)
        arrived = []
        for _ in range(min(missing, 1 + self._wanted * passed // self.GATHER_MS)):
            viewer = going_on.pop() if going_on else pick_viewer(chance, self._seed, self._viewers)
            session = simulate_session(chance, pick_video(chance), viewer, now_ms)
            heapq.heappush(self._present, (session.end_ms, self._count, viewer))
            self._count += 1
            arrived.append(session)
        return arrived
