"""Who watched when, by day, by segment, and how well against others: the definitions of docs/metrics.md done plainly.

Sections 2 to 4, 7 and 9. Written from the definitions alone, not from the SQL; what one session is comes from
`oracle`. Ratios are fractions, times epoch milliseconds.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta, timezone
from fractions import Fraction
from typing import Any

from tests.oracle import (
    Message,
    Row,
    View,
    distinct,
    duration_of,
    epoch_ms,
    newest,
    view_of,
)

ATTRIBUTES = ("device_type", "os", "browser", "country", "traffic_source", "player")
GRID_MS = 10_000


@dataclass
class Session:
    """One session: its events in order of time, and what its video's duration makes of them."""

    video_id: str
    session_id: str
    duration_ms: int | None
    events: list[Message]
    view: View
    viewer_type: str | None = None

    def said(self, attribute: str) -> str:
        """What the earliest event that says anything of it says."""
        return next((event[attribute] for event in self.events if event.get(attribute)), "")

    @property
    def day(self) -> date:
        return day_of(self.view.first_ms)

    @property
    def intervals(self) -> int:
        return sum(e.get("played_from_ms") is not None and e.get("played_to_ms") is not None for e in self.events)

    @property
    def completed(self) -> bool:
        assert self.duration_ms is not None
        return self.view.furthest_ms > max(Fraction(self.duration_ms - 30_000), Fraction(self.duration_ms * 95, 100))

    @property
    def rewatched(self) -> bool:
        """Any two of its intervals share an instant."""
        played = self.view.played
        return any(a.start < b.end and b.start < a.end for n, a in enumerate(played) for b in played[:n])

    def watches(self, second: int) -> bool:
        return any(p.start <= 1000 * second < p.end for p in self.view.played)


def day_of(at_ms: int) -> date:
    """The UTC day of an instant."""
    return (datetime(1970, 1, 1, tzinfo=timezone.utc) + timedelta(milliseconds=at_ms)).date()


def sessions(events: Iterable[Message], videos: Iterable[Message] = ()) -> list[Session]:
    """Every session of these messages, judged."""
    grouped: dict[str, dict[str, list[Message]]] = defaultdict(lambda: defaultdict(list))
    for event in distinct(events):
        grouped[event["video_id"]][event["session_id"]].append(event)
    catalogue = newest(videos)
    found = []
    for video_id, its_sessions in grouped.items():
        duration_ms, _ = duration_of(catalogue.get(video_id), its_sessions)
        for session_id, its_events in its_sessions.items():
            ordered = sorted(its_events, key=lambda e: (epoch_ms(e["event_time"]), uuid_order(e["event_id"])))
            view = view_of(its_events, duration_ms)
            found.append(Session(video_id, session_id, duration_ms, ordered, view))
    met: set[str] = set()
    for session in sorted(found, key=lambda s: (s.view.first_ms, s.video_id, s.session_id)):
        if session.view.counts:
            session.viewer_type = "returning" if session.view.viewer_id in met else "new"
            met.add(session.view.viewer_id)
    return found


def uuid_order(text: str) -> tuple[str, str]:
    """ClickHouse orders UUIDs by their second half first."""
    digits = text.lower().replace("-", "")
    return digits[16:], digits[:16]


def session_rows(found: Iterable[Session]) -> dict[tuple[str, str], Row]:
    """marts.sessions by (video_id, session_id)."""
    rows = {}
    for s in found:
        view, counts, played = s.view, s.view.counts, bool(s.view.played)
        rows[s.video_id, s.session_id] = {
            "day": s.day,
            "viewer_id": view.viewer_id,
            "viewer_type": s.viewer_type,
            **{attribute: s.said(attribute) for attribute in ATTRIBUTES},
            "is_live": any(e.get("is_live") for e in s.events),
            "first_event_at": view.first_ms,
            "last_event_at": view.last_ms,
            "is_view": counts,
            "is_implausible": view.implausible,
            "is_engaged": counts and view.content_watched_ms >= 3000,
            "is_completed": counts and s.completed,
            "is_rewatched": counts and s.rewatched,
            "is_watching_at_3s": counts and s.watches(3),
            "is_watching_at_30s": counts and s.watches(30),
            "duration_s": None if s.duration_ms is None else Fraction(s.duration_ms, 1000),
            "watch_time_s": view.watch_time_s,
            "content_played_s": Fraction(view.content_played_ms, 1000),
            "content_watched_s": Fraction(view.content_watched_ms, 1000),
            "percentage_watched": None
            if s.duration_ms is None
            else Fraction(100 * view.content_watched_ms, s.duration_ms),
            "started_second": view.played[0].start // 1000 if played else None,
            "entered_second": view.entered_second if played else None,
            "exit_second": view.exit_second if played else None,
            "furthest_s": Fraction(view.furthest_ms, 1000) if played else None,
            "seeks": view.seeks,
            "events": len(s.events),
            "intervals": s.intervals,
            "invalid_intervals": view.invalid,
        }
    return rows


def engagement(found: Sequence[Session]) -> Row:
    """The figures of section 4 over some sessions of one video."""
    views = [s for s in found if s.view.counts]
    total = len(views)

    def share(of: Iterable[bool]) -> Fraction | None:
        return Fraction(sum(of), total) if total else None

    def retention_at(second: int) -> Fraction | None:
        too_short = not views or (views[0].duration_ms or 0) <= 1000 * second
        return None if too_short else share(s.watches(second) for s in views)

    viewers_at: dict[int, int] = defaultdict(int)
    for session in views:
        for tick in session.view.instants(GRID_MS):
            viewers_at[tick] += 1
    watch_time = sum((s.view.watch_time_s for s in views), Fraction(0))
    return {
        "views": total,
        "unique_viewers": len({s.view.viewer_id for s in views}),
        "engaged_views": sum(s.view.content_watched_ms >= 3000 for s in views),
        "watch_time_s": watch_time,
        "content_played_s": Fraction(sum(s.view.content_played_ms for s in views), 1000),
        "content_watched_s": Fraction(sum(s.view.content_watched_ms for s in views), 1000),
        "average_view_duration_s": watch_time / total if total else None,
        "average_view_percentage": sum(
            (Fraction(100 * s.view.content_watched_ms, s.duration_ms or 1) for s in views), Fraction(0)
        )
        / total
        if total
        else None,
        "completion_rate": share(s.completed for s in views),
        "hook_retention_3s": retention_at(3),
        "intro_retention_30s": retention_at(30),
        "rewatch_rate": share(s.rewatched for s in views),
        "seeks_per_view": Fraction(sum(s.view.seeks for s in views), total) if total else None,
        "peak_concurrent_viewers": max(viewers_at.values(), default=0),
        "is_sufficient": total >= 30,
    }


def quality(found: Sequence[Session]) -> Row:
    """The data-quality columns of a summary."""
    return {
        "first_event_at": min(s.view.first_ms for s in found),
        "last_event_at": max(s.view.last_ms for s in found),
        "sessions": len(found),
        "implausible_sessions": sum(s.view.implausible for s in found),
        "intervals": sum(s.intervals for s in found),
        "invalid_intervals": sum(s.view.invalid for s in found),
    }


def summaries(found: Sequence[Session]) -> dict[str, Row]:
    """marts.engagement_summary of the videos with sessions, by video_id."""
    by_video: dict[str, list[Session]] = defaultdict(list)
    for session in found:
        by_video[session.video_id].append(session)
    viewers = concurrency(found)
    rows = {}
    for video_id, its in by_video.items():
        watched = {tick: number for (video, tick), number in viewers.items() if video == video_id}
        span = max(watched) - min(watched) + 1 if watched else 0
        average = Fraction(sum(watched.values()), span) if watched else None
        rows[video_id] = engagement(its) | quality(its) | {"average_concurrent_viewers": average}
    return rows


def daily(found: Iterable[Session]) -> dict[tuple[str, date], Row]:
    """marts.engagement_daily by (video_id, day)."""
    days: dict[tuple[str, date], list[Session]] = defaultdict(list)
    for session in found:
        days[session.video_id, session.day].append(session)
    return {key: engagement(its) | quality(its) for key, its in days.items()}


def segments(found: Iterable[Session]) -> dict[tuple[str, str, str], Row]:
    """marts.engagement_by_segment by (video_id, dimension, value)."""
    split: dict[tuple[str, str, str], list[Session]] = defaultdict(list)
    views: dict[str, int] = defaultdict(int)
    for session in found:
        if session.view.counts:
            views[session.video_id] += 1
            for dimension in ("device_type", "country", "traffic_source"):
                split[session.video_id, dimension, session.said(dimension)].append(session)
            split[session.video_id, "viewer_type", str(session.viewer_type)].append(session)
    return {key: engagement(its) | {"share_of_views": Fraction(len(its), views[key[0]])} for key, its in split.items()}


def concurrency(found: Iterable[Session]) -> dict[tuple[str, int], int]:
    """Viewers by (video_id, instant of the grid)."""
    viewers: dict[tuple[str, int], int] = defaultdict(int)
    for session in found:
        if session.view.counts:
            for tick in session.view.instants(GRID_MS):
                viewers[session.video_id, tick] += 1
    return viewers


def concurrent_viewers(found: Iterable[Session]) -> dict[tuple[str, int], Row]:
    """marts.concurrent_viewers by (video_id, at in epoch seconds)."""
    return {
        (video_id, tick * 10): {"day": day_of(tick * GRID_MS), "concurrent_viewers": viewers}
        for (video_id, tick), viewers in concurrency(found).items()
    }


def concurrent_viewers_total(found: Iterable[Session]) -> dict[int, Row]:
    """marts.concurrent_viewers_total by at in epoch seconds."""
    viewers: dict[int, int] = defaultdict(int)
    for (_, tick), number in concurrency(found).items():
        viewers[tick * 10] += number
    return {at: {"day": day_of(at * 1000), "concurrent_viewers": number} for at, number in viewers.items()}


def watched_data_quality(found: Iterable[Session]) -> dict[tuple[str, date, str], Row]:
    """The figures of marts.data_quality that sessions tell, by (figure, day, video_id)."""
    rows: dict[tuple[str, date, str], Row] = {}
    for (video_id, day), row in daily(found).items():
        rows["implausible_sessions", day, video_id] = {"found": row["implausible_sessions"], "out_of": row["sessions"]}
        rows["invalid_intervals", day, video_id] = {"found": row["invalid_intervals"], "out_of": row["intervals"]}
    return rows


def relative_performance(
    curves: Mapping[str, Sequence[int]], durations_ms: Mapping[str, int]
) -> dict[str, list[Fraction | None]]:
    """At each second of each curve of watching views: the mid-rank among peers, None with fewer than ten of them."""
    survival = {
        video: [Fraction(now, curve[max(0, s - 10)]) if curve[max(0, s - 10)] else None for s, now in enumerate(curve)]
        for video, curve in curves.items()
    }
    result = {}
    for video, own in survival.items():
        length = durations_ms[video]
        peers = [p for v, p in survival.items() if v != video and 4 * abs(durations_ms[v] - length) <= length]
        ranks: list[Fraction | None] = []
        for second, value in enumerate(own):
            others = [p[second] for p in peers if second < len(p) and p[second] is not None]
            if value is None or len(others) < 10:
                ranks.append(None)
            else:
                halves = sum(2 * (o < value) + (o == value) for o in others if o is not None)
                ranks.append(Fraction(halves, 2 * len(others)))
        result[video] = ranks
    return result


def seconds_of(duration_ms: int) -> int:
    """The instants a curve is sampled at: 0 to ceil(D) - 1."""
    return math.ceil(Fraction(duration_ms, 1000))


def watching(found: Iterable[Session]) -> dict[str, list[int]]:
    """watching_views at each second, of every video with views."""
    curves: dict[str, list[int]] = {}
    for session in found:
        if session.view.counts and session.duration_ms is not None:
            curve = curves.setdefault(session.video_id, [0] * seconds_of(session.duration_ms))
            covered: set[int] = set()
            for p in session.view.played:
                covered.update(range(-(-p.start // 1000), -(-p.end // 1000)))
            for second in covered:
                curve[second] += 1
    return curves


def durations(found: Iterable[Session]) -> dict[str, int]:
    """D in milliseconds of every video with sessions that has one."""
    return {s.video_id: s.duration_ms for s in found if s.duration_ms is not None}


def expected(events: Sequence[Message], videos: Sequence[Message] = ()) -> dict[str, dict[Any, Row]]:
    """Every mart of this module by name."""
    found = sessions(events, videos)
    return {
        "sessions": session_rows(found),
        "engagement_summary": summaries(found),
        "engagement_daily": daily(found),
        "engagement_by_segment": segments(found),
        "concurrent_viewers": concurrent_viewers(found),
        "concurrent_viewers_total": concurrent_viewers_total(found),
        "data_quality": watched_data_quality(found),
    }
