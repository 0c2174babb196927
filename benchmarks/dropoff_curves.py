"""Invented views of invented videos whose true hazard is known: seeded, by NumPy, as the intermediate models hold them.

Owns what a smooth curve is, and a planted drop, rewatch and skip. Knows neither ClickHouse nor dbt nor what is found.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

BUCKETS = 100
#: Seconds of a bucket, and of a video; the completion point is 30 s before the end, at bucket 90.
BUCKET_S = 3
SECONDS = BUCKETS * BUCKET_S
#: Length of a planted rewatch or skip.
PLANTED_S = 12

_PLACE = np.arange(BUCKETS)


def _random_walk(rng: np.random.Generator) -> Floats:
    """Between 0.15 and 1.5 %: a walk of the logarithm that turns at the ends."""
    span = np.log(10)
    walk = rng.uniform(0, span) + np.cumsum(rng.normal(0, 0.08, BUCKETS))
    return np.asarray(0.0015 * np.exp(span - np.abs(walk % (2 * span) - span)))


#: True hazard by bucket, the share of those there who leave in it. About half of the views see the end.
SHAPES: dict[str, Callable[[np.random.Generator], Floats]] = {
    "flat": lambda rng: np.full(BUCKETS, 0.006),
    "decaying": lambda rng: 0.003 + 0.02 * np.exp(-_PLACE / 20),
    "steep": lambda rng: 0.003 + 0.08 * np.exp(-_PLACE / 6),
    "U-shaped": lambda rng: 0.002 + 0.016 * ((_PLACE - 49.5) / 50) ** 2,
    "wavy": lambda rng: 0.006 * (1 + 0.5 * np.sin(2 * np.pi * (_PLACE / 33 + rng.random()))),
    "random walk": _random_walk,
}


@dataclass(frozen=True)
class Exits:
    """Exit seconds of a video's views, all of which enter at second 0; where a drop is planted, or None."""

    seconds: Ints
    planted: int | None


def exits(rng: np.random.Generator, hazard: Floats, views: int, drop: float = 0.0) -> Exits:
    """Views that leave by a hazard a bucket; with a ``drop``, that share of those there leaves at once in one bucket.

    The place of the drop is anywhere from bucket 10 to bucket 80.
    """
    planted = int(rng.integers(10, 81)) if drop else None
    per_second = np.repeat(1 - (1 - hazard) ** (1 / BUCKET_S), BUCKET_S)
    if planted is not None:
        at = planted * BUCKET_S + int(rng.integers(BUCKET_S))
        per_second[at] = 1 - (1 - per_second[at]) * (1 - drop)
    there = np.cumprod(1 - per_second)
    # Whoever is there after the last second has seen the end.
    left = np.minimum(np.searchsorted(1 - there, rng.random(views), side="right"), SECONDS - 1)
    return Exits(left.astype(np.int64), planted)


@dataclass(frozen=True)
class Views:
    """Views of one video that rewatch and skip."""

    #: Exit second by view; all enter at second 0.
    exits: Ints
    #: Viewer by view: some come back.
    viewers: Ints
    #: Rows of (view, start, stop): seconds [start, stop) that it watched twice, or not at all; of one view all apart.
    replays: Ints
    skips: Ints
    #: The first of the `PLANTED_S` seconds where something is planted, or None.
    planted: int | None


def restless(
    rng: np.random.Generator, left: Exits, rates: tuple[Floats, Floats], shares: tuple[float, float] = (0, 0)
) -> Views:
    """Views with those exits, that rewatch and skip stretches of 5 to 25 s.

    ``rates`` are how many rewatches and how many skips a view begins in each bucket it sees, in the mean; few viewers
    do most of it. ``shares`` of those who come so far do it over the same `PLANTED_S` seconds, anywhere from bucket 10
    to bucket 80.
    """
    count = len(left.seconds)
    people = max(1, round(count * 0.8))
    viewers = rng.integers(0, people, count)
    eager = rng.gamma(0.3, 1 / 0.3, people)[viewers]
    at = int(rng.integers(10 * BUCKET_S, 81 * BUCKET_S)) if any(shares) else None
    parts = []
    for kind, (rate, share) in enumerate(zip(rates, shares, strict=True)):
        views, starts = np.nonzero(rng.poisson(np.repeat(rate / BUCKET_S, BUCKET_S) * eager[:, None]))
        parts.append((views, starts, starts + rng.integers(5, 26, len(starts)), np.full(len(starts), kind)))
        if at is not None and share:
            there = np.nonzero(rng.random(count) < share)[0]
            parts.append((there, *(np.full(len(there), value) for value in (at, at + PLANTED_S, kind))))
    rows = np.concatenate([np.stack(part, axis=1) for part in parts])
    rows = _apart(rows[rows[:, 2] <= left.seconds[rows[:, 0]]])
    return Views(left.seconds, viewers, rows[rows[:, 3] == 0, :3], rows[rows[:, 3] == 1, :3], at)


def _apart(rows: Ints) -> Ints:
    """Of each view's ranges those that begin after all that began before them ended."""
    rows = rows[np.lexsort((rows[:, 1], rows[:, 0]))]
    starts, stops = (rows[:, 0] * (2 * SECONDS) + rows[:, column] for column in (1, 2))
    kept = np.ones(len(rows), dtype=bool)
    kept[1:] = starts[1:] > np.maximum.accumulate(stops)[:-1]
    return rows[kept]
