"""The curve as lines and as signs: which points are drawn, the SVG, and a picture of plain text. Pure.

The SVG is made by hand: it is a dozen shapes, and a library that draws charts weighs more than the rest of the report.
Nothing is smoothed. A curve with more seconds than the picture has room for keeps the lowest and the highest of each
stretch, so no drop and no peak is lost.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

from retention_platform.report.model import Bars, Curve
from retention_platform.report.untrusted import markup, plain
from retention_platform.report.words import position, share

WIDTH, HEIGHT = 860, 380
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 16, 58, 34
_PLOT_WIDTH, _PLOT_HEIGHT = WIDTH - _LEFT - _RIGHT, HEIGHT - _TOP - _BOTTOM
#: Points of a line in the SVG at most; a few a pixel.
SVG_POINTS = 1600

TEXT_WIDTH, TEXT_HEIGHT = 72, 8
_EIGHTHS = " ▁▂▃▄▅▆▇█"

COLOURS = {
    "retention": "#1f5fbf",
    "band": "#9dbce8",
    "watched": "#7a7a7a",
    "dropoff": "#c8321f",
    "spike": "#b8860b",
    "dip": "#7b4fa3",
    "top_moment": "#2e8b57",
}
_MARK_NAMES = {"dropoff": "dropoff", "spike": "rewatched", "dip": "skipped", "top_moment": "top moment"}
_TICKS = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 28800, 86400)


def ticks(duration_s: float, at_most: int = 10) -> list[int]:
    """Round seconds to write under the curve."""
    step = next((tick for tick in _TICKS if duration_s / tick <= at_most), _TICKS[-1])
    return list(range(0, math.floor(duration_s) + 1, step))


def thinned(points: Sequence[dict[str, Any]], column: str, at_most: int) -> list[dict[str, Any]]:
    """At most so many rows, in their order, with the lowest and the highest of ``column`` in each stretch."""
    if len(points) <= at_most:
        return list(points)
    stretches = max(1, at_most // 2)
    kept: list[dict[str, Any]] = []
    for number in range(stretches):
        stretch = points[number * len(points) // stretches : (number + 1) * len(points) // stretches]
        low, high = min(stretch, key=lambda p: p[column]), max(stretch, key=lambda p: p[column])
        kept += sorted({id(p): p for p in (low, high)}.values(), key=lambda p: p["second"])
    return kept


def text_chart(curve: Curve) -> str:
    """The retention rate as signs of plain text: a column is a stretch of the video, its height the stretch's mean."""
    rates = [point["retention_rate"] for point in curve.points]
    columns = min(TEXT_WIDTH, len(rates))
    bounds = [number * len(rates) // columns for number in range(columns + 1)]
    means = [sum(rates[a:b]) / (b - a) for a, b in itertools.pairwise(bounds)]
    lines = []
    for row in reversed(range(TEXT_HEIGHT)):
        label = {TEXT_HEIGHT - 1: "100 %", 0: "  0 %", TEXT_HEIGHT // 2 - 1: " 50 %"}.get(row, "     ")
        lines.append(f"{label} │" + "".join(_sign(mean, row) for mean in means).rstrip())
    end = position(curve.duration_s)
    lines.append("      └" + "─" * columns)
    lines.append("       0:00" + end.rjust(max(columns - 4, len(end) + 1)))
    return "\n".join(lines)


def _sign(value: float, row: int) -> str:
    filled = round((value * TEXT_HEIGHT - row) * 8)
    # A measured value above zero is seen in the lowest row, however small.
    return _EIGHTHS[max(min(filled, 8), 1 if row == 0 and value > 0 else 0)]


def svg(curve: Curve) -> str:
    """The curve with its 95 % band, the audience watch ratio, marks and chapters; readable on any background."""
    rows = curve.points
    top = max(1.0, math.ceil(4 * max((row["audience_watch_ratio"] for row in rows), default=1.0)) / 4)
    length = max(curve.duration_s, 1.0)

    def x(second: float) -> float:
        return round(_LEFT + _PLOT_WIDTH * min(second / length, 1.0), 1)

    def y(ratio: float) -> float:
        return round(_TOP + _PLOT_HEIGHT * (1 - ratio / top), 1)

    def line(column: str) -> list[str]:
        return [f"{x(row['second'])},{y(row[column])}" for row in thinned(rows, column, SVG_POINTS)]

    base = _TOP + _PLOT_HEIGHT
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" '
        'role="img" font-family="system-ui, sans-serif" font-size="12">',
        f"<title>{markup(curve.alternative)}</title>",
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#ffffff"/>',
    ]
    for quarter in range(0, round(top * 4) + 1, 1 if top <= 1.5 else 2):
        height = y(quarter / 4)
        parts.append(
            f'<path d="M{_LEFT} {height}H{WIDTH - _RIGHT}" stroke="#e3e3e3"/>'
            f'<text x="{_LEFT - 6}" y="{height + 4}" text-anchor="end" fill="#555">{25 * quarter} %</text>'
        )
    for second in ticks(length):
        # The last one is kept inside the picture.
        anchor = "end" if x(second) > WIDTH - 40 else "middle"
        parts.append(
            f'<path d="M{x(second)} {base}v5" stroke="#888"/>'
            f'<text x="{x(second)}" y="{base + 20}" text-anchor="{anchor}" fill="#555">{position(second)}</text>'
        )
    for mark in curve.marks:
        left, right = x(mark.start_second), x(mark.end_second)
        parts.append(
            f'<rect x="{left}" y="{_TOP}" width="{max(round(right - left, 1), 2)}" height="{_PLOT_HEIGHT}" '
            f'fill="{COLOURS.get(mark.kind, COLOURS["watched"])}" fill-opacity="0.2">'
            f"<title>{_MARK_NAMES.get(mark.kind, 'moment')} {position(mark.start_second)} "
            f"to {position(mark.end_second)}</title></rect>"
        )
    parts += _chapters(curve, x)
    if rows:
        low = [f"{x(row['second'])},{y(row['ci_low'])}" for row in thinned(rows, "ci_low", SVG_POINTS)]
        band = " ".join(line("ci_high") + low[::-1])
        parts += [
            f'<polygon points="{band}" fill="{COLOURS["band"]}" fill-opacity="0.5"/>',
            _polyline(line("audience_watch_ratio"), COLOURS["watched"], 'stroke-width="1" stroke-dasharray="4 3"'),
            _polyline(line("retention_rate"), COLOURS["retention"], 'stroke-width="2"'),
        ]
    parts.append(f'<path d="M{_LEFT} {base}H{WIDTH - _RIGHT}" stroke="#888"/>')
    parts += _legend(curve)
    parts.append("</svg>")
    return "\n".join(parts) + "\n"


def _polyline(points: list[str], colour: str, style: str) -> str:
    return f'<polyline points="{" ".join(points)}" fill="none" stroke="{colour}" {style}/>'


def _chapters(curve: Curve, x: Any) -> list[str]:
    """A line where each chapter starts, and its title where there is room for it."""
    parts = []
    shown = [(start, title) for start, title in curve.chapters if start < curve.duration_s]
    for number, (start, title) in enumerate(shown):
        end = shown[number + 1][0] if number + 1 < len(shown) else curve.duration_s
        room = math.floor((x(end) - x(start) - 6) / 6.5)
        parts.append(f'<path d="M{x(start)} {_TOP - 16}V{_TOP + _PLOT_HEIGHT}" stroke="#bbb" stroke-dasharray="2 3"/>')
        if room >= 3:
            label = markup(plain(title, min(room, 60)))
            parts.append(f'<text x="{x(start) + 4}" y="{_TOP - 6}" fill="#777" font-size="11">{label}</text>')
    return parts


def _legend(curve: Curve) -> list[str]:
    entries = [("retention rate, with 95 % band", COLOURS["retention"])]
    entries.append(("audience watch ratio (rewatches counted)", COLOURS["watched"]))
    kinds = list(dict.fromkeys(mark.kind for mark in curve.marks if mark.kind in _MARK_NAMES))
    entries += [(_MARK_NAMES[kind], COLOURS[kind]) for kind in kinds]
    parts, left = [], _LEFT
    for name, colour in entries:
        parts.append(f'<rect x="{left}" y="12" width="12" height="12" fill="{colour}" fill-opacity="0.7"/>')
        parts.append(f'<text x="{left + 18}" y="22" fill="#333">{name}</text>')
        left += 36 + round(6.4 * len(name))
    return parts


def bars_svg(bars: Bars) -> str:
    """One bar a label."""
    top = max([*bars.values, 1])
    step = _PLOT_WIDTH / max(len(bars.values), 1)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} 240" width="{WIDTH}" height="240" role="img" '
        'font-family="system-ui, sans-serif" font-size="12">',
        f"<title>{markup(bars.name)}</title>",
        f'<rect width="{WIDTH}" height="240" fill="#ffffff"/>',
    ]
    for number, (label, value) in enumerate(zip(bars.labels, bars.values, strict=True)):
        height = round(160 * value / top, 1)
        left = round(_LEFT + number * step, 1)
        middle = round(left + step / 2, 1)
        parts.append(
            f'<rect x="{round(left + step * 0.1, 1)}" y="{200 - height}" width="{round(step * 0.8, 1)}" '
            f'height="{height}" fill="{COLOURS["retention"]}"/>'
            f'<text x="{middle}" y="{194 - height}" text-anchor="middle" fill="#333">{value:,}</text>'
            f'<text x="{middle}" y="220" text-anchor="middle" fill="#555">{markup(label)}</text>'
        )
    parts.append("</svg>")
    return "\n".join(parts) + "\n"


def bars_chart(bars: Bars) -> str:
    """One line a label, as long as its value."""
    top = max([*bars.values, 1])
    width = max((len(label) for label in bars.labels), default=0)
    return "\n".join(
        f"{label.ljust(width)} {'█' * round(48 * value / top)} {value:,}"
        for label, value in zip(bars.labels, bars.values, strict=True)
    )


def described(curve: Curve) -> str:
    """The curve in a sentence, for who does not see it."""
    if not curve.points:
        return "No curve: no views"
    first, last = curve.points[0], curve.points[-1]
    return (
        f"Retention curve: {share(first['retention_rate'])} of views watch the beginning, "
        f"{share(last['retention_rate'])} the last second, {position(last['second'])}"
    )
