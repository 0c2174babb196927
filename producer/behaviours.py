"""How viewers behave: four kinds, and how likely each is to leave at each second of a video. Pure."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

from producer.catalogue import DemoVideo


@dataclass(frozen=True)
class Behaviour:
    """One kind of viewer. Rates are chances a wall second while playing."""

    name: str
    #: How many viewers are of this kind, relative to the others.
    share: float
    #: Chance to leave in an ordinary second.
    leave: float
    pause: float
    seek_back: float
    seek_forward: float
    change_rate: float
    rates: tuple[float, ...]


BEHAVIOURS: tuple[Behaviour, ...] = (
    Behaviour("casual", 0.45, 1 / 300, 1 / 240, 1 / 500, 1 / 400, 1 / 2000, (1.0, 1.25)),
    Behaviour("binge", 0.20, 1 / 1500, 1 / 900, 1 / 1500, 1 / 600, 1 / 900, (1.0, 1.25, 1.5, 2.0)),
    Behaviour("skipper", 0.15, 1 / 260, 1 / 600, 1 / 400, 1 / 40, 1 / 400, (1.0, 1.5, 2.0)),
    Behaviour("completer", 0.20, 1 / 6000, 1 / 200, 1 / 200, 1 / 3000, 1 / 1200, (0.75, 1.0, 1.25)),
)

#: Chance of the picture to stall, and of the player to fail, a wall second while playing; alike for all.
BUFFERING = 1 / 700
FAILURE = 1 / 20_000
#: Share of sessions that skip a dull stretch, and that go back to a highlight, when they come to it.
SKIPS = 0.35
REWATCHES = 0.35
#: Share of viewers who leave when the picture stalls for long.
GIVES_UP = 0.65


@functools.cache
def cumulative_hazard(demo: DemoVideo, behaviour: Behaviour, device: str) -> tuple[float, ...]:
    """For s = 0 … ceil(D): the hazard of leaving, summed over the content seconds before s.

    Leaving is likelier at the beginning, right after a chapter begins, in the last part, in a tedious
    stretch, and at the video's cliff.
    """
    seconds = math.ceil(demo.duration_ms / 1000)
    chapters = [chapter.start_ms // 1000 for chapter in demo.video.chapters if chapter.start_ms]
    cliff = demo.cliff if demo.cliff_device in (None, device) else None
    total, sums = 0.0, [0.0]
    for second in range(seconds):
        factor = 1.0 + 4.0 * math.exp(-second / 30)
        if any(0 <= second - start < 4 for start in chapters):
            factor += 4.0
        if second >= demo.ending * seconds:
            factor += 8.0
        if demo.tedious is not None and demo.tedious[0] <= second < demo.tedious[1]:
            factor += 3.0
        hazard = behaviour.leave * factor
        if cliff is not None and 0 <= second - cliff[0] < 5:
            # The same share of every kind of viewer, spread over five seconds.
            hazard += -math.log1p(-cliff[1]) / 5
        total += hazard
        sums.append(total)
    return tuple(sums)
