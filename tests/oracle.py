"""The marts by the definitions of docs/metrics.md, computed slowly and plainly: one loop a definition, exact numbers.

Written from the definitions alone, not from the SQL. Takes contract messages as dictionaries (as ``json.loads`` gives
them) and knows neither ClickHouse nor dbt. Ratios are fractions, so a comparison needs only the tolerance of a float.
"""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cache
from typing import Any

import numpy as np
from scipy import special, stats

from retention_platform.contract import parse_time

Message = Mapping[str, Any]
Row = dict[str, Any]


@dataclass
class Marts:
    """Rows of each mart by their key: video_id, or (video_id, second)."""

    videos: dict[str, Row] = field(default_factory=dict)
    retention_curve: dict[tuple[str, int], Row] = field(default_factory=dict)
    engagement_summary: dict[str, Row] = field(default_factory=dict)
    dropoff_points: dict[tuple[str, int], Row] = field(default_factory=dict)


@dataclass
class Played:
    """One valid interval, clipped to the video: content milliseconds, and when it was reported."""

    at_ms: int
    start: int
    end: int
    rate: Fraction


@dataclass
class View:
    """One session judged by its video's duration."""

    viewer_id: str
    first_ms: int
    last_ms: int
    seeks: int
    invalid: int
    played: list[Played]

    @property
    def content_played_ms(self) -> int:
        return sum(p.end - p.start for p in self.played)

    @property
    def implausible(self) -> bool:
        return bool(self.played) and self.content_played_ms > (self.last_ms - self.first_ms) * 16 + 30_000

    @property
    def counts(self) -> bool:
        return bool(self.played) and not self.implausible

    @property
    def content_watched_ms(self) -> int:
        total, reached = 0, -1
        for p in sorted(self.played, key=lambda p: p.start):
            total += max(0, p.end - max(p.start, reached))
            reached = max(reached, p.end)
        return total

    @property
    def watch_time_s(self) -> Fraction:
        return sum((Fraction(p.end - p.start, 1000) / p.rate for p in self.played), Fraction(0))

    @property
    def exit_second(self) -> int:
        return math.ceil(Fraction(self.played[-1].end, 1000)) - 1

    @property
    def entered_second(self) -> int:
        return min(p.start for p in self.played) // 1000

    @property
    def furthest_ms(self) -> int:
        return max(p.end for p in self.played)

    def instants(self, step_ms: int = 10_000) -> set[int]:
        """The wall-clock instants of the grid at which this view was being played."""
        found = set()
        for p in self.played:
            length = (p.end - p.start) / p.rate
            tick = math.ceil((p.at_ms - length) / step_ms)
            while tick * step_ms < p.at_ms:
                found.add(tick)
                tick += 1
        return found


def epoch_ms(value: object) -> int:
    """Epoch milliseconds of a contract time."""
    return round(parse_time(value).timestamp() * 1000)


def distinct(events: Iterable[Message]) -> list[Message]:
    """What was sent twice counts once: same session, time and event_id."""
    seen = {(e["video_id"], e["session_id"], epoch_ms(e["event_time"]), e["event_id"].lower()): e for e in events}
    return list(seen.values())


def newest(videos: Iterable[Message]) -> dict[str, Message]:
    """The description that wins of each video: newest, then the greater content."""

    def rank(video: Message) -> tuple[Any, ...]:
        chapters = sorted((c["start_ms"], c["title"]) for c in video.get("chapters") or [])
        published = video.get("published_at")
        return (
            epoch_ms(video["updated_at"]),
            video["title"],
            video.get("duration_ms") or 0,
            video.get("category") or "",
            epoch_ms(published) if published else 0,
            chapters,
        )

    found: dict[str, Message] = {}
    for video in videos:
        known = found.get(video["video_id"])
        if known is None or rank(video) > rank(known):
            found[video["video_id"]] = video
    return found


def duration_of(video: Message | None, sessions: Mapping[str, list[Message]]) -> tuple[int | None, str]:
    """D in ms and where it comes from."""
    if video and video.get("duration_ms"):
        return video["duration_ms"], "catalogue"
    reported = [e["duration_ms"] for events in sessions.values() for e in events if e.get("duration_ms")]
    if reported:
        return max(reported), "reported"
    inferred = 0
    for events in sessions.values():
        ends = [e["played_to_ms"] for e in events if has_interval(e) and 0 <= e["played_from_ms"] < e["played_to_ms"]]
        inferred = max(inferred, min(max(ends, default=0), max(e["position_ms"] for e in events)))
    return (inferred, "inferred") if inferred else (None, "unknown")


def has_interval(event: Message) -> bool:
    return event.get("played_from_ms") is not None and event.get("played_to_ms") is not None


def view_of(events: list[Message], duration_ms: int | None) -> View:
    """One session's events under a duration."""
    reports = sorted(
        (e for e in events if has_interval(e)),
        key=lambda e: (epoch_ms(e["event_time"]), e["played_to_ms"], e["played_from_ms"], rate_of(e)),
    )
    played, invalid = [], 0
    for e in reports:
        start, end = e["played_from_ms"], e["played_to_ms"]
        if duration_ms is not None and 0 <= start < end and start < duration_ms and end <= duration_ms + 1000:
            played.append(Played(epoch_ms(e["event_time"]), start, min(end, duration_ms), rate_of(e)))
        else:
            invalid += 1
    times = [epoch_ms(e["event_time"]) for e in events]
    first = min(events, key=lambda e: (epoch_ms(e["event_time"]), e["event_id"].lower()))
    seeks = sum(e["event_type"] == "seek" for e in events)
    return View(first["viewer_id"], min(times), max(times), seeks, invalid, played)


def rate_of(event: Message) -> Fraction:
    """The rate that was meant: 1.1 is eleven tenths, not the nearest double."""
    return Fraction(str(event.get("playback_rate") or 1))


def marts(events: Iterable[Message], videos: Iterable[Message] = ()) -> Marts:
    """All marts of these messages, in whatever order and however often they come."""
    result = Marts()
    for video_id, video, duration_ms, source, views in judged(events, videos):
        result.videos[video_id] = _video_row(video, duration_ms, source)
        its_curve = curve([v for v in views if v.counts], duration_ms)
        for second, row in enumerate(its_curve):
            result.retention_curve[video_id, second] = row
        result.engagement_summary[video_id] = _summary(views, duration_ms, its_curve)
        for row in _dropoffs([v for v in views if v.counts], duration_ms, (video or {}).get("chapters") or []):
            result.dropoff_points[video_id, row["start_second"]] = row
    return result


def dropoffs(events: Iterable[Message], videos: Iterable[Message] = ()) -> dict[tuple[str, int], Row]:
    """The drops alone of these messages, by video_id and start_second."""
    found = {}
    for video_id, video, duration_ms, _, views in judged(events, videos):
        for row in _dropoffs([v for v in views if v.counts], duration_ms, (video or {}).get("chapters") or []):
            found[video_id, row["start_second"]] = row
    return found


def judged(
    events: Iterable[Message], videos: Iterable[Message]
) -> Iterator[tuple[str, Message | None, int | None, str, list[View]]]:
    """Of each video: id, what the catalogue says, D in ms and where it comes from, and all sessions."""
    sessions: dict[str, dict[str, list[Message]]] = defaultdict(lambda: defaultdict(list))
    for event in distinct(events):
        sessions[event["video_id"]][event["session_id"]].append(event)
    catalogue = newest(videos)
    for video_id in {*sessions, *catalogue}:
        video = catalogue.get(video_id)
        duration_ms, source = duration_of(video, sessions[video_id])
        views = [view_of(es, duration_ms) for es in sessions[video_id].values()]
        yield video_id, video, duration_ms, source, views


def _video_row(video: Message | None, duration_ms: int | None, source: str) -> Row:
    described = video or {}
    chapters = sorted((c["start_ms"], c["title"]) for c in described.get("chapters") or [])
    return {
        "title": described.get("title"),
        "category": described.get("category") or None,
        "chapters": json.dumps(chapters),
        "duration_ms": duration_ms,
        "duration_s": None if duration_ms is None else Fraction(duration_ms, 1000),
        "duration_source": source,
    }


def _ratio(part: int, whole: int) -> Fraction | None:
    return Fraction(part, whole) if whole else None


@cache
def _wilson(successes: int, trials: int) -> tuple[float, float]:
    interval = stats.binomtest(successes, trials).proportion_ci(confidence_level=0.95, method="wilson")
    return interval.low, interval.high


def curve(views: list[View], duration_ms: int | None) -> list[Row]:
    """A row a second of the curve of these views; none without views."""
    if not views or duration_ms is None:
        return []
    seconds = math.ceil(Fraction(duration_ms, 1000))
    plays = [0] * seconds
    watching: list[set[int]] = [set() for _ in range(seconds)]
    for number, view in enumerate(views):
        for p in view.played:
            for s in range(p.start // 1000, min(seconds, p.end // 1000 + 1)):
                if p.start <= 1000 * s < p.end:
                    plays[s] += 1
                    watching[s].add(number)
    total, rows = len(views), []
    furthest = [v.furthest_ms for v in views]
    stays = [(v.entered_second, v.exit_second) for v in views]
    for s in range(seconds):
        reached = sum(position > 1000 * s for position in furthest)
        at_risk = sum(entered <= s <= left for entered, left in stays)
        stopped = sum(left == s for _, left in stays)
        seen = len(watching[s])
        again, hazard, here = _ratio(plays[s], seen), _ratio(stopped, at_risk), _ratio(seen, reached)
        low, high = _wilson(seen, total)
        rows.append(
            {
                "views": total,
                "watching_views": seen,
                "segment_plays": plays[s],
                "retention_rate": Fraction(seen, total),
                "audience_watch_ratio": Fraction(plays[s], total),
                "reach_ratio": Fraction(reached, total),
                "rewatch_ratio": None if again is None else again - 1,
                "skip_rate": None if here is None else 1 - here,
                "started_watching": sum(v.played[0].start // 1000 == s for v in views),
                "stopped_watching": stopped,
                "at_risk": at_risk,
                "exit_hazard": hazard,
                "ci_low": low,
                "ci_high": high,
            }
        )
    return rows


def betabinom_tail(hits: int, trials: int, a: float, b: float) -> float:
    """P(X >= hits), summed term by term: scipy's own sf is 1 - cdf, which is noise below about 1e-9."""
    return float(np.exp(special.logsumexp(stats.betabinom.logpmf(np.arange(hits, trials + 1), trials, a, b))))


def _completion_point(duration_ms: int) -> Fraction:
    """In milliseconds: 30 s before the end, or 95 %, whichever is later."""
    return max(Fraction(duration_ms - 30_000), Fraction(duration_ms * 95, 100))


def _summary(sessions: list[View], duration_ms: int | None, curve: list[Row]) -> Row:
    views = [v for v in sessions if v.counts]
    total = len(views)
    instants: dict[int, int] = defaultdict(int)
    for view in views:
        for tick in view.instants():
            instants[tick] += 1
    watch_time = sum((v.watch_time_s for v in views), Fraction(0))
    watched = sum(v.content_watched_ms for v in views)
    completed = sum(v.furthest_ms > _completion_point(duration_ms or 0) for v in views)
    return {
        "views": total,
        "unique_viewers": len({v.viewer_id for v in views}),
        "engaged_views": sum(v.content_watched_ms >= 3000 for v in views),
        "watch_time_s": watch_time,
        "content_played_s": Fraction(sum(v.content_played_ms for v in views), 1000),
        "content_watched_s": Fraction(watched, 1000),
        "average_view_duration_s": watch_time / total if total else None,
        "average_view_percentage": 100 * Fraction(watched, total * (duration_ms or 1)) if total else None,
        "completion_rate": _ratio(completed, total),
        "hook_retention_3s": curve[3]["retention_rate"] if len(curve) > 3 else None,
        "intro_retention_30s": curve[30]["retention_rate"] if len(curve) > 30 else None,
        "rewatch_rate": _ratio(sum(v.content_played_ms > v.content_watched_ms for v in views), total),
        "seeks_per_view": _ratio(sum(v.seeks for v in views), total),
        "peak_concurrent_viewers": max(instants.values(), default=0),
        "first_event_at": min((v.first_ms for v in sessions), default=None),
        "last_event_at": max((v.last_ms for v in sessions), default=None),
        "is_sufficient": total >= 30,
        "sessions": len(sessions),
        "implausible_sessions": sum(v.implausible for v in sessions),
        "invalid_intervals": sum(v.invalid for v in sessions),
    }


def _dropoffs(views: list[View], duration_ms: int | None, chapters: list[Message]) -> list[Row]:
    total = len(views)
    if total < 100 or duration_ms is None:
        return []
    seconds = math.ceil(Fraction(duration_ms, 1000))
    buckets = min(100, seconds)
    members: list[list[int]] = [[] for _ in range(buckets)]
    for s in range(seconds):
        members[s * buckets // seconds].append(s)
    stays = [(v.entered_second, v.exit_second) for v in views]
    lost = [sum(m[0] <= left <= m[-1] for _, left in stays) for m in members]
    risk = [sum(entered <= m[-1] and left >= m[0] for entered, left in stays) for m in members]
    tested = [b for b in range(5, buckets - 5) if (members[b][-1] + 1) * 1000 <= _completion_point(duration_ms)]
    rows, p_values = [], []
    for b in tested:
        around = [i for i in range(max(0, b - 7), min(buckets, b + 8)) if i != b]
        around.remove(max(around, key=lambda i: (Fraction(lost[i], risk[i]) if risk[i] else Fraction(0), -i)))
        d0, n0 = sum(lost[i] for i in around), sum(risk[i] for i in around)
        d, n = lost[b], risk[b]
        h0 = (d0 + 0.5) / (n0 + 1)
        p_values.append(betabinom_tail(d, n, d0 + 0.5, n0 - d0 + 0.5) if d > n * h0 else 1.0)
        points = 100 * (d - n * h0) / total
        start = members[b][0]
        titles = [
            c["title"]
            for c in sorted(chapters, key=lambda c: (c["start_ms"], c["title"]))
            if c["start_ms"] <= start * 1000
        ]
        rows.append(
            {
                "start_second": start,
                "end_second": members[b][-1] + 1,
                "severity": "high" if points >= 10 else "medium" if points >= 5 else "low",
                "views_lost": d,
                "expected_views_lost": n * h0,
                "excess_points": points,
                "at_risk": n,
                "hazard": d / n if n else None,
                "baseline_hazard": h0,
                "p_value": p_values[-1],
                "chapter": titles[-1] if titles else None,
                "tentative": total < 300,
            }
        )
    if not rows:
        return []
    for row, q in zip(rows, stats.false_discovery_control(p_values), strict=True):
        row["q_value"] = float(q)
    return [r for r in rows if r["q_value"] <= 0.05 and r["at_risk"] >= 30 and r["excess_points"] >= 2]
