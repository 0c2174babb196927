"""Plotly figures of the API's answers. Pure: no Streamlit, no requests. Nothing is smoothed.

Backgrounds are left clear, so that a figure lies on either theme. Texts of others go through `plotly_text`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import plotly.graph_objects as go  # type: ignore[import-untyped]
from plotly.subplots import make_subplots  # type: ignore[import-untyped]

from retention_platform.api.models.audience import Instant
from retention_platform.api.models.curves import Comparison, LiveRetentionCurve, RankedPoint, RetentionCurve
from retention_platform.api.models.videos import Chapter, Day
from retention_platform.dashboard import sentences
from retention_platform.dashboard.markup import kind_colour
from retention_platform.dashboard.theme import DASHES, Palette
from retention_platform.report.drawing import ticks
from retention_platform.report.untrusted import plotly_text
from retention_platform.report.words import position

#: The lines of a curve that can be switched on: name to column, with how it is drawn.
LINES = {"Audience watch ratio": "audience_watch_ratio", "Reach": "reach_ratio"}
HEIGHT = 460
#: Characters of chapter titles that have room above the picture, all together.
_CHAPTER_CHARACTERS = 110


def retention(
    curve: RetentionCurve,
    colours: Palette,
    *,
    chapters: Sequence[Chapter] = (),
    marks: Sequence[sentences.Marked] = (),
    lines: Sequence[str] = (),
) -> go.Figure:
    """The retention curve with its 95 % band, marks, chapters behind it, and the strip of rewatches below it."""
    figure = make_subplots(rows=2, cols=1, shared_xaxes=True, row_heights=[0.92, 0.08], vertical_spacing=0.03)
    points = curve.points
    seconds = [point.second for point in points]
    end = max(curve.duration_s or 0, seconds[-1] + 1 if seconds else 1)
    _chapters(figure, chapters, end, colours)
    for mark in marks:
        figure.add_vrect(
            x0=mark.start_second,
            x1=mark.end_second,
            fillcolor=kind_colour(mark.kind, colours),
            opacity=0.2,
            line_width=0,
            layer="below",
            exclude_empty_subplots=False,
            row=1,
            col=1,
        )
    _band(figure, points, colours)
    top = 1.0
    for name in lines:
        column = LINES[name]
        values = [getattr(point, column) for point in points]
        top = max([top, *values])
        colour = colours.watch_ratio if column == "audience_watch_ratio" else colours.reach
        style = {"color": colour, "width": 1.6, "dash": "dash" if column == "audience_watch_ratio" else "dot"}
        figure.add_scatter(
            x=seconds, y=values, name=name, mode="lines", line=style, hovertemplate="%{y:.0%}", row=1, col=1
        )
    figure.add_scatter(
        x=seconds,
        y=[point.retention_rate for point in points],
        name="Retention",
        mode="lines",
        line={"color": colours.retention, "width": 2.5},
        customdata=[sentences.hover(point, curve.views) for point in points],
        hovertemplate="%{customdata}<extra></extra>",
        row=1,
        col=1,
    )
    _signs(figure, points, marks, top, colours)
    _heat(figure, points, colours)
    _layout(figure, colours, HEIGHT)
    figure.update_layout(hovermode="x unified", showlegend=bool(lines), margin_t=62)
    figure.update_xaxes(range=[0, end], **_time_axis(end), showgrid=False)
    figure.update_xaxes(showticklabels=False, row=1, col=1)
    figure.update_xaxes(showticklabels=True, row=2, col=1)
    figure.update_yaxes(range=[0, 1.08 * top], tickformat=".0%", row=1, col=1)
    figure.update_yaxes(showticklabels=False, fixedrange=True, showgrid=False, row=2, col=1)
    return figure


def _band(figure: go.Figure, points: Sequence[RankedPoint], colours: Palette) -> None:
    seconds = [point.second for point in points]
    common = {"mode": "lines", "line": {"width": 0}, "hoverinfo": "skip", "showlegend": False}
    figure.add_scatter(
        x=seconds, y=[point.ci_high for point in points], name="95 % band, upper", **common, row=1, col=1
    )
    figure.add_scatter(
        x=seconds,
        y=[point.ci_low for point in points],
        name="95 % band, lower",
        fill="tonexty",
        fillcolor=translucent(colours.retention, 0.2),
        **common,
        row=1,
        col=1,
    )


def _signs(
    figure: go.Figure, points: Sequence[RankedPoint], marks: Sequence[sentences.Marked], top: float, colours: Palette
) -> None:
    """The numbers of the marks, above the curve where they begin."""
    if not marks or not points:
        return
    figure.add_scatter(
        x=[(mark.start_second + mark.end_second) / 2 for mark in marks],
        y=[1.03 * top for _ in marks],
        mode="text",
        text=[mark.sign for mark in marks],
        textfont={"size": 17, "color": [kind_colour(mark.kind, colours) for mark in marks]},
        hoverinfo="skip",
        showlegend=False,
        name="Numbers",
        row=1,
        col=1,
    )


def _heat(figure: go.Figure, points: Sequence[RankedPoint], colours: Palette) -> None:
    """One strip: how much is rewatched at each second."""
    values = [point.rewatch_ratio for point in points]
    figure.add_heatmap(
        x=[point.second for point in points],
        y=["rewatched"],
        z=[values],
        name="Rewatched",
        zmin=0,
        zmax=max([0.05, *(value for value in values if value is not None)]),
        colorscale=[[0, colours.heat[0]], [1, colours.heat[1]]],
        showscale=False,
        customdata=[[_rewatched(value) for value in values]],
        hovertemplate="%{customdata}<extra></extra>",
        row=2,
        col=1,
    )


def _rewatched(ratio: float | None) -> str:
    return "nobody watches" if ratio is None else f"rewatched: {100 * ratio:.0f} % more plays than viewers"


def _chapters(figure: go.Figure, chapters: Sequence[Chapter], end: float, colours: Palette) -> None:
    """Every second chapter shaded, each one's title above it as far as there is room."""
    starts = [chapter.start_ms / 1000 for chapter in chapters]
    for number, chapter in enumerate(chapters):
        start, stop = starts[number], starts[number + 1] if number + 1 < len(starts) else end
        if start >= end or stop <= start:
            continue
        if number % 2:
            figure.add_vrect(
                x0=start,
                x1=min(stop, end),
                fillcolor=colours.quiet,
                opacity=0.1,
                line_width=0,
                layer="below",
                exclude_empty_subplots=False,
                row=1,
                col=1,
            )
        room = int(_CHAPTER_CHARACTERS * (min(stop, end) - start) / end)
        if room >= 3:
            figure.add_annotation(
                x=start,
                y=1.0,
                yref="paper",
                yanchor="bottom",
                xanchor="left",
                text=plotly_text(chapter.title, room),
                showarrow=False,
                font={"size": 12, "color": colours.quiet},
            )


def side_by_side(curves: Sequence[tuple[str, RetentionCurve]], colours: Palette) -> go.Figure:
    """The curves of several segments of one video, each named with its views."""
    figure = go.Figure()
    end = 1.0
    for number, (name, curve) in enumerate(curves):
        if not curve.points:
            continue
        end = max(end, curve.duration_s or 0, curve.points[-1].second + 1)
        figure.add_scatter(
            x=[point.second for point in curve.points],
            y=[point.retention_rate for point in curve.points],
            name=f"{plotly_text(name, 40)} ({curve.views:,})",
            mode="lines",
            line=_line(number, colours),
            customdata=[sentences.hover(point, curve.views) for point in curve.points],
            hovertemplate="%{customdata}",
        )
    _layout(figure, colours, 380)
    figure.update_layout(hovermode="closest")
    figure.update_xaxes(range=[0, end], **_time_axis(end), showgrid=False)
    figure.update_yaxes(range=[0, 1.03], tickformat=".0%")
    return figure


def comparison(found: Comparison, colours: Palette) -> go.Figure:
    """Several videos on one axis, the part of their length."""
    figure = go.Figure()
    for number, video in enumerate(found.videos):
        points = [point for point in found.points if point.video_id == video.video_id]
        if not points:
            continue
        name = plotly_text(sentences.title(video.video_id, video.title), 50)
        figure.add_scatter(
            x=[point.percent for point in points],
            y=[point.retention_rate for point in points],
            name=name,
            mode="lines",
            line=_line(number, colours),
            customdata=[
                f"{point.percent:.0f} % ({position(point.second)}) · {point.watching_views:,} of {video.views:,} "
                f"viewers ({sentences.percent(point.retention_rate)})"
                for point in points
            ],
            hovertemplate="%{customdata}",
        )
    _layout(figure, colours, 380)
    figure.update_layout(hovermode="closest")
    figure.update_xaxes(range=[0, 100], ticksuffix=" %", showgrid=False)
    figure.update_yaxes(range=[0, 1.03], tickformat=".0%")
    return figure


def days(rows: Sequence[Day], colours: Palette) -> go.Figure:
    """Views day by day as bars, the average percentage viewed as a line over them."""
    figure = make_subplots(specs=[[{"secondary_y": True}]])
    at = [row.day.isoformat() for row in rows]
    figure.add_bar(x=at, y=[row.views for row in rows], name="Views", marker_color=translucent(colours.retention, 0.55))
    figure.add_scatter(
        x=at,
        y=[row.average_view_percentage for row in rows],
        name="Average percentage viewed",
        mode="lines+markers",
        line={"color": colours.watch_ratio, "width": 2},
        hovertemplate="%{y:.1f} %",
        secondary_y=True,
    )
    _layout(figure, colours, 320)
    figure.update_layout(hovermode="x unified")
    figure.update_xaxes(type="date", showgrid=False)
    figure.update_yaxes(rangemode="tozero", secondary_y=False)
    figure.update_yaxes(range=[0, 100], ticksuffix=" %", showgrid=False, secondary_y=True)
    return figure


def concurrency(together: Sequence[Instant], by_video: Mapping[str, Sequence[Instant]], colours: Palette) -> go.Figure:
    """Viewers at the same time in the last hour: all videos as an area, some as lines, by their titles."""
    figure = go.Figure()
    figure.add_scatter(
        x=[instant.at for instant in together],
        y=[instant.concurrent_viewers for instant in together],
        name="All videos",
        mode="lines",
        line={"color": colours.quiet, "width": 1, "shape": "hv"},
        fill="tozeroy",
        fillcolor=translucent(colours.quiet, 0.15),
        hovertemplate="%{y}",
    )
    for number, (name, instants) in enumerate(by_video.items()):
        figure.add_scatter(
            x=[instant.at for instant in instants],
            y=[instant.concurrent_viewers for instant in instants],
            name=plotly_text(name, 36),
            mode="lines",
            line={**_line(number, colours), "shape": "hv"},
            hovertemplate="%{y}",
        )
    _layout(figure, colours, 340)
    figure.update_layout(hovermode="x unified", uirevision="live")
    figure.update_xaxes(type="date", tickformat="%H:%M", showgrid=False)
    figure.update_yaxes(rangemode="tozero", tickformat="d")
    return figure


def live_curve(curve: LiveRetentionCurve, colours: Palette) -> go.Figure:
    """Who of the last hour's sessions played each second."""
    figure = go.Figure()
    end = max([1.0, curve.duration_s or 0, *(point.second + 1 for point in curve.points)])
    figure.add_scatter(
        x=[point.second for point in curve.points],
        y=[point.retention_rate for point in curve.points],
        name="Last hour",
        mode="lines",
        line={"color": colours.retention, "width": 2.5},
        fill="tozeroy",
        fillcolor=translucent(colours.retention, 0.12),
        customdata=[
            f"{position(point.second)} · {point.watching_views:,} of {curve.views:,} sessions "
            f"({sentences.percent(point.retention_rate)})"
            for point in curve.points
        ],
        hovertemplate="%{customdata}<extra></extra>",
    )
    _layout(figure, colours, 320)
    figure.update_layout(hovermode="x", showlegend=False, uirevision="live")
    figure.update_xaxes(range=[0, end], **_time_axis(end), showgrid=False)
    figure.update_yaxes(range=[0, 1.03], tickformat=".0%")
    return figure


def translucent(colour: str, opacity: float) -> str:
    """A hexadecimal colour as one that lets through what is behind it."""
    red, green, blue = (int(colour[place : place + 2], 16) for place in (1, 3, 5))
    return f"rgba({red},{green},{blue},{opacity})"


def _line(number: int, colours: Palette) -> dict[str, object]:
    return {"color": colours.series[number % len(colours.series)], "width": 2.2, "dash": DASHES[number % len(DASHES)]}


def _time_axis(end: float) -> dict[str, object]:
    """Round seconds as m:ss."""
    places = ticks(end)
    return {"tickmode": "array", "tickvals": places, "ticktext": [position(place) for place in places]}


def _layout(figure: go.Figure, colours: Palette, height: int) -> None:
    figure.update_layout(
        height=height,
        margin={"l": 8, "r": 8, "t": 34, "b": 8},
        modebar={"bgcolor": "rgba(0,0,0,0)", "color": colours.quiet, "activecolor": colours.retention},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        font={"color": colours.text, "size": 13},
        legend={"orientation": "h", "x": 0, "y": -0.12, "yanchor": "top"},
        hoverlabel={"bgcolor": colours.background, "font": {"color": colours.text}, "bordercolor": colours.grid},
    )
    figure.update_xaxes(linecolor=colours.grid, zeroline=False)
    figure.update_yaxes(gridcolor=colours.grid, zeroline=False, automargin=True)
