"""One invented playback, from the first play to the last event. Pure: the same chance gives the same bytes.

A session is played through in steps of one heartbeat or one action. Every event that ends or continues playback carries
the interval played since the last report, so the truth of a session is the list of intervals it reported.
"""

from __future__ import annotations

import bisect
import json
import math
import random
from collections.abc import Sequence
from dataclasses import dataclass, field

from producer.behaviours import BUFFERING, FAILURE, GIVES_UP, REWATCHES, SKIPS, cumulative_hazard
from producer.catalogue import DemoVideo
from producer.viewers import Viewer

HEARTBEAT_MS = 10_000
MIN_SESSION_MS = 30_000
MAX_SESSION_MS = 30 * 60_000
#: Share of leaving viewers whose tab is gone without a word, of events sent twice, of sessions partly sent late.
LOST_TAB = 0.12
DUPLICATED = 0.004
LATE = 0.02


@dataclass
class Session:
    """One invented playback: what is sent, and what truly happened."""

    session_id: str
    viewer: Viewer
    video_id: str
    #: Epoch milliseconds, as all wall times here.
    start_ms: int
    end_ms: int = 0
    #: (when it is sent, message), duplicates included; events in their order, duplicates last.
    messages: list[tuple[int, bytes]] = field(default_factory=list)
    #: The intervals reported, in content milliseconds, in the order of playback.
    intervals: list[tuple[int, int]] = field(default_factory=list)
    #: Distinct events.
    events: int = 0
    #: Content played after the last report and never reported.
    lost_ms: int = 0

    def truth(self, sent: Sequence[bytes] | None = None) -> bytes:
        """The session's truth as one line of JSON; of those messages only, when not all were ``sent``."""
        intervals, events, lost_ms = self.intervals, self.events, self.lost_ms
        if sent is not None:
            distinct = {event["event_id"]: event for event in map(json.loads, sent)}
            played = [event for event in distinct.values() if "played_from_ms" in event]
            played.sort(key=lambda event: event["event_time"])
            intervals = [(event["played_from_ms"], event["played_to_ms"]) for event in played]
            events, lost_ms = len(distinct), 0
        values = {
            "session_id": self.session_id,
            "viewer_id": self.viewer.viewer_id,
            "video_id": self.video_id,
            "behaviour": self.viewer.behaviour.name,
            "start_ms": self.start_ms,
            "intervals": intervals,
            "events": events,
            "lost_ms": lost_ms,
            "is_complete": sent is None,
        }
        return json.dumps(values, separators=(",", ":")).encode()


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
        self.session = Session(session_id, viewer, video_id, start_ms)
        self._chance = chance
        self._demo = demo
        self._behaviour = viewer.behaviour
        self._duration = demo.duration_ms
        self._hazard = cumulative_hazard(demo, viewer.behaviour, viewer.device)
        self._head = (
            f'{{"schema_version":1,"session_id":"{session_id}","viewer_id":"{viewer.viewer_id}",'
            f'"video_id":"{video_id}","duration_ms":{demo.duration_ms}{viewer.attributes},"event_type":"'
        )
        self._now = start_ms
        self._position = 0
        self._reported = 0
        self._last_report = start_ms
        self._rate = 1.0
        #: Seeks that the video tempts this viewer to: (where they happen, where they lead), the next one last.
        self._plans = self._tempted()
        #: Where the picture will stall for long; beyond the end when it will not.
        self._stall_at = self._doomed()

    def play_through(self) -> None:
        """Everything from the first play to the last event."""
        chance, kind = self._chance, self._behaviour
        self._emit("play")
        #: The hazard this viewer stands before leaving: the inverse of an exponential's distribution.
        patience = chance.expovariate(1.0)
        actions = kind.pause + kind.seek_back + kind.seek_forward + kind.change_rate + BUFFERING + FAILURE
        next_action = chance.expovariate(actions) * 1000
        while True:
            stop = min(self._plans[-1][0] if self._plans else self._duration, self._stall_at)
            step = min(HEARTBEAT_MS - (self._now - self._last_report), next_action)
            step = max(1, int(min(step, (stop - self._position) / self._rate + 1)))
            before = self._position
            target = min(stop, before + int(step * self._rate))
            spent = self._hazard_between(before, target)
            if spent >= patience:
                self._advance(max(before, min(target, self._leaving_point(before, patience))), step)
                self._leave()
                break
            patience -= spent
            self._advance(target, step)
            next_action -= step
            if self._position >= self._duration:
                self._report("ended")
                self._linger()
                break
            if self._now - self.session.start_ms >= MAX_SESSION_MS - HEARTBEAT_MS:
                self._report("exit")
                break
            if self._position >= self._stall_at:
                if not self._stands():
                    break
            elif self._plans and self._position >= stop:
                self._seek(self._plans.pop()[1])
            if next_action <= 0:
                if not self._act(chance.random() * actions):
                    break
                next_action = chance.expovariate(actions) * 1000
            if self._now - self._last_report >= HEARTBEAT_MS:
                self._report("heartbeat")
        self.session.end_ms = self._now

    def _is_young(self) -> bool:
        """Whether the session has not lasted as long yet as every session does."""
        return self._now - self.session.start_ms < MIN_SESSION_MS

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
        sums = self._hazard
        # Rounding may put the sum a hair beyond the last one.
        goal = min(self._hazard_at(start_ms) + patience, sums[-1])
        second = max(0, bisect.bisect_left(sums, goal) - 1)
        return second * 1000 + math.ceil(1000 * (goal - sums[second]) / (sums[second + 1] - sums[second]))

    def _leave(self) -> None:
        last_event_ms = self.session.messages[-1][0]
        if self._is_young():
            # Not interested: stops at once, closes the tab some time later.
            self._report("pause")
            self._linger()
        elif last_event_ms - self.session.start_ms >= MIN_SESSION_MS and self._chance.random() < LOST_TAB:
            self.session.lost_ms = self._position - self._reported
        else:
            self._report("exit")

    def _linger(self) -> None:
        """Keep the page open until the session is as long as the shortest, then close it."""
        if self._is_young():
            self._now = self.session.start_ms + MIN_SESSION_MS + self._chance.randrange(30_000)
            self._emit("exit")

    # -- acting

    def _tempted(self) -> list[tuple[int, int]]:
        chance, plans = self._chance, []
        for stretch, share, forward in ((self._demo.dull, SKIPS, True), (self._demo.highlight, REWATCHES, False)):
            if stretch is None or chance.random() >= share:
                continue
            first, last = stretch[0] * 1000, stretch[1] * 1000
            if forward:
                plans.append((first + chance.randint(2_000, 12_000), last))
            else:
                plans.append((min(last + chance.randint(0, 3_000), self._duration - 1_000), first))
        return sorted(plans, reverse=True)

    def _doomed(self) -> int:
        """Where the picture will stall for long; a millisecond beyond the end when it will not."""
        stall = self._demo.stall
        if stall is None or self._chance.random() >= stall[1]:
            return self._duration + 1
        return stall[0] * 1000 + self._chance.randint(0, 4_000)

    def _stands(self) -> bool:
        """The picture stalls for long; False when the viewer does not wait for it to go on."""
        self._stall_at = self._duration + 1
        self._emit("buffer_start")
        self._stall(8_000 + self._chance.randrange(22_000))
        if self._chance.random() < GIVES_UP:
            self._leave()
            return False
        self._emit("buffer_end")
        return True

    def _act(self, draw: float) -> bool:
        """Do one of the things viewers and networks do; False when the session ends by it."""
        kind, chance = self._behaviour, self._chance
        if (draw := draw - kind.pause) < 0:
            self._report("pause")
            self._rest(int(2_000 + chance.expovariate(1 / 15_000)))
            # A player sends heartbeats only while it plays.
            self._last_report = self._now
            self._emit("play")
        elif (draw := draw - kind.seek_back) < 0:
            self._seek(max(0, self._position - chance.randint(5_000, 40_000)))
        elif (draw := draw - kind.seek_forward) < 0:
            ahead = self._position + chance.randint(5_000, 50_000)
            if ahead < self._duration:
                self._seek(ahead)
        elif (draw := draw - kind.change_rate) < 0:
            self._report("rate_change")
            self._rate = chance.choice(kind.rates)
        elif draw - BUFFERING < 0 or self._is_young():
            self._emit("buffer_start")
            self._stall(int(200 + chance.expovariate(1 / 1500)))
            self._emit("buffer_end")
        else:
            self._emit("error")
            self.session.lost_ms = self._position - self._reported
            return False
        return True

    def _seek(self, target: int) -> None:
        if target == self._position:
            return
        came_from, self._position = self._position, target
        self._emit("seek", played=(self._reported, came_from), extra=f',"seek_from_ms":{came_from}')
        self._reported = target
        if target > self._stall_at:
            self._stall_at = self._duration + 1
        while self._plans and self._plans[-1][0] <= target:
            self._plans.pop()

    def _rest(self, wait_ms: int) -> None:
        """Let wall time pass without playing, up to the end of the longest session."""
        left = self.session.start_ms + MAX_SESSION_MS - HEARTBEAT_MS - self._now
        self._now += max(0, min(wait_ms, left))

    def _stall(self, wait_ms: int) -> None:
        """Rest while the picture stands: the player goes on sending heartbeats."""
        self._rest(0)
        while self._last_report + HEARTBEAT_MS <= self._now + wait_ms:
            pause_ms = self._last_report + HEARTBEAT_MS - self._now
            self._rest(pause_ms)
            self._report("heartbeat")
            wait_ms -= pause_ms
        self._rest(wait_ms)

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
    # The gaps between what happens with a small chance to each are drawn at once: quicker than a draw for each.
    index = int(chance.expovariate(DUPLICATED))
    while index < session.events:
        sent, message = messages[index]
        messages.append((sent + chance.randint(50, 5_000), message))
        index += 1 + int(chance.expovariate(DUPLICATED))
