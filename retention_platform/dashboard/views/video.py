"""One video: its curve with all that is known of it, its figures, segments, comparison, days, analysis, downloads."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import date, timedelta
from typing import cast

import streamlit as st

from retention_platform.api.models.overview import Typical
from retention_platform.api.models.videos import EngagementSummary, Segment
from retention_platform.dashboard import figures, markup, sentences
from retention_platform.dashboard.address import DIMENSIONS, MAX_COMPARED, Selection, selection
from retention_platform.dashboard.client import ApiProblem, Facts
from retention_platform.dashboard.views.common import api, chart, colours, freshness, told
from retention_platform.report import insights
from retention_platform.report.markdown import passage
from retention_platform.report.untrusted import markdown
from retention_platform.report.words import plural, position

ALL, CUSTOM = "All days", "Other days"
RANGES = {ALL: 0, "28 days": 28, "7 days": 7, CUSTOM: 0}
#: Segments of a dimension that are drawn; more lines are not told apart.
MAX_LINES = 5


def show() -> None:
    """The page."""
    wanted = selection({name: st.query_params.get_all(name) for name in st.query_params})
    video_id = _pick(wanted)
    if video_id is None:
        st.info("No video was described or played yet: see Overview for what to do.", icon=":material/movie:")
        return
    if wanted.video_id != video_id:
        wanted = Selection(video_id)
    segments = api().segments(video_id).segments
    with st.container(horizontal=True, vertical_alignment="bottom"):
        chosen = _choose(wanted, segments)
    facts = api().facts(chosen)
    _heading(facts)
    if facts.summary.reason is not None or not facts.curve.points:
        st.info(_empty(facts.summary), icon=":material/visibility_off:")
    else:
        headline, further = _figures(facts)
        # Before the curve: who opens the page reads them while the browser still fetches what draws charts.
        _cards(headline)
        _curve(facts, chosen)
        st.subheader("Further figures", anchor=False)
        _cards(further)
        st.caption(_typical(facts.typical))
    chosen = _more(chosen, segments)
    st.query_params.from_dict(chosen.query())


def _pick(wanted: Selection) -> str | None:
    known = {video.video_id: sentences.title(video.video_id, video.title) for video in api().videos().videos}
    ids = list(known)
    if wanted.video_id is not None and wanted.video_id not in known:
        ids.insert(0, wanted.video_id)
    if not ids:
        return None
    state = st.session_state
    if state.get("video") not in ids:
        state.video = wanted.video_id or ids[0]
    return cast("str", st.selectbox("Video", ids, key="video", format_func=lambda one: known.get(one) or one))


def _choose(wanted: Selection, segments: list[Segment]) -> Selection:
    """Days and segments, as the widgets say."""
    video_id = cast("str", wanted.video_id)
    first, last = _range(wanted, video_id)
    chosen: dict[str, tuple[str, ...]] = {}
    number = sum(map(len, wanted.segments.values()))
    with st.popover(f"Segments{f' ({number})' if number else ''}", icon=":material/filter_alt:", key="filter"):
        for dimension, name in DIMENSIONS.items():
            there = [segment.value for segment in segments if segment.dimension == dimension]
            picked = [value for value in wanted.segments.get(dimension, ()) if value in there]
            key = f"{dimension} of {video_id}"
            if key not in st.session_state:
                st.session_state[key] = picked
            values = st.multiselect(name, there, key=key, format_func=sentences.segment_name)
            if values:
                chosen[dimension] = tuple(values)
    return replace(wanted, first_day=first, last_day=last, segments=chosen)


def _range(wanted: Selection, video_id: str) -> tuple[date | None, date | None]:
    days = api().days(video_id).days
    if not days:
        return None, None
    key = f"range of {video_id}"
    if key not in st.session_state:
        st.session_state[key] = CUSTOM if wanted.first_day or wanted.last_day else ALL
    picked = st.segmented_control("Days (UTC)", list(RANGES), key=key, required=True)
    first, last = days[0].day, days[-1].day
    if picked == CUSTOM:
        start = min(max(wanted.first_day or first, first), last)
        end = max(min(wanted.last_day or last, last), start)
        between = st.date_input(
            "From and to", (start, end), min_value=first, max_value=last, format="YYYY-MM-DD", key=f"days of {video_id}"
        )
        # While only the first of the two was picked there is no end yet.
        return between if isinstance(between, tuple) and len(between) == 2 else (start, end)
    length = RANGES[picked or ALL]
    if length:
        return last - timedelta(days=length - 1), last
    return None, None


def _heading(facts: Facts) -> None:
    summary = facts.summary
    st.title(markdown(sentences.title(summary.video_id, summary.title)), anchor=False)
    about = [position(summary.duration_s) if summary.duration_s is not None else "length unknown"]
    about += [markdown(summary.category, 60)] if summary.category else []
    about += [f"published {summary.published_at:%Y-%m-%d}"] if summary.published_at else []
    about.append(markdown(sentences.chosen(summary.chosen)))
    st.caption(" · ".join(about))
    freshness(facts.health)
    note = sentences.small_sample(summary)
    if note:
        st.warning(note, icon=":material/group:")


def _empty(summary: EngagementSummary) -> str:
    if summary.reason is None:
        return "**No curve yet**: its figures are being computed. Look again in a moment."
    reason = markdown(summary.reason.text)
    if summary.reason.code == "nobody":
        return f"**Nothing to show for this choice**: {reason}. Choose more days or fewer segments."
    return f"**No views yet**: {reason}. As soon as players report playing it, the curve is here."


def _figures(facts: Facts) -> tuple[list[sentences.Figure], list[sentences.Figure]]:
    found = sentences.figures(facts.summary, facts.typical)
    return found[:4], found[4:]


def _cards(row: list[sentences.Figure]) -> None:
    for place, figure in zip(st.columns(len(row)), row, strict=True):
        place.metric(
            figure.name,
            figure.value,
            figure.difference,
            delta_description=None if figure.typical is None else f"typical {figure.typical}",
            help=figure.meaning,
            border=True,
            height="stretch",
        )


def _typical(typical: Typical) -> str:
    if typical.peers is None:
        return "Nothing is called typical: fewer than 5 other videos have enough views to compare with."
    peers = "of similar length" if typical.peers == "similar" else "of any length, since few are of similar length"
    return f"Typical: the median of {plural(typical.videos, 'other video')} {peers}."


def _curve(facts: Facts, chosen: Selection) -> None:
    marks = sentences.marked(facts.dropoffs.dropoffs, facts.moments.moments)
    left, right = st.columns([7, 3])
    with left:
        st.subheader("Who is still watching", anchor=False)
        lines = st.pills("Further lines", list(figures.LINES), selection_mode="multi", key="lines")
        picture = figures.retention(
            facts.curve, colours(), chapters=facts.summary.chapters, marks=marks, lines=list(lines)
        )
        first, end = facts.curve.points[0], facts.curve.points[-1]
        chart(
            picture,
            f"retention-{chosen.video_id}",
            f"Retention curve of {plural(facts.curve.views, 'view')}: {sentences.percent(first.retention_rate)} watch "
            f"the first second, {sentences.percent(end.retention_rate)} the last, {position(end.second)}.",
            key="curve",
        )
        st.caption(
            "Line: share of views watching each second, with its 95 % band. Strip: where people rewatch. "
            "The camera above the picture saves it as PNG."
        )
    with right:
        st.subheader("What happens where", anchor=False)
        if marks:
            st.html(markup.moments(marks, colours()))
        for mark in marks:
            tentative = " *Tentative: few views.*" if mark.tentative else ""
            st.markdown(f"{mark.sign} {mark.sentence}{tentative}")
        for what, reason in (("dropoffs", facts.dropoffs.reason), ("moments", facts.moments.reason)):
            if reason is not None:
                st.caption(f"No {what}: {markdown(reason.text, 400)}.")
        if marks and not chosen.is_all:
            st.caption("Dropoffs and moments are of all views, not of the chosen ones alone.")


def _more(chosen: Selection, segments: list[Segment]) -> Selection:
    """One of the further sections; only the one that is shown is asked of the API."""
    sections: dict[str, Callable[[], Selection | None]] = {
        "Segments": lambda: _segments(chosen, segments),
        "Compare": lambda: _compare(chosen),
        "Day by day": lambda: _days(chosen),
        "Analyze with AI": lambda: _insights(chosen),
        "Downloads": lambda: _downloads(chosen),
    }
    st.divider()
    # None is open at first: each asks the API for as much as all above it, and the curve would come that much later.
    opened = "Compare" if chosen.compared else None
    picked = st.segmented_control("More about this video", list(sections), default=opened, key="section")
    if picked is None:
        st.caption("Segments side by side, other videos, days, why it may be so, and files to take along.")
        return chosen
    with told():
        return sections[picked]() or chosen
    return chosen


def _segments(chosen: Selection, segments: list[Segment]) -> None:
    there = [dimension for dimension in DIMENSIONS if any(segment.dimension == dimension for segment in segments)]
    if not there:
        st.info("There are no views to split into segments yet.", icon=":material/group_off:")
        return
    dimension = st.pills(
        "Split by", there, default=there[0], required=True, format_func=DIMENSIONS.__getitem__, key="dimension"
    )
    rows = [segment for segment in segments if segment.dimension == dimension]
    drawn = rows[:MAX_LINES]
    choices = [replace(chosen, segments={**chosen.segments, dimension: (row.value,)}) for row in drawn]
    curves = api().curves(choices)
    names = [sentences.segment_name(row.value) for row in drawn]
    chart(
        figures.side_by_side(list(zip(names, curves, strict=True)), colours()),
        f"segments-{chosen.video_id}",
        f"Retention curves by {DIMENSIONS[dimension].lower()}: {', '.join(names)}.",
        key="segments",
    )
    st.dataframe(
        {
            DIMENSIONS[dimension]: [sentences.segment_name(row.value) for row in rows],
            "Views": [row.views for row in rows],
            "Share of views": [100 * row.share_of_views for row in rows],
            "Average viewed": [row.average_view_percentage for row in rows],
            "Completion": [None if row.completion_rate is None else 100 * row.completion_rate for row in rows],
            "At 0:30": [None if row.intro_retention_30s is None else 100 * row.intro_retention_30s for row in rows],
        },
        hide_index=True,
        column_config={
            "Views": st.column_config.NumberColumn(format="localized"),
            **{
                name: st.column_config.NumberColumn(format="%.1f %%")
                for name in ("Share of views", "Average viewed", "Completion", "At 0:30")
            },
        },
    )
    st.caption(
        f"Each curve is of its segment's own views. The table is of all days; lines are the {len(drawn)} largest."
    )


def _compare(chosen: Selection) -> Selection:
    known = {video.video_id: sentences.title(video.video_id, video.title) for video in api().videos().videos}
    others = [one for one in known if one != chosen.video_id]
    key = f"compared with {chosen.video_id}"
    if key not in st.session_state:
        st.session_state[key] = [one for one in chosen.compared if one in others]
    picked = st.multiselect(
        "Compare with", others, key=key, max_selections=MAX_COMPARED, format_func=lambda one: known[one]
    )
    found = api().compare([cast("str", chosen.video_id), *picked])
    names = [sentences.title(video.video_id, video.title) for video in found.videos]
    chart(
        figures.comparison(found, colours()),
        "comparison",
        f"Retention by part of the video of {', '.join(names)}.",
        key="comparison",
    )
    without = [markdown(name) for name, video in zip(names, found.videos, strict=True) if not video.views]
    if without:
        st.caption(f"Nobody watched {', '.join(without)}, so there is no curve.")
    st.caption("All views of each video, at the same part of its length.")
    return replace(chosen, compared=tuple(picked))


def _days(chosen: Selection) -> None:
    days = api().days(cast("str", chosen.video_id)).days
    shown = [
        day
        for day in days
        if (chosen.first_day is None or day.day >= chosen.first_day)
        and (chosen.last_day is None or day.day <= chosen.last_day)
    ]
    if not shown:
        st.info("Nobody watched on these days.", icon=":material/event_busy:")
        return
    views = sum(day.views for day in shown)
    chart(
        figures.days(shown, colours()),
        f"days-{chosen.video_id}",
        f"{plural(views, 'view')} on {plural(len(shown), 'day')}, {shown[0].day} to {shown[-1].day}.",
        key="days",
    )


def _insights(chosen: Selection) -> None:
    fresh = st.button("Analyze now", icon=":material/auto_awesome:", type="primary", key="analyze")
    try:
        with st.spinner("Reading the figures …"):
            found = api().insights(cast("str", chosen.video_id), fresh=fresh)
    except ApiProblem as error:
        if error.name != "not-found":
            raise
        st.info("This API has no analyses: it is of an older version.", icon=":material/auto_awesome:")
        return
    if found.insights is None:
        text = markdown(found.reason.text, 400) if found.reason else "nothing was said about this video yet"
        st.info(f"No analysis is kept: {text}. Ask for one with the button.", icon=":material/auto_awesome:")
        return
    st.markdown(passage(insights.blocks(found.insights)))
    st.caption("Of all views of this video, not of the chosen ones alone.")


def _downloads(chosen: Selection) -> None:
    video_id = cast("str", chosen.video_id)
    name = "".join(sign if sign.isalnum() or sign in "-_." else "-" for sign in video_id)[:80].strip("-.") or "video"
    with st.container(horizontal=True):
        st.download_button(
            "Report (HTML)",
            lambda: api().report(video_id, "html"),
            f"{name}.html",
            "text/html",
            on_click="ignore",
            icon=":material/description:",
        )
        st.download_button(
            "Report (Markdown)",
            lambda: api().report(video_id, "md"),
            f"{name}.md",
            "text/markdown",
            on_click="ignore",
            icon=":material/article:",
        )
        st.download_button(
            "Picture (SVG)",
            lambda: api().report(video_id, "svg"),
            f"{name}.svg",
            "image/svg+xml",
            on_click="ignore",
            icon=":material/image:",
        )
        st.download_button(
            "Curve (CSV)",
            lambda: api().curve_csv(chosen),
            f"{name}.csv",
            "text/csv",
            on_click="ignore",
            icon=":material/table:",
        )
    st.caption("Reports are of all views, the CSV is every second of the chosen ones. PNG: the camera above the curve.")
