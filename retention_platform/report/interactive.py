"""The curve for Plotly: zoom, and every figure of a second on hover. Pure; the page around it is `page`'s."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cache
from typing import Any

from retention_platform.report.drawing import COLOURS, thinned, ticks
from retention_platform.report.model import Bars, Curve
from retention_platform.report.untrusted import plotly_text
from retention_platform.report.words import position

#: Seconds drawn one by one: more than five hours. Longer curves keep the lowest and highest of each stretch.
MAX_POINTS = 20_000

#: plotly.js offers by default to send a chart to its maker's site; figures of viewers stay here.
CONFIG = {"responsive": True, "displaylogo": False, "showSendToCloud": False, "showTips": False}
_NAMES = {
    "retention_rate": "retention rate",
    "audience_watch_ratio": "audience watch ratio",
    "reach_ratio": "reach ratio",
}
_SHADES = {"retention_rate": "retention", "audience_watch_ratio": "watched", "reach_ratio": "top_moment"}


@cache
def plotly_js() -> str:
    """The library that the plotly package brings, whole: nothing is fetched, so a page works offline."""
    from plotly.offline import get_plotlyjs  # type: ignore[import-untyped]

    # As an HTML parser reads it; the page's policy names the script by its hash.
    return str(get_plotlyjs()).replace("\r\n", "\n")


@cache
def plotly_version() -> str:
    """The plotly package's version."""
    import plotly  # type: ignore[import-untyped]

    return str(plotly.__version__)


def figure(curve: Curve) -> dict[str, Any]:
    """The figure as Plotly takes it: traces and layout."""
    points = thinned(curve.points, "retention_rate", MAX_POINTS)
    seconds = [point["second"] for point in points]
    at = [position(second) for second in seconds]
    band = {"x": seconds, "mode": "lines", "line": {"width": 0}, "hoverinfo": "skip", "showlegend": False}
    traces: list[dict[str, Any]] = [
        {**band, "type": "scatter", "name": "ci_low", "y": [point["ci_low"] for point in points]},
        {
            **band,
            "type": "scatter",
            "name": "ci_high",
            "y": [point["ci_high"] for point in points],
            "fill": "tonexty",
            "fillcolor": "rgba(31,95,191,0.18)",
        },
    ]
    traces += [_line(name, points, seconds, at) for name in _NAMES]
    length = max(curve.duration_s, 1.0)
    marks = ticks(length, 12)
    chapters = [(start, title) for start, title in curve.chapters if start < length]
    return {
        "data": traces,
        "layout": {
            "height": 440,
            "margin": {"l": 56, "r": 16, "t": 60, "b": 44},
            "hovermode": "x unified",
            "legend": {"orientation": "h", "y": -0.16},
            "xaxis": {"range": [0, length], "tickvals": marks, "ticktext": [position(mark) for mark in marks]},
            "yaxis": {"rangemode": "tozero", "tickformat": ".0%"},
            "shapes": [*map(_shape, curve.marks), *(_chapter_line(start) for start, _ in chapters)],
            "annotations": [_chapter_label(start, title) for start, title in chapters],
        },
        "config": CONFIG,
    }


def _line(name: str, points: Sequence[dict[str, Any]], seconds: list[int], at: list[str]) -> dict[str, Any]:
    main = name == "retention_rate"
    return {
        "type": "scatter",
        "mode": "lines",
        "name": _NAMES[name],
        "x": seconds,
        "y": [point[name] for point in points],
        "customdata": [
            [place, point["watching_views"], point["segment_plays"]] for place, point in zip(at, points, strict=True)
        ],
        "line": {"width": 2.5 if main else 1.2, "dash": "solid" if main else "dot", "color": COLOURS[_SHADES[name]]},
        "hovertemplate": "%{customdata[0]}: %{y:.1%} (%{customdata[1]:,} views)<extra>retention rate</extra>"
        if main
        else f"%{{y:.1%}}<extra>{_NAMES[name]}</extra>",
    }


def _shape(mark: Any) -> dict[str, Any]:
    return {
        "type": "rect",
        "yref": "paper",
        "y0": 0,
        "y1": 1,
        "x0": mark.start_second,
        "x1": mark.end_second,
        "fillcolor": COLOURS.get(mark.kind, COLOURS["watched"]),
        "opacity": 0.2,
        "line": {"width": 0},
    }


def _chapter_line(start: float) -> dict[str, Any]:
    line = {"width": 1, "dash": "dot", "color": "#bbb"}
    return {"type": "line", "yref": "paper", "y0": 0, "y1": 1, "x0": start, "x1": start, "line": line}


def _chapter_label(start: float, title: str) -> dict[str, Any]:
    return {
        "x": start,
        "y": 1,
        "yref": "paper",
        "xanchor": "left",
        "yanchor": "bottom",
        "showarrow": False,
        "textangle": -20,
        "font": {"size": 11, "color": "#777"},
        "text": plotly_text(title, 24),
    }


def bars_figure(bars: Bars) -> dict[str, Any]:
    """Bars as Plotly takes them."""
    return {
        "data": [
            {
                "type": "bar",
                "x": list(bars.labels),
                "y": list(bars.values),
                "name": bars.name,
                "marker": {"color": COLOURS["retention"]},
            }
        ],
        "layout": {
            "height": 300,
            "margin": {"l": 56, "r": 16, "t": 20, "b": 44},
            # Days are labels here, not instants.
            "xaxis": {"type": "category"},
        },
        "config": CONFIG,
    }


def script_json(value: Any) -> str:
    """JSON for inside a script element: no sign in it ends the element or begins a comment."""
    text = json.dumps(value, allow_nan=False, ensure_ascii=True, separators=(",", ":"))
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")
