"""The catalogue: every video with its figures, the shape of its curve, viewers now and the last week."""

from __future__ import annotations

import streamlit as st

from retention_platform.dashboard import markup
from retention_platform.dashboard.views.common import api, colours, freshness
from retention_platform.report.words import count, length, plural

PAGE_SIZE = 25
#: What the catalogue can be in the order of, by what people see.
ORDERS = {
    "Most viewed": ("views", "desc"),
    "Most watch time": ("watch_time_s", "desc"),
    "Best average percentage": ("average_view_percentage", "desc"),
    "Worst average percentage": ("average_view_percentage", "asc"),
    "Best completion": ("completion_rate", "desc"),
    "Worst completion": ("completion_rate", "asc"),
    "Last watched": ("last_event_at", "desc"),
    "Newest": ("published_at", "desc"),
    "Longest": ("duration_s", "desc"),
    "Title": ("title", "asc"),
}


def show() -> None:
    """The page."""
    st.title("Videos")
    search, order, page = _controls()
    sort, direction = ORDERS[order]
    found = api().overview(search, sort, direction, PAGE_SIZE, (page - 1) * PAGE_SIZE)
    now = api().viewers_now()
    freshness(api().health())
    first, second, third, fourth = st.columns(4)
    first.metric("Videos", count(found.totals.videos), border=True)
    second.metric("Views", count(found.totals.views), border=True)
    third.metric("Watch time", length(found.totals.watch_time_s), border=True)
    fourth.metric("Watching now", count(now.viewers), border=True)
    if not found.videos:
        _nothing(search, found.total)
        return
    watching = {video.video_id: video.viewers for video in now.videos}
    st.html(markup.catalogue(found.videos, watching, colours()))
    last = (page - 1) * PAGE_SIZE + len(found.videos)
    st.caption(
        f"{(page - 1) * PAGE_SIZE + 1:,} to {last:,} of {plural(found.total, 'video')}. "
        "Week: the last 7 whole days, and the change to the 7 before; points of the average percentage viewed likewise."
    )
    _pages(page, found.total)


def _controls() -> tuple[str, str, int]:
    """Search, order and page, which the address holds too."""
    query = st.query_params
    state = st.session_state
    if "search" not in state:
        state.search = query.get("search", "")[:200]
    if "order" not in state:
        state.order = query.get("sort") if query.get("sort") in ORDERS else "Most viewed"
    if "page" not in state:
        text = query.get("page", "1")
        state.page = int(text) if text.isdecimal() and 0 < int(text) < 10**6 else 1
    left, right = st.columns([3, 1])
    left.text_input(
        "Search", key="search", placeholder="Part of a title or an id", max_chars=200, on_change=_first_page
    )
    right.selectbox("Order", list(ORDERS), key="order", on_change=_first_page)
    wanted = {"search": state.search, "sort": "" if state.order == "Most viewed" else state.order}
    wanted["page"] = "" if state.page == 1 else str(state.page)
    st.query_params.from_dict({name: value for name, value in wanted.items() if value})
    return state.search, state.order, state.page


def _first_page() -> None:
    st.session_state.page = 1


def _turn(by: int) -> None:
    st.session_state.page += by


def _pages(page: int, total: int) -> None:
    pages = -(-total // PAGE_SIZE)
    if pages > 1:
        with st.container(horizontal=True, horizontal_alignment="center", vertical_alignment="center"):
            st.button("Back", disabled=page == 1, on_click=_turn, args=(-1,), icon=":material/chevron_left:")
            st.markdown(f"Page {page:,} of {pages:,}", width="content")
            st.button("Next", disabled=page >= pages, on_click=_turn, args=(1,), icon=":material/chevron_right:")


def _nothing(search: str, total: int) -> None:
    if total:
        st.info("There are fewer pages than this one's number.", icon=":material/last_page:")
        st.button("To the first page", on_click=_first_page)
    elif search:
        st.info("No title and no id holds this text. Search for a part of it.", icon=":material/search_off:")
    else:
        st.info(
            "No video was described or played yet. Send events to the topic `playback_events`, import a log with "
            "`retention import`, or invent viewers with `retention produce`.",
            icon=":material/movie:",
        )
