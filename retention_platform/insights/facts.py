"""The marts' rows about one video as `Facts`: what an analysis may rest on, rounded to what it means. Pure.

It judges (how good, how sure, what the evidence speaks for) and writes no prose; `losses` says where views are lost.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, cast

from retention_platform.insights import stats
from retention_platform.insights.losses import (
    WEAK_PEERS,
    Chapter,
    Curve,
    Loss,
    bucket_seconds,
    chapters_of,
    confidence_of,
    losses_of,
)
from retention_platform.insights.schema import (
    FACTS_VERSION,
    Assessment,
    Cause,
    ChapterFacts,
    Confidence,
    Dimension,
    Facts,
    Figures,
    Grade,
    MomentFacts,
    MomentSegment,
    QualityWarning,
    SegmentFacts,
    TechnicalFacts,
)
from retention_platform.report.reasons import SUFFICIENT_VIEWS, TENTATIVE_BELOW_VIEWS
from retention_platform.report.untrusted import plain

Row = Mapping[str, Any]
Rows = Mapping[str, Sequence[Row]]

#: Characters kept of a text that somebody else wrote.
TITLE_CHARACTERS = 80
#: Share of viewers who finish a video shorter than so many seconds: Vidyard, Video in Business Benchmark Report 2022.
#: Their videos are business videos, and what counts as finished may differ: hence low confidence.
BENCHMARK = ((60, 66.0), (120, 56.0), (600, 50.0), (1200, 39.0), (math.inf, 22.0))
#: Comparable videos that make a percentile worth telling, and that make it one to rely on.
MIN_PEERS, MANY_PEERS = WEAK_PEERS, 30
#: A third of the catalogue is good, a third poor.
GOOD_PERCENTILE, POOR_PERCENTILE = 200 / 3, 100 / 3
#: Stalls or errors explain a loss when so many percent of it came after one, significantly more than elsewhere.
#: The test needs so many of them.
TECHNICAL_PERCENT, TECHNICAL_MAX_P, TECHNICAL_MIN_VIEWS = 20.0, 1e-3, 8
#: A loss is a segment's when so much of what is unusual in it is, and its viewers leave so many times as often.
SEGMENT_SHARE, SEGMENT_RATIO, SEGMENT_MAX_Q = 70.0, 1.5, 0.01
#: A difference in finishing worth telling, in points.
DIFFERENCE_POINTS, DIFFERENCE_MAX_Q = 5.0, 0.05
#: A fall of fewer points is told, but is not worth a producer's time to explain; nor is one that may as
#: well be next to none.
PROBLEM_POINTS, PROBLEM_POINTS_LOW = 3.0, 1.5
#: From this part of the video on, a fall where its last chapter begins is taken for the end by viewers.
END_PART = 0.8
#: A fall belongs to a chapter's start when it comes at most so many seconds, or two buckets, after it.
CHAPTER_START_SECONDS = 10
#: A stretch that was watched again this shortly before a fall may be why, in seconds.
SPIKE_BEFORE_SECONDS = 60
#: Who skips a stretch that often, and who speeds up that often, says something about it, in percent.
SKIPPED_PERCENT, FASTER_PERCENT = 25.0, 40.0
#: Shares of sessions or intervals left out that are worth a warning, in percent.
WORRYING_PERCENT = 1.0


def stretches_of(rows: Rows) -> list[tuple[int, int]]:
    """The stretches whose evidence by segment is to be read before `facts_of`."""
    return [(loss.start, loss.end) for loss in losses_of(rows, _chapters(rows))]


def facts_of(rows: Rows, evidence: Sequence[Row]) -> Facts:
    """The facts in the rows of `queries.read_video` and `queries.read_evidence`."""
    video = rows["video"][0]
    summary: Row = rows["summary"][0] if rows["summary"] else {}
    views = int(summary.get("views") or 0)
    chapters, curve = _chapters(rows), Curve(rows["curve"])
    segment_ids = _segment_ids(rows["segments"])
    figures = _figures(summary, rows)
    problems = _Problems(rows, evidence, chapters, curve, views, segment_ids, figures.faster_percent).facts()
    return Facts(
        facts_version=FACTS_VERSION,
        title=plain(str(video["title"] or ""), TITLE_CHARACTERS),
        category=plain(str(video["category"] or ""), TITLE_CHARACTERS),
        duration_seconds=math.ceil(video["duration_s"]) if video["duration_s"] else None,
        views=views,
        unique_viewers=int(summary.get("unique_viewers") or 0),
        assessment=assessment_of(summary, rows["peers"][0] if rows["peers"] else {}, video["duration_s"]),
        figures=figures,
        chapters=_chapter_facts(chapters, curve),
        moments=[*problems, *_others(rows["moments"], problems, curve, views)],
        segments=_segment_facts(rows["segments"], segment_ids),
        warnings=_warnings(summary, video, rows["quality"], views),
    )


def assessment_of(summary: Row, peers: Row, duration_s: float | None) -> Assessment:
    """The grade, by the catalogue's comparable videos where there are enough, else by the published benchmark."""
    views = int(summary.get("views") or 0)
    completion = summary.get("completion_rate")
    if completion is None or duration_s is None or views < SUFFICIENT_VIEWS:
        return Assessment(
            grade="insufficient_data",
            basis="none",
            percentile=None,
            completion_percent=_percent(completion),
            benchmark_percent=None,
            sample_size=views,
            confidence="low",
        )
    others = int(peers.get("videos") or 0)
    if others >= MIN_PEERS:
        percentile = 100 * (int(peers["below"]) + int(peers["alike"]) / 2) / others
        sure: Confidence = "high" if views >= TENTATIVE_BELOW_VIEWS and others >= MANY_PEERS else "medium"
        return Assessment(
            grade=_by(percentile >= GOOD_PERCENTILE, percentile <= POOR_PERCENTILE),
            basis="catalogue",
            percentile=round(percentile, 1),
            completion_percent=_percent(completion),
            benchmark_percent=None,
            sample_size=views,
            confidence=sure,
        )
    benchmark = next(percent for below, percent in BENCHMARK if duration_s < below)
    low, high = stats.wilson(round(float(completion) * views), views)
    return Assessment(
        grade=_by(100 * low > benchmark, 100 * high < benchmark),
        basis="benchmark",
        percentile=None,
        completion_percent=_percent(completion),
        benchmark_percent=benchmark,
        sample_size=views,
        confidence="low",
    )


def _by(is_good: bool, is_poor: bool) -> Grade:
    return "good" if is_good else "poor" if is_poor else "average"


class _Problems:
    """The losses with the evidence around them, as facts."""

    def __init__(
        self,
        rows: Rows,
        evidence: Sequence[Row],
        chapters: Sequence[Chapter],
        curve: Curve,
        views: int,
        segment_ids: Mapping[tuple[str, str], str],
        faster_percent: float | None,
    ) -> None:
        self._losses = losses_of(rows, chapters)
        self._rows = rows
        self._chapters = chapters
        self._curve = curve
        self._views = views
        self._segment_ids = segment_ids
        self._is_slow = faster_percent is not None and faster_percent >= FASTER_PERCENT
        self._spikes = [row for row in rows["moments"] if row["kind"] == "spike"]
        self._dips = [row for row in rows["moments"] if row["kind"] == "dip"]
        self._evidence: dict[int, list[Row]] = defaultdict(list)
        for row in evidence:
            self._evidence[int(row["start_second"])].append(row)
        self._tests = max(1, sum(1 for row in evidence if row["value"]))

    def facts(self) -> list[MomentFacts]:
        return [self._moment(loss) for loss in self._losses]

    def _moment(self, loss: Loss) -> MomentFacts:
        stalls, errors = (self._technical(loss, trouble) for trouble in ("buffer_start", "error"))
        chapter = _chapter_at(self._chapters, loss.start)
        lost_share = loss.lost / loss.at_risk if loss.at_risk else 0.0
        usual_share = loss.usual / loss.at_risk if loss.usual is not None and loss.at_risk else None
        moment = MomentFacts(
            moment_id=loss.moment_id,
            kind=loss.kind,
            is_problem=loss.kind != "dropoff"
            or (loss.magnitude >= PROBLEM_POINTS and (loss.low or 0.0) >= PROBLEM_POINTS_LOW),
            start_second=loss.start,
            end_second=loss.end,
            chapter=plain(chapter.title, TITLE_CHARACTERS) if chapter else None,
            after_chapter_start_seconds=self._after_start(loss),
            magnitude=round(loss.magnitude, 1),
            magnitude_low=_rounded(loss.low),
            magnitude_high=_rounded(loss.high),
            views_lost=loss.lost,
            at_risk=loss.at_risk,
            lost_percent=round(100 * lost_share, 1),
            usual_lost_percent=_percent(usual_share),
            skipped_percent=_percent(self._curve.skipped(loss.start, loss.end)),
            max_views_recoverable=round(loss.excess) if loss.usual is not None else None,
            views_to_test=_views_to_test(lost_share, usual_share),
            confidence=cast("Confidence", confidence_of(loss, self._views)),
            stalls=stalls,
            errors=errors,
            segments=self._segments(loss),
            spike_before_id=_id_of(self._spikes, loss.start - SPIKE_BEFORE_SECONDS, loss.end),
            dip_here_id=None
            if loss.kind == "dip"
            else _id_of(self._dips, loss.start - CHAPTER_START_SECONDS, loss.end),
            causes=[],
        )
        return moment.model_copy(update={"causes": self._causes(loss, moment)}) if moment.is_problem else moment

    def _technical(self, loss: Loss, trouble: str) -> TechnicalFacts | None:
        """Of the views that ended here, and elsewhere before the end, how many ended right after a stall or error."""
        after = {
            int(row["exit_second"]): int(row["views"])
            for row in self._rows["after_trouble"]
            if row["trouble"] == trouble
        }
        last = self._curve.seconds - max(30, self._curve.seconds // 20)
        here = sum(count for second, count in after.items() if loss.start <= second < loss.end)
        elsewhere = sum(n for second, n in after.items() if second < last and not loss.start <= second < loss.end)
        lost = self._curve.lost(loss.start, loss.end)
        lost_elsewhere = self._curve.lost(0, last) - lost
        if not here or not lost:
            return None
        p = stats.two_proportions(here, lost, elsewhere, lost_elsewhere)
        return TechnicalFacts(
            views_lost_after_it=here,
            lost_here_percent=round(100 * here / lost, 1),
            lost_elsewhere_percent=round(100 * elsewhere / lost_elsewhere, 1) if lost_elsewhere > 0 else 0.0,
            is_significant=p <= TECHNICAL_MAX_P
            and 100 * here / lost >= TECHNICAL_PERCENT
            and here >= TECHNICAL_MIN_VIEWS,
        )

    def _segments(self, loss: Loss) -> list[MomentSegment]:
        """Segments that what is unusual about the loss is concentrated in; Bonferroni over all that were looked at."""
        rows = self._evidence[loss.start]
        usual = loss.usual / loss.at_risk if loss.usual is not None and loss.at_risk else 0.0
        totals: dict[str, list[int]] = defaultdict(lambda: [0, 0])
        for row in rows:
            totals[row["dimension"]][0] += int(row["lost"])
            totals[row["dimension"]][1] += int(row["at_risk"])
        found = []
        for row in rows:
            lost, at_risk = int(row["lost"]), int(row["at_risk"])
            others_lost = totals[row["dimension"]][0] - lost
            others_at_risk = totals[row["dimension"]][1] - at_risk
            segment_id = self._segment_ids.get((str(row["dimension"]), str(row["value"])))
            if segment_id is None or min(at_risk, others_at_risk) < SUFFICIENT_VIEWS:
                continue
            excess = lost - usual * at_risk
            all_excess = lost + others_lost - usual * (at_risk + others_at_risk)
            share = 100 * excess / all_excess if all_excess > 0 else 0.0
            rates = lost / at_risk, others_lost / others_at_risk
            p = self._tests * stats.two_proportions(lost, at_risk, others_lost, others_at_risk)
            if p <= SEGMENT_MAX_Q and share >= SEGMENT_SHARE and rates[0] >= SEGMENT_RATIO * rates[1]:
                found.append(
                    MomentSegment(
                        segment_id=segment_id,
                        dimension=cast("Dimension", row["dimension"]),
                        value=plain(str(row["value"]), TITLE_CHARACTERS),
                        lost_percent=round(100 * rates[0], 1),
                        others_lost_percent=round(100 * rates[1], 1),
                        excess_share_percent=round(min(100.0, share), 1),
                    )
                )
        return sorted(found, key=lambda segment: -segment.excess_share_percent)

    def _after_start(self, loss: Loss) -> int | None:
        reach = max(CHAPTER_START_SECONDS, 2 * bucket_seconds(self._curve.seconds))
        starts = [chapter.start for chapter in self._chapters if chapter.start]
        near = [start for start in starts if loss.start - reach <= start < loss.end]
        return max(0, loss.start - max(near)) if near and loss.kind != "chapter" else None

    def _causes(self, loss: Loss, moment: MomentFacts) -> list[Cause]:
        """What the evidence speaks for: what players measured, then who leaves, then what is shown there."""
        causes: list[Cause] = []
        if moment.stalls and moment.stalls.is_significant:
            causes.append("buffering")
        if moment.errors and moment.errors.is_significant:
            causes.append("playback_errors")
        for segment in moment.segments:
            cause: Cause = "device" if segment.dimension == "device_type" else "audience"
            if cause not in causes:
                causes.append(cause)
        if moment.spike_before_id is not None and loss.kind != "intro":
            causes.append("confusing")
        causes += self._content_causes(loss, moment)
        return causes or ["content"]

    def _content_causes(self, loss: Loss, moment: MomentFacts) -> list[Cause]:
        causes: list[Cause] = []
        first = self._chapters[0] if self._chapters else None
        in_first = first is not None and loss.start < first.end and first.start < CHAPTER_START_SECONDS
        skipped = moment.skipped_percent is not None and moment.skipped_percent >= SKIPPED_PERCENT
        is_last = not self._chapters or loss.end > self._chapters[-1].start
        if loss.kind == "intro":
            causes.append("weak_hook")
        if loss.kind == "chapter" and in_first:
            causes.append("long_intro")
        if loss.kind == "dropoff" and is_last and loss.start >= END_PART * self._curve.seconds:
            causes.append("end_screen")
        if moment.after_chapter_start_seconds is not None or (loss.kind == "chapter" and not in_first):
            causes.append("chapter_content")
        if loss.kind == "dip" or moment.dip_here_id is not None or skipped:
            causes.append("skipped_content")
        if loss.kind == "dropoff" and in_first:
            causes.append("long_intro")
        if loss.kind in ("chapter", "dip") and self._is_slow:
            causes.append("pace")
        return causes


def _others(moments: Sequence[Row], problems: Sequence[MomentFacts], curve: Curve, views: int) -> list[MomentFacts]:
    """The key moments that are no problem: beginning and end, what is watched again, what holds."""
    known = {moment.moment_id for moment in problems}
    found = []
    for row in moments:
        if row["moment_id"] in known:
            continue
        lost, at_risk = int(row["views_lost"]), int(row["at_risk"])
        start, end = int(row["start_second"]), int(row["end_second"])
        found.append(
            MomentFacts(
                moment_id=str(row["moment_id"]),
                kind=row["kind"],
                is_problem=False,
                start_second=start,
                end_second=end,
                chapter=plain(str(row["chapter"]), TITLE_CHARACTERS) if row["chapter"] else None,
                after_chapter_start_seconds=None,
                magnitude=round(float(row["magnitude"]), 1),
                magnitude_low=_rounded(row["magnitude_low"]),
                magnitude_high=_rounded(row["magnitude_high"]),
                views_lost=lost,
                at_risk=at_risk,
                lost_percent=round(100 * lost / at_risk, 1) if at_risk else 0.0,
                usual_lost_percent=None,
                skipped_percent=_percent(curve.skipped(start, end)),
                max_views_recoverable=None,
                views_to_test=None,
                confidence="low" if views < TENTATIVE_BELOW_VIEWS else "high",
                stalls=None,
                errors=None,
                segments=[],
                spike_before_id=None,
                dip_here_id=None,
                causes=[],
            )
        )
    return sorted(found, key=lambda moment: (moment.kind, -moment.magnitude, moment.start_second))


def _figures(summary: Row, rows: Rows) -> Figures:
    habits: Row = rows["habits"][0] if rows["habits"] else {}
    peers: Row = rows["peers"][0] if rows["peers"] else {}
    typical = peers.get("intro_retention_30s") if int(peers.get("videos") or 0) >= MIN_PEERS else None
    seeks = summary.get("seeks_per_view")
    return Figures(
        average_view_percent=_rounded(summary.get("average_view_percentage")),
        completion_percent=_percent(summary.get("completion_rate")),
        hook_3s_percent=_percent(summary.get("hook_retention_3s")),
        intro_30s_percent=_percent(summary.get("intro_retention_30s")),
        typical_intro_30s_percent=_percent(typical),
        rewatching_percent=_percent(summary.get("rewatch_rate")),
        faster_percent=_percent(int(habits["faster"]) / int(habits["views"])) if habits.get("views") else None,
        seeks_per_view=round(float(seeks), 2) if seeks is not None else None,
    )


def _chapter_facts(chapters: Sequence[Chapter], curve: Curve) -> list[ChapterFacts]:
    def per_minute(lost: int, exposure: int) -> float | None:
        return round(6000 * lost / exposure, 1) if exposure else None

    found = []
    for chapter in chapters:
        length = chapter.end - chapter.start
        sides = ((chapter.start - length, chapter.start), (chapter.end, chapter.end + length))
        lost, exposure = curve.lost(chapter.start, chapter.end), curve.exposure(chapter.start, chapter.end)
        around = sum(curve.lost(*side) for side in sides), sum(curve.exposure(*side) for side in sides)
        found.append(
            ChapterFacts(
                chapter=plain(chapter.title, TITLE_CHARACTERS),
                start_second=chapter.start,
                end_second=chapter.end,
                views_lost=lost,
                lost_per_minute_percent=per_minute(lost, exposure),
                around_lost_per_minute_percent=per_minute(*around),
            )
        )
    return found


def _segment_ids(rows: Sequence[Row]) -> dict[tuple[str, str], str]:
    """A name for each segment that holds nothing of what players said; the most viewed of a dimension is 1."""
    ids: dict[tuple[str, str], str] = {}
    counts: dict[str, int] = defaultdict(int)
    for row in rows:
        dimension, value = str(row["dimension"]), str(row["value"])
        if value:
            counts[dimension] += 1
            ids[dimension, value] = f"{dimension}-{counts[dimension]}"
    return ids


def _segment_facts(rows: Sequence[Row], ids: Mapping[tuple[str, str], str]) -> list[SegmentFacts]:
    """Segments that finish significantly more or less often than the video's other views."""
    totals: dict[str, list[int]] = defaultdict(lambda: [0, 0])
    counted = []
    for row in rows:
        views = int(row["views"])
        finished = round(float(row["completion_rate"] or 0) * views)
        totals[row["dimension"]][0] += finished
        totals[row["dimension"]][1] += views
        counted.append((row, finished, views))
    tested = []
    for row, finished, views in counted:
        others = totals[row["dimension"]][0] - finished, totals[row["dimension"]][1] - views
        if row["value"] and min(views, others[1]) >= SUFFICIENT_VIEWS:
            p = min(stats.two_proportions(finished, views, *others), stats.two_proportions(*others, finished, views))
            tested.append((row, finished, views, others, min(1.0, 2 * p)))
    found = []
    for (row, finished, views, others, _), q in zip(tested, stats.adjusted([test[-1] for test in tested]), strict=True):
        shares = 100 * finished / views, 100 * others[0] / others[1]
        if q <= DIFFERENCE_MAX_Q and abs(shares[0] - shares[1]) >= DIFFERENCE_POINTS:
            found.append(
                SegmentFacts(
                    segment_id=ids[str(row["dimension"]), str(row["value"])],
                    dimension=cast("Dimension", str(row["dimension"])),
                    value=plain(str(row["value"]), TITLE_CHARACTERS),
                    views=views,
                    completion_percent=round(shares[0], 1),
                    others_completion_percent=round(shares[1], 1),
                    difference_points=round(shares[0] - shares[1], 1),
                )
            )
    return sorted(found, key=lambda segment: -abs(segment.difference_points))


def _warnings(summary: Row, video: Row, quality: Sequence[Row], views: int) -> list[QualityWarning]:
    found: list[tuple[str, str]] = []
    if views < SUFFICIENT_VIEWS:
        found.append(("few_views", f"{views} views are too few to say anything about."))
    elif views < TENTATIVE_BELOW_VIEWS:
        found.append(("tentative", f"With {views} views moments are likely, not certain, and smaller ones are missed."))
    if video["duration_source"] not in ("catalogue", "reported"):
        found.append(("duration", "Nobody told how long the video is; its length is inferred from what was played."))
    names = {"implausible_sessions": "sessions are left out as played faster than any player can"}
    names["invalid_intervals"] = "played intervals are left out as impossible for this video"
    for row in quality:
        share = 100 * int(row["found"]) / int(row["out_of"]) if row["out_of"] else 0.0
        if row["figure"] in names and share >= WORRYING_PERCENT:
            found.append((str(row["figure"]), f"{round(share, 1)} % of {names[row['figure']]}."))
    return [QualityWarning(code=code, text=text) for code, text in found]


def _chapters(rows: Rows) -> list[Chapter]:
    return chapters_of(rows["video"][0], rows["video"][0]["duration_s"])


def _chapter_at(chapters: Sequence[Chapter], second: int) -> Chapter | None:
    return next((chapter for chapter in reversed(chapters) if chapter.start <= second < chapter.end), None)


def _id_of(moments: Sequence[Row], start: int, end: int) -> str | None:
    """The strongest of some moments that overlap [start, end)."""
    near = [row for row in moments if row["start_second"] < end and row["end_second"] > start]
    return str(max(near, key=lambda row: row["magnitude"])["moment_id"]) if near else None


def _views_to_test(share: float, usual: float | None) -> int | None:
    return stats.views_to_see(share, (share + usual) / 2) if usual is not None and usual < share else None


def _percent(share: float | None) -> float | None:
    return None if share is None or math.isnan(share) else round(100 * float(share), 1)


def _rounded(value: float | None) -> float | None:
    return None if value is None or math.isnan(value) else round(float(value), 1)
