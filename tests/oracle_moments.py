"""Key moments by their definition (docs/dropoffs.md), with SciPy's peaks, over plain counts of every second.

Written from the definition alone, not from the SQL; what a view is, is `oracle`'s. Knows neither ClickHouse nor dbt;
the viewers' groups and draws are those of its hash function, SipHash-2-4, of which an implementation is here.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import signal, stats

from tests import oracle

Row = dict[str, Any]
Ints = npt.NDArray[np.int64]

GROUPS, RESAMPLES, SAMPLE = 100, 400, 5000


@dataclass(frozen=True)
class Watch:
    """One view by whole seconds: how often each was played, the first, the last, and how many it has come to."""

    viewer_id: str
    plays: Ints
    entered: int
    left: int
    reached: int


def watches(events: Iterable[oracle.Message], videos: Iterable[oracle.Message]) -> dict[str, tuple[int, list[Watch]]]:
    """Duration in ms and views of every video that has any."""
    found = {}
    for video_id, _, duration_ms, _, views in oracle.judged(events, videos):
        counted = [view for view in views if view.counts]
        if duration_ms and counted:
            found[video_id] = duration_ms, [_watch(view, math.ceil(duration_ms / 1000)) for view in counted]
    return found


def _watch(view: oracle.View, seconds: int) -> Watch:
    instants = 1000 * np.arange(seconds)
    plays = np.zeros(seconds, dtype=np.int64)
    for p in view.played:
        plays += (p.start <= instants) & (instants < p.end)
    return Watch(view.viewer_id, plays, view.entered_second, view.exit_second, math.ceil(view.furthest_ms / 1000))


@dataclass(frozen=True)
class Counts:
    """Sums over views, a number a second."""

    watching: Ints
    plays: Ints
    reached: Ints

    def excess(self, kind: str) -> tuple[Ints, Ints]:
        """What is in excess and what it is a share of: plays beyond the first, or views that skip."""
        if kind == "spike":
            return self.plays - self.watching, self.watching
        return self.reached - self.watching, self.reached


def _counts(views: Sequence[Watch]) -> Counts:
    seconds = np.arange(len(views[0].plays))
    plays = np.array([view.plays for view in views])
    reached = sum((seconds < view.reached).astype(np.int64) for view in views)
    return Counts((plays > 0).sum(axis=0), plays.sum(axis=0), np.asarray(reached))


def _wilson(part: int, whole: int) -> tuple[float, float]:
    """Where a score test at 95 % would reject: the roots of (p - x)^2 = z^2 x (1 - x) / n."""
    z2, p = stats.norm.ppf(0.975) ** 2, part / whole
    low, high = sorted(np.roots([1 + z2 / whole, -2 * p - z2 / whole, p * p]).real)
    return float(low), float(high)


def _share(part: Any, whole: Any) -> float:
    return part / whole if whole else 0.0


def moments(duration_ms: int, views: Sequence[Watch], chapters: Sequence[Mapping[str, Any]] = ()) -> dict[str, Row]:
    """The rows of one video by moment_id."""
    if len(views) < 100:
        return {}
    seconds, total = len(views[0].plays), len(views)
    buckets = min(100, seconds)
    number = [s * buckets // seconds for s in range(seconds)]
    edges = [number.index(b) for b in range(buckets)] + [seconds]
    completion = max(Fraction(duration_ms - 30_000), Fraction(duration_ms * 95, 100))
    counts = _counts(views)
    rows = [
        {"moment_id": "intro", "kind": "intro", "start_second": 0, "end_second": edges[min(5, buckets)]},
        {"moment_id": "outro", "kind": "outro", "start_second": completion // 1000, "end_second": seconds},
        *(row for kind in ("spike", "dip") for row in peaks(kind, edges, counts, views)),
        *_top(edges, completion, views),
    ]
    for row in rows:
        start, end = row["start_second"], row["end_second"]
        row["at_risk"] = sum(view.entered < end and view.left >= start for view in views)
        row["views_lost"] = sum(start <= view.left < end for view in views)
        row["views"], row["tentative"] = total, total < 300
        row["retention_rate"] = float(counts.watching[start:end].mean() / total)
        row.setdefault("peak_second", None)
        if row["kind"] in ("intro", "outro"):
            row["magnitude"] = 100 * row["views_lost"] / total
            low, high = _wilson(row["views_lost"], total)
            row["magnitude_low"], row["magnitude_high"] = 100 * low, 100 * high
            at = 30 if row["kind"] == "intro" else seconds - 1
            row["level"] = counts.watching[at] / total if at < seconds else None
        else:
            row["moment_id"] = f"{row['kind']}-{start}"
        place = 1000 * (start if row["peak_second"] is None else row["peak_second"])
        before = sorted((c["start_ms"], c["title"]) for c in chapters if c["start_ms"] <= place)
        row["chapter"] = before[-1][1] if before else None
    return {row["moment_id"]: row for row in rows}


def peaks(kind: str, edges: Sequence[int], counts: Counts, views: Sequence[Watch], *, all_: bool = False) -> list[Row]:
    """The confirmed spikes or dips, or with ``all_`` every candidate."""
    first = math.ceil(0.05 * (len(edges) - 1))
    edges = edges[first:]
    excess, base = counts.excess(kind)
    ratio = np.array([_share(excess[a:b].sum(), base[a:b].sum()) for a, b in itertools.pairwise(edges)], dtype=float)
    if len(ratio) < 3:
        return []
    threshold = max(0.03, 2 * 1.48 * float(stats.median_abs_deviation(ratio)))
    _, found = signal.find_peaks(ratio, plateau_size=1, prominence=threshold)
    places = found["left_edges"]
    prominences = signal.peak_prominences(ratio, places)
    _, _, left, right = signal.peak_widths(ratio, places, rel_height=0.5, prominence_data=prominences)
    rows: dict[int, Row] = {}
    for i in np.argsort(-prominences[0], kind="stable"):
        begin, end = math.floor(left[i]) + 1, math.ceil(right[i])
        start_s, end_s = edges[begin], edges[end]
        if end - begin < 2 or end_s - start_s < 3:
            continue
        windows = [(edges[max(0, begin - 7)], start_s), (start_s, end_s), (end_s, edges[min(end + 7, len(ratio))])]
        before, here, after = (_share(excess[a:b].sum(), base[a:b].sum()) for a, b in windows)
        if here - max(before, after) < 0.03 or start_s in rows:
            continue
        height, low, high, confidence = resampled(kind, windows, views)
        magnitude = here - max(before, after)
        rows[start_s] = {
            "kind": kind,
            "start_second": start_s,
            "end_second": end_s,
            "peak_second": edges[places[i]],
            "level": here,
            "baseline": max(before, after),
            "magnitude": 100 * magnitude,
            "magnitude_low": 100 * (magnitude + low - height),
            "magnitude_high": 100 * (magnitude + high - height),
            "prominence": 100 * prominences[0][i],
            "confidence": confidence,
        }
    return [row for row in rows.values() if all_ or row["confidence"] >= 0.975]


def resampled(
    kind: str, windows: Sequence[tuple[int, int]], views: Sequence[Watch]
) -> tuple[float, float, float, float]:
    """Height above the sides, over the views drawn from and at 2.5 and 97.5 % of the resamples, and the confidence."""
    part = (len(views) - 1) // SAMPLE + 1
    sums = np.zeros((GROUPS, len(windows), 2))
    for view in views:
        viewer = siphash(view.viewer_id)
        if viewer % part == 0:
            excess, base = _counts([view]).excess(kind)
            sums[viewer // part % GROUPS] += [[excess[a:b].sum(), base[a:b].sum()] for a, b in windows]

    def height(drawn: npt.NDArray[np.float64]) -> float:
        before, here, after = (_share(excess, base) for excess, base in drawn)
        return here - max(before, after)

    heights = sorted(height(np.tensordot(weights, sums, 1)) for weights in draws())
    confidence = sum(h >= 0.03 for h in heights) / RESAMPLES
    return height(sums.sum(axis=0)), heights[10], heights[RESAMPLES - 11], confidence


@cache
def draws() -> npt.NDArray[np.int64]:
    """How often each resample takes each group: quantiles of the Poisson distribution at hashes."""
    shares = [[siphash(f"{group} {r}") / 2**64 for group in range(GROUPS)] for r in range(RESAMPLES)]
    return np.minimum(stats.poisson.ppf(shares, 1), 7).astype(np.int64)


def _top(edges: Sequence[int], completion: Fraction, views: Sequence[Watch]) -> list[Row]:
    buckets = len(edges) - 1
    tested = [b for b in range(5, buckets - 5) if edges[b + 1] * 1000 <= completion]
    lost = {b: sum(edges[b] <= v.left < edges[b + 1] for v in views) for b in tested}
    risk = {b: sum(v.entered < edges[b + 1] and v.left >= edges[b] for v in views) for b in tested}
    hazards = [lost[b] / risk[b] for b in tested if risk[b]]
    if not hazards:
        return []
    median = float(np.median(hazards))
    stretches = []
    for i, first in enumerate(tested):
        for last in tested[i + math.ceil(buckets * 0.05) - 1 :]:
            d, n = (sum(by[b] for b in range(first, last + 1)) for by in (lost, risk))
            # what cannot pass is not worth the roots
            if n and d / n < median / 2 and _wilson(d, n)[1] < median / 2:
                stretches.append((first - last, first, last, d, n))
    taken: list[Row] = []
    for _, first, last, d, n in sorted(stretches):
        start, end = edges[first], edges[last + 1]
        if all(end <= row["start_second"] or row["end_second"] <= start for row in taken):
            low, high = _wilson(d, n)
            per_hazard = 100 * n / len(views)
            taken.append(
                {
                    "kind": "top_moment",
                    "start_second": start,
                    "end_second": end,
                    "level": d / n,
                    "baseline": median,
                    "magnitude": per_hazard * (median - d / n),
                    "magnitude_low": per_hazard * (median - high),
                    "magnitude_high": per_hazard * (median - low),
                }
            )
    return taken


@cache
def siphash(text: str) -> int:
    """SipHash-2-4 of UTF-8 under a key of zeros, as 64 bits."""
    mask = 2**64 - 1
    v = [0x736F6D6570736575, 0x646F72616E646F6D, 0x6C7967656E657261, 0x7465646279746573]

    def turned(x: int, bits: int) -> int:
        return ((x << bits) | (x >> (64 - bits))) & mask

    def rounds(count: int) -> None:
        for _ in range(count):
            for a, b, bits in ((0, 1, 13), (2, 3, 16)):
                v[a] = (v[a] + v[b]) & mask
                v[b] = turned(v[b], bits) ^ v[a]
            v[0] = turned(v[0], 32)
            for a, b, bits in ((0, 3, 21), (2, 1, 17)):
                v[a] = (v[a] + v[b]) & mask
                v[b] = turned(v[b], bits) ^ v[a]
            v[2] = turned(v[2], 32)

    data = text.encode()
    padded = data + bytes(7 - len(data) % 8) + bytes([len(data) % 256])
    for i in range(0, len(padded), 8):
        word = int.from_bytes(padded[i : i + 8], "little")
        v[3] ^= word
        rounds(2)
        v[0] ^= word
    v[2] ^= 0xFF
    rounds(4)
    return v[0] ^ v[1] ^ v[2] ^ v[3]
