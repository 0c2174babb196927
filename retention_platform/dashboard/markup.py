"""HTML that Streamlit has no element for: the catalogue's table, sparklines, lists with marks. Pure; all text escaped.

Real tables and links, so that a keyboard and a screen reader can use them. Colours come from the theme's palette.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from urllib.parse import urlencode

from retention_platform.api.models.overview import OverviewItem
from retention_platform.dashboard import sentences
from retention_platform.dashboard.theme import Palette
from retention_platform.report.untrusted import markup
from retention_platform.report.words import NOTHING, count, length, position

_WIDTH, _HEIGHT = 104, 28
#: Kinds of marks as people call them.
KINDS = {
    "dropoff": "dropoff",
    "intro": "intro",
    "outro": "outro",
    "spike": "rewatched",
    "dip": "skipped",
    "top_moment": "held best",
}


def sparkline(values: Sequence[float], colours: Palette, label: str) -> str:
    """A small curve from 0 to 1 as a picture; nothing to say without values."""
    if not values:
        return NOTHING
    step = _WIDTH / max(len(values) - 1, 1)
    places = [(round(i * step, 1), round(1.5 + (_HEIGHT - 3) * (1 - value), 1)) for i, value in enumerate(values)]
    line = " ".join(f"{x},{y}" for x, y in places)
    drawn = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{_HEIGHT}" '
        f'viewBox="0 0 {_WIDTH} {_HEIGHT}">'
        f'<polygon points="0,{_HEIGHT} {line} {_WIDTH},{_HEIGHT}" fill="{colours.retention}" fill-opacity="0.16"/>'
        f'<polyline points="{line}" fill="none" stroke="{colours.retention}" stroke-width="1.6"/></svg>'
    )
    # As a picture: Streamlit takes SVG out of the HTML it is given.
    data = base64.b64encode(drawn.encode()).decode()
    size = f'width="{_WIDTH}" height="{_HEIGHT}"'
    return f'<img src="data:image/svg+xml;base64,{data}" {size} alt="{markup(label)}">'


def catalogue(videos: Sequence[OverviewItem], watching: Mapping[str, int], colours: Palette) -> str:
    """The catalogue as a table: one row a video, its title a link to its page. ``watching``: viewers now by video."""
    head = "".join(
        f'<th scope="col" class="{kind}">{name}</th>'
        for name, kind in (
            ("Video", ""),
            ("Who stays", "wide"),
            ("Views", "n"),
            ("Week", "n"),
            ("Watch time", "n wide"),
            ("Avg. viewed", "n"),
            ("Completion", "n wide"),
            ("Now", "n"),
        )
    )
    rows = "".join(_row(video, watching.get(video.video_id, 0), colours) for video in videos)
    return f'{_style(colours)}<table class="rt"><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>'


def _row(video: OverviewItem, now: int, colours: Palette) -> str:
    name = markup(sentences.title(video.video_id, video.title))
    about = [position(video.duration_s)] if video.duration_s is not None else []
    about += [markup(video.category, 40)] if video.category else []
    if video.views and not video.is_sufficient:
        about.append("few views")
    shape = video.sparkline
    told = (
        f"Share still watching: from {sentences.percent(shape[0])} to {sentences.percent(shape[-1])}" if shape else ""
    )
    curve = sparkline(shape, colours, told)
    change = sentences.change(video.views_week, video.views_week_before)
    viewed = video.average_view_percentage
    difference = sentences.points(video.average_view_percentage_week, video.average_view_percentage_week_before)
    live = f'<span class="live"><i aria-hidden="true"></i>{count(now)}</span>' if now else NOTHING
    return (
        f'<tr><th scope="row"><a href="video?{markup(urlencode({"video": video.video_id}), 4000)}" target="_self">'
        f"{name}</a><small>{' · '.join(about)}</small></th>"
        f'<td class="wide">{curve}</td>'
        f'<td class="n">{count(video.views)}</td>'
        f'<td class="n">{count(video.views_week)}<small>{change}</small></td>'
        f'<td class="n wide">{length(video.watch_time_s) if video.views else NOTHING}</td>'
        f'<td class="n">{NOTHING if viewed is None else f"{viewed:.1f} %"}<small>{_points(difference)}</small></td>'
        f'<td class="n wide">{sentences.percent(video.completion_rate, 1)}</td>'
        f'<td class="n">{live}</td></tr>'
    )


def _points(difference: str) -> str:
    return difference if difference == NOTHING else f"{difference} pts"


def moments(marks: Sequence[sentences.Marked], colours: Palette) -> str:
    """What the colours and numbers of the marks mean, one line a kind."""
    kinds = dict.fromkeys(mark.kind for mark in marks)
    items = "".join(
        f'<li style="color:{kind_colour(kind, colours)}"><b>■</b> {KINDS.get(kind, "moment")}</li>' for kind in kinds
    )
    return f'<ul style="list-style:none;padding:0;margin:0;display:flex;flex-wrap:wrap;gap:.1rem .9rem">{items}</ul>'


def kind_colour(kind: str, colours: Palette) -> str:
    """The colour that a kind of mark has in figures and lists."""
    return str(getattr(colours, kind, colours.quiet))


def _style(colours: Palette) -> str:
    return f"""<style>
.rt {{ width: 100%; border-collapse: collapse; font-variant-numeric: tabular-nums; }}
.rt th, .rt td {{ padding: .55rem .75rem; border: 0; border-bottom: 1px solid {colours.grid}; text-align: left; }}
.rt thead th {{ color: {colours.quiet}; font-weight: 500; font-size: .85rem; white-space: nowrap; }}
.rt tbody th {{ font-weight: 600; min-width: 11rem; }}
.rt .n {{ text-align: right; white-space: nowrap; }}
.rt small {{ display: block; color: {colours.quiet}; font-weight: 400; font-size: .8rem; }}
.rt a {{ color: {colours.text}; text-decoration: none; overflow-wrap: anywhere; }}
.rt a:hover, .rt a:focus-visible {{ color: {colours.retention}; text-decoration: underline; }}
.rt tbody tr:hover {{ background: {colours.retention}12; }}
.rt img {{ max-width: none; display: block; }}
.live i {{ display: inline-block; width: .5rem; height: .5rem; margin-right: .4rem; border-radius: 50%;
  background: {colours.top_moment}; }}
@media (max-width: 760px) {{
  .rt .wide {{ display: none; }}
  .rt th, .rt td {{ padding: .5rem .35rem; }}
  .rt tbody th {{ min-width: 0; }}
}}
</style>"""
