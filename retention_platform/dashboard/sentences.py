"""The API's answers in words. Pure; what is for Streamlit's Markdown has others' text escaped in it.

Figures are put as `retention_platform.report.words` puts them, so that they look the same in reports.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple

from retention_platform.api.models.base import Chosen, OneVideo
from retention_platform.api.models.curves import CurvePoint
from retention_platform.api.models.moments import Dropoff, KeyMoment
from retention_platform.api.models.overview import Typical
from retention_platform.api.models.service import Health
from retention_platform.api.models.videos import EngagementSummary
from retention_platform.dashboard.address import DIMENSIONS
from retention_platform.report.untrusted import markdown, plain
from retention_platform.report.words import NOTHING, count, length, plural, position

#: Seconds of stored events that the marts may be behind before anybody is told.
STALE_SECONDS = 15 * 60
#: Digits on marks and in lists, so that one finds the other.
_CIRCLED = "①②③④⑤⑥⑦⑧⑨⑩⑪⑫⑬⑭⑮⑯⑰⑱⑲⑳"


class Marked(NamedTuple):
    """A stretch of the video worth knowing, with its number in the picture and its sentence (Markdown)."""

    number: int
    kind: str
    start_second: int
    end_second: int
    sentence: str
    tentative: bool

    @property
    def sign(self) -> str:
        """The number as one character, or in brackets when there is none for it."""
        return _CIRCLED[self.number - 1] if self.number <= len(_CIRCLED) else f"({self.number})"


class Figure(NamedTuple):
    """One headline figure: its name, value, what is typical, how it compares, and what it means."""

    name: str
    value: str
    typical: str | None
    difference: str | None
    meaning: str


def title(video_id: str, known: str | None) -> str:
    """What a video is called, in plain text: its title, or its id where the catalogue does not know it."""
    return plain(known or video_id, 120)


def percent(share: float | None, digits: int = 0) -> str:
    """A share of 0 to 1 as a percentage, or that there is nothing to say."""
    return NOTHING if share is None else f"{100 * share:.{digits}f} %"


def hover(point: CurvePoint, views: int) -> str:
    """What the pointer says at a second: ``0:42 · 812 of 1,000 viewers (81 %, ±2.4)``; the last in points."""
    half = 50 * (point.ci_high - point.ci_low)
    return (
        f"{position(point.second)} · {point.watching_views:,} of {plural(views, 'viewer')} "
        f"({percent(point.retention_rate)}, ±{half:.1f})"
    )


def dropoff(row: Dropoff) -> str:
    """A dropoff, told (Markdown)."""
    share = row.views_lost / row.at_risk if row.at_risk else 0
    return (
        f"**{_stretch(row.start_second, row.end_second)}**{_in(row.chapter)}: {plural(row.views_lost, 'view')} end "
        f"here ({percent(share)} of those watching), where about {count(row.expected_views_lost)} would be usual. "
        f"That costs {row.excess_points:.1f} % of all views."
    )


def moment(row: KeyMoment) -> str:
    """A key moment, told (Markdown)."""
    begin = f"**{_stretch(row.start_second, row.end_second)}**{_in(row.chapter)}: "
    peak = f", most at {position(row.peak_second)}" if row.peak_second is not None else ""
    if row.kind == "intro":
        at_30 = f"; {percent(row.level)} are still watching at 0:30" if row.level is not None else ""
        return f"{begin}the beginning loses {row.magnitude:.0f} % of all views{at_30}."
    if row.kind == "outro":
        end = f"; {percent(row.level)} see the end" if row.level is not None else ""
        return f"{begin}{row.magnitude:.0f} % of all views end in the outro{end}."
    if row.kind == "spike":
        return f"{begin}watched again{peak}: {row.magnitude:.0f} points more rewatching than around it."
    if row.kind == "dip":
        return f"{begin}skipped{peak}: {row.magnitude:.0f} points more skipping than around it."
    return f"{begin}holds viewers best: {row.magnitude:.1f} % of all views more stay than at the usual rate."


def marked(dropoffs: Sequence[Dropoff], moments: Sequence[KeyMoment]) -> list[Marked]:
    """Dropoffs and moments together in the order of the video, numbered."""
    found = [(d.start_second, d.end_second, "dropoff", dropoff(d), d.tentative) for d in dropoffs]
    found += [(m.start_second, m.end_second, str(m.kind), moment(m), m.tentative) for m in moments]
    found.sort(key=lambda row: (row[0], row[1], row[2]))
    return [
        Marked(number, kind, start, end, sentence, tentative)
        for number, (start, end, kind, sentence, tentative) in enumerate(found, start=1)
    ]


def figures(summary: EngagementSummary, typical: Typical | None) -> list[Figure]:
    """The headline figures with what is typical for videos of this length."""

    def ratio(name: str, key: str, meaning: str) -> Figure:
        value, usual = getattr(summary, key), getattr(typical, key, None)
        return _figure(name, value, usual, meaning, scale=1 if key == "average_view_percentage" else 100)

    duration, usual = summary.average_view_duration_s, typical.average_view_duration_s if typical else None
    return [
        Figure("Views", count(summary.views), None, None, f"{plural(summary.unique_viewers, 'different viewer')}"),
        ratio("Average percentage viewed", "average_view_percentage", "how much of the video the average view saw"),
        Figure(
            "Average view duration",
            NOTHING if duration is None else position(duration),
            None if usual is None else position(usual),
            None if duration is None or usual is None else _signed_position(duration - usual),
            "wall time watched, divided by views",
        ),
        ratio("Completion", "completion_rate", "share of views that came to the end"),
        ratio("Still watching at 0:03", "hook_retention_3s", "share of views: whether the first seconds hook"),
        ratio("Still watching at 0:30", "intro_retention_30s", "share of views: whether the intro holds"),
        ratio("Rewatching", "rewatch_rate", "share of views that played any instant twice"),
        Figure(
            "Watch time", length(summary.watch_time_s), None, None, "wall time of all views together, rewatches counted"
        ),
    ]


def change(now: int, before: int) -> str:
    """How a week's views changed: ``+12 %``, ``new``, or nothing to say."""
    if before == 0:
        return "new" if now else NOTHING
    difference = round(100 * (now - before) / before)
    return f"{difference:+d} %" if difference else "±0 %"


def points(now: float | None, before: float | None) -> str:
    """How a percentage changed, in points."""
    return NOTHING if now is None or before is None else _signed(now - before, "")


def chosen(what: Chosen) -> str:
    """Which views are shown (plain text)."""
    parts = []
    if what.first_day or what.last_day:
        parts.append(f"{what.first_day or 'the beginning'} to {what.last_day or 'now'}")
    for dimension, name in DIMENSIONS.items():
        values = getattr(what, dimension)
        if values:
            parts.append(f"{name.lower()}: {', '.join(segment_name(value) for value in values)}")
    return "; ".join(parts) or "all views"


def segment_name(value: str) -> str:
    """A segment's value in plain text; players may have told none."""
    return plain(value, 40) or "not told"


def small_sample(video: OneVideo) -> str | None:
    """What so few views cannot tell; None when there are enough."""
    views = plural(video.views, "view")
    return {
        "insufficient": f"Only {views}: the curve is mostly chance. From 30 views on its band is worth reading.",
        "curve_only": f"{views}: the curve and its band can be read; dropoffs and moments are looked for from 100 on.",
        "tentative": f"{views}: dropoffs and moments are likely, not certain; from 300 views on they are firm.",
    }.get(video.sufficiency)


def ago(moment: datetime, now: datetime) -> str:
    """How long ago: ``12 s ago``, ``5 min ago``, ``2 h ago``, ``4 days ago``."""
    seconds = max(0, int((now - moment).total_seconds()))
    for size, unit in ((86_400, " days"), (3_600, " h"), (60, " min")):
        if seconds >= 2 * size:
            return f"{seconds // size}{unit} ago"
    return f"{seconds} s ago"


def freshness(health: Health) -> tuple[str, bool]:
    """How fresh the figures are, and whether somebody should do something about it."""
    fresh = health.freshness
    if fresh.marts_computed_at is None:
        if health.dependencies.clickhouse.status != "up":
            return "The warehouse is away: nothing can be shown until it is back.", True
        return "The figures were never computed: run `retention refresh`, or start the marts in Dagster.", True
    computed = ago(fresh.marts_computed_at, health.checked_at)
    behind = fresh.marts_lag_s or 0
    if behind > STALE_SECONDS:
        return (
            f"The figures are {length(behind)} behind the events that are stored, computed {computed}: "
            "see Pipeline for the last runs, or run `retention refresh`."
        ), True
    return f"Figures computed {computed}", False


def _figure(name: str, value: float | None, usual: float | None, meaning: str, *, scale: int) -> Figure:
    return Figure(
        name,
        NOTHING if value is None else f"{scale * value:.1f} %",
        None if usual is None else f"{scale * usual:.1f} %",
        None if value is None or usual is None else _signed(scale * (value - usual), " points"),
        meaning,
    )


def _signed(value: float, unit: str) -> str:
    # A hyphen and not the sign for minus: Streamlit tells by it which way an arrow points.
    return f"{value:+.1f}{unit}"


def _signed_position(seconds: float) -> str:
    return f"{'-' if seconds < 0 else '+'}{position(abs(seconds))}"


def _stretch(start: int, end: int) -> str:
    return f"{position(start)} to {position(end)}"


def _in(chapter: str | None) -> str:
    return f" in {markdown(chapter, 60)}" if chapter else ""
