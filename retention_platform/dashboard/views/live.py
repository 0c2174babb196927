"""Now: who watches, how many at the same time in the last hour, and the curve of the last hour's sessions."""

from __future__ import annotations

from typing import cast

import streamlit as st

from retention_platform.dashboard import figures, sentences
from retention_platform.dashboard.views.common import api, chart, colours, told
from retention_platform.report.untrusted import markdown
from retention_platform.report.words import count, plural

REFRESH_SECONDS = 3.0
#: Videos with a line of their own.
MAX_LINES = 5
# Streamlit fades what is being renewed; every few seconds that would flicker.
_STEADY = '<style>[data-stale="true"] { opacity: 1 !important; transition: none !important; }</style>'


def show() -> None:
    """The page; its parts refresh themselves."""
    st.title("Live", anchor=False)
    st.caption("Straight from the stream, before any refresh of the figures; renewed every few seconds. Times are UTC.")
    st.html(_STEADY)
    _now()
    known = {video.video_id: sentences.title(video.video_id, video.title) for video in api().videos().videos}
    if not known:
        return
    st.subheader("Curve of the last hour", anchor=False)
    state = st.session_state
    if state.get("live_video") not in known:
        asked = st.query_params.get("video")
        watched = [video.video_id for video in api().viewers_now().videos]
        state.live_video = next((one for one in (asked, *watched) if one in known), next(iter(known)))
    video_id = cast("str", st.selectbox("Video", list(known), key="live_video", format_func=lambda one: known[one]))
    st.query_params.from_dict({"video": video_id})
    _curve(video_id)


@st.fragment(run_every=REFRESH_SECONDS)
def _now() -> None:
    with told():
        now = api().viewers_now()
        together = api().concurrency_live()
        first, second, third = st.columns(3)
        first.metric("Watching now", count(now.viewers), border=True)
        second.metric("Most at once, last hour", count(together.peak), border=True)
        third.metric("Videos watched now", count(len(now.videos)), border=True)
        if together.reason is not None:
            st.info(
                "Nobody watched in the last hour. Start invented viewers with `retention produce`, or see Pipeline for "
                "whether events arrive.",
                icon=":material/bedtime:",
            )
            return
        watched = now.videos[:MAX_LINES]
        lines = {
            sentences.title(video.video_id, video.title): found.instants
            for video, found in zip(watched, api().concurrencies_live(video.video_id for video in watched), strict=True)
        }
        left, right = st.columns([7, 3])
        with left:
            st.subheader("At the same time", anchor=False)
            chart(
                figures.concurrency(together.instants, lines, colours()),
                "concurrency",
                f"Concurrent viewers of the last hour: at most {together.peak}, now {now.viewers}.",
                key="concurrency",
            )
        with right:
            st.subheader("Watched now", anchor=False)
            for video in now.videos[:12]:
                name = markdown(sentences.title(video.video_id, video.title))
                st.markdown(f"**{video.viewers:,}** · {name}")
            if not now.videos:
                st.caption("Nobody at this moment.")
            if len(now.videos) > 12:
                st.caption(f"and {plural(len(now.videos) - 12, 'video')} more")


@st.fragment(run_every=REFRESH_SECONDS)
def _curve(video_id: str) -> None:
    with told():
        curve = api().live_curve(video_id)
        if curve.reason is not None:
            st.info(f"No live curve: {markdown(curve.reason.text)}.", icon=":material/bedtime:")
            return
        chart(
            figures.live_curve(curve, colours()),
            "live-curve",
            f"Live curve of {plural(curve.views, 'session')} of the last hour.",
            key="live_curve",
        )
        few = "" if curve.is_sufficient else " That is few: read it as who watches, not as a rate."
        st.caption(
            f"Of {plural(curve.views, 'session')} that played in the last hour, the share that played each second.{few}"
        )
