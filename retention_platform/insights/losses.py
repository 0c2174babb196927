"""Where views are lost, as the marts' rows tell it: dropoffs, chapters that lose more than their surroundings, a weak
beginning, stretches that are skipped. Pure. Why they are lost is `facts`' and `causes`' business.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from retention_platform.insights import stats
from retention_platform.insights.schema import Kind
from retention_platform.report.reasons import DROPOFF_BUCKETS, MOMENTS_MIN_VIEWS, TENTATIVE_BELOW_VIEWS

Row = Mapping[str, Any]
Rows = Mapping[str, Sequence[Row]]

#: A chapter loses too much when views end in it so many times as fast as around it, with so much certainty, and so
#: many points of all views more.
CHAPTER_RATIO, CHAPTER_MAX_P, CHAPTER_MIN_POINTS = 2.0, 1e-4, 5.0
#: In every video the beginning is where views end fastest: of the first chapter so many times what follows is ordinary,
#: and only what is beyond that counts.
ORDINARY_BEGINNING, FIRST_CHAPTER_RATIO, FIRST_CHAPTER_MAX_P = 1.7, 2.75, 1e-3
#: Seconds at the beginning that are not the first chapter's fault, at most; a third of it where it is short.
ARRIVAL_SECONDS = 20
#: What a chapter is compared with lies within so many of its lengths, but is this long at least, in seconds.
AROUND_LENGTHS, AROUND_SECONDS = 1.0, 60
#: A beginning is weak when at 30 s it has kept so many points less than the median of so many comparable videos.
WEAK_POINTS, WEAK_PEERS = 10.0, 10


@dataclass(frozen=True)
class Chapter:
    """A stretch of the video with the name that somebody gave it."""

    title: str
    start: int
    end: int


@dataclass(frozen=True)
class Loss:
    """A moment that costs views or attention. Seconds of content; ``magnitude`` in points of all views."""

    moment_id: str
    kind: Kind
    start: int
    end: int
    magnitude: float
    low: float | None
    high: float | None
    lost: int
    at_risk: int
    #: Views that would have ended here at the rate around it; None where nothing says.
    usual: float | None
    #: 0 is certain.
    p: float

    @property
    def excess(self) -> float:
        """Views lost beyond what is usual; 0 where nothing says what is."""
        return max(0.0, self.lost - self.usual) if self.usual is not None else 0.0


class Curve:
    """Who left and who was there, second by second; sums over stretches."""

    def __init__(self, rows: Sequence[Row]) -> None:
        self.seconds = len(rows)
        self._stopped = _sums(int(row["stopped_watching"]) for row in rows)
        self._exposure = _sums(int(row["at_risk"]) for row in rows)
        self._at_risk = [int(row["at_risk"]) for row in rows]
        self._skips = [row["skip_rate"] for row in rows]

    def lost(self, start: int, end: int) -> int:
        """Views whose last second is in [start, end)."""
        return self._stopped[self._within(end)] - self._stopped[self._within(start)]

    def exposure(self, start: int, end: int) -> int:
        """View-seconds at risk in [start, end)."""
        return self._exposure[self._within(end)] - self._exposure[self._within(start)]

    def at_risk(self, second: int) -> int:
        """Views that had come and not yet gone."""
        return self._at_risk[second] if 0 <= second < self.seconds else 0

    def skipped(self, start: int, end: int) -> float | None:
        """Mean share of those who came past [start, end) who jumped over its seconds; None where nobody came."""
        rates = [rate for rate in self._skips[max(0, start) : end] if rate is not None]
        return sum(rates) / len(rates) if rates else None

    def _within(self, second: int) -> int:
        return min(max(second, 0), self.seconds)


def _sums(values: Iterable[int]) -> list[int]:
    sums = [0]
    for value in values:
        sums.append(sums[-1] + value)
    return sums


def chapters_of(video: Row, duration: float | None) -> list[Chapter]:
    """The chapters of a row of marts.videos, in whole seconds, each to the start of the next."""
    if not duration or not video["chapters"]:
        return []
    starts = sorted((int(chapter["start_ms"]) // 1000, str(chapter["title"])) for chapter in video["chapters"])
    ends = [start for start, _ in starts[1:]] + [math.ceil(duration)]
    return [Chapter(title, start, end) for (start, title), end in zip(starts, ends, strict=True) if start < end]


def bucket_seconds(seconds: int) -> int:
    """Length of the buckets that dropoffs are looked for in, rounded up."""
    return max(1, math.ceil(seconds / min(DROPOFF_BUCKETS, max(1, seconds))))


def losses_of(rows: Rows, chapters: Sequence[Chapter]) -> list[Loss]:
    """Everything that costs views or attention, the costliest first. Nothing from under 100 views."""
    views = int(rows["summary"][0]["views"] or 0) if rows["summary"] else 0
    curve = Curve(rows["curve"])
    if views < MOMENTS_MIN_VIEWS or not curve.seconds:
        return []
    drops = _dropoffs(rows["dropoffs"], views, curve)
    found = [*drops, *_chapters(chapters, curve, views, drops), *_weak_start(rows, views), *_dips(rows["moments"])]
    return sorted(found, key=lambda loss: (-100 * loss.excess / views, -loss.magnitude, loss.start))


def _dropoffs(rows: Sequence[Row], views: int, curve: Curve) -> list[Loss]:
    """The rows of marts.dropoff_points; neighbouring buckets are one fall."""
    groups: list[list[Row]] = []
    for row in rows:
        if groups and row["start_second"] <= groups[-1][-1]["end_second"] + bucket_seconds(curve.seconds):
            groups[-1].append(row)
        else:
            groups.append([row])
    losses = []
    for group in groups:
        start, end = int(group[0]["start_second"]), int(group[-1]["end_second"])
        lost = sum(int(row["views_lost"]) for row in group)
        usual = sum(float(row["expected_views_lost"]) for row in group)
        at_risk = max(int(row["at_risk"]) for row in group)
        low, high = (100 * (bound * at_risk - usual) / views for bound in stats.wilson(min(lost, at_risk), at_risk))
        losses.append(
            Loss(
                f"dropoff-{start}",
                "dropoff",
                start,
                end,
                100 * (lost - usual) / views,
                low,
                high,
                lost,
                at_risk,
                usual,
                min(float(row["q_value"]) for row in group),
            )
        )
    return losses


def _chapters(chapters: Sequence[Chapter], curve: Curve, views: int, drops: Sequence[Loss]) -> list[Loss]:
    """Chapters that views leave faster, all along, than what surrounds them; what dropoffs tell is left out."""
    last = curve.seconds - max(30, curve.seconds // 20)
    taken = {second for drop in drops for second in range(drop.start, drop.end)}

    def counted(seconds: Iterable[int]) -> tuple[int, int]:
        kept = [second for second in seconds if 0 <= second < last and second not in taken]
        return sum(curve.lost(s, s + 1) for s in kept), sum(curve.at_risk(s) for s in kept)

    losses = []
    for place, chapter in enumerate(chapters):
        is_first = place == 0 and chapter.start < ARRIVAL_SECONDS
        start = chapter.start + (min(ARRIVAL_SECONDS, chapter.end // 3) if is_first else 0)
        length = max(AROUND_SECONDS, int(AROUND_LENGTHS * (chapter.end - start)))
        lost, exposure = counted(range(start, chapter.end))
        before = () if is_first else range(max(ARRIVAL_SECONDS, chapter.start - length), chapter.start)
        around = [*before, *range(chapter.end, chapter.end + length)]
        around_lost, around_exposure = counted(around)
        if not exposure or not around_exposure or not around_lost:
            continue
        ordinary = ORDINARY_BEGINNING if is_first else 1.0
        rate, around_rate = lost / exposure, around_lost / around_exposure
        # As if what surrounds it had been watched for less, so that the rate there is the ordinary one here.
        p = stats.two_rates(lost, exposure, around_lost, around_exposure / ordinary)
        usual = ordinary * around_rate * exposure
        excess = lost - usual
        ratio, max_p = (FIRST_CHAPTER_RATIO, FIRST_CHAPTER_MAX_P) if is_first else (CHAPTER_RATIO, CHAPTER_MAX_P)
        if rate < ratio * around_rate or p > max_p or 100 * excess / views < CHAPTER_MIN_POINTS:
            continue
        spread = stats.Z_TWO_SIDED_5 * math.sqrt(lost)
        low, high = (100 * (excess + side * spread) / views for side in (-1, 1))
        at_risk = curve.at_risk(start)
        losses.append(
            Loss(
                f"chapter-{start}",
                "chapter",
                start,
                chapter.end,
                100 * excess / views,
                low,
                high,
                lost,
                at_risk,
                usual,
                p,
            )
        )
    return losses


def _weak_start(rows: Rows, views: int) -> list[Loss]:
    """The intro, where it keeps clearly fewer than those of comparable videos."""
    peers = rows["peers"][0] if rows["peers"] else {}
    intro = next((row for row in rows["moments"] if row["kind"] == "intro"), None)
    typical = peers.get("intro_retention_30s")
    if intro is None or intro["level"] is None or typical is None or int(peers["videos"]) < WEAK_PEERS:
        return []
    watching = round(float(intro["level"]) * views)
    low, high = stats.wilson(watching, views)
    if math.isnan(typical) or 100 * (float(typical) - high) < WEAK_POINTS:
        return []
    missing = (float(typical) - watching / views) * views
    lost = int(intro["views_lost"])
    return [
        Loss(
            "intro",
            "intro",
            int(intro["start_second"]),
            int(intro["end_second"]),
            100 * missing / views,
            100 * (float(typical) - high),
            100 * (float(typical) - low),
            lost,
            int(intro["at_risk"]),
            max(0.0, lost - missing),
            0.0,
        )
    ]


def _dips(moments: Sequence[Row]) -> list[Loss]:
    return [
        Loss(
            str(row["moment_id"]),
            "dip",
            int(row["start_second"]),
            int(row["end_second"]),
            float(row["magnitude"]),
            row["magnitude_low"],
            row["magnitude_high"],
            int(row["views_lost"]),
            int(row["at_risk"]),
            None,
            1 - float(row["confidence"]),
        )
        for row in moments
        if row["kind"] == "dip"
    ]


def confidence_of(loss: Loss, views: int) -> str:
    """How sure it is that the loss is there: low under 300 views, high where chance is under one in a thousand."""
    if views < TENTATIVE_BELOW_VIEWS:
        return "low"
    return "high" if loss.p <= 1e-3 else "medium"
