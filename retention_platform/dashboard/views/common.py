"""What every page uses: the API, the theme's colours, how a chart is shown, and what is said when something is away."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import plotly.graph_objects as go  # type: ignore[import-untyped]
import streamlit as st

from retention_platform.api.models.service import Health
from retention_platform.dashboard import sentences, theme
from retention_platform.dashboard.client import Api, ApiAway, ApiProblem
from retention_platform.dashboard.theme import Palette
from retention_platform.errors import ServiceError
from retention_platform.report.untrusted import markdown
from retention_platform.settings import get_settings

#: Seconds between two looks whether the API is back.
RETRY_SECONDS = 2.0


@st.cache_resource(show_spinner=False)
def api() -> Api:
    """The API of the settings, one connection pool for all viewers of the dashboard."""
    settings = get_settings()
    keys = settings.api_key_list()
    return Api(settings.api_base_url, keys[0].decode() if keys else "")


def colours() -> Palette:
    """The colours of the theme that this viewer sees."""
    return theme.palette(dark=st.context.theme.type == "dark")


def chart(figure: go.Figure, name: str, told: str, *, key: str) -> None:
    """Show a figure; ``told`` is for who does not see it, ``name`` that of its PNG."""
    config = {
        "displaylogo": False,
        "showSendToCloud": False,
        "modeBarButtonsToRemove": ["lasso2d", "select2d", "autoScale2d"],
        "toImageButtonOptions": {"format": "png", "filename": name, "scale": 2},
    }
    st.plotly_chart(figure, key=key, config=config, alt=told)


@contextmanager
def told() -> Iterator[None]:
    """What the API cannot answer becomes what to do about it, and the page comes back by itself."""
    try:
        yield
    except ApiAway as error:
        st.error(f"**Disconnected.** {markdown(str(error))}", icon=":material/cloud_off:")
        _until_back()
    except ApiProblem as error:
        if error.status == 404:
            st.warning(f"**{markdown(error.title)}.** {markdown(str(error), 400)}", icon=":material/search_off:")
            return
        st.error(f"**{markdown(error.title)}.** {markdown(str(error), 400)}", icon=":material/database_off:")
        if error.status == 503:
            _until_back()
    except ServiceError as error:
        st.error(markdown(str(error), 400), icon=":material/error:")


def _until_back() -> None:
    st.session_state.away_since = time.monotonic()
    _look()


@st.fragment(run_every=RETRY_SECONDS)
def _look() -> None:
    st.caption("This page looks every two seconds whether it is back, and then shows itself again.")
    # The first look is part of the very run that failed: to begin anew at once would never end.
    if time.monotonic() - st.session_state.away_since < RETRY_SECONDS / 2:
        return
    try:
        parts = api().health().dependencies
    except ServiceError:
        return
    if parts.clickhouse.status == "up" and parts.marts.status == "up":
        st.rerun()


def freshness(health: Health) -> None:
    """How fresh the figures are, in one line; a warning when they are stale."""
    text, alarming = sentences.freshness(health)
    if alarming:
        st.warning(text, icon=":material/history:")
    else:
        st.caption(text)
