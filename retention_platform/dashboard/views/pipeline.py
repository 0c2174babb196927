"""Whether what is shown can be relied on: parts, freshness, rejects with their reasons, last runs, links."""

from __future__ import annotations

from datetime import datetime, timezone

import streamlit as st

from retention_platform.api.models.audience import QualityFigure
from retention_platform.api.models.service import Health
from retention_platform.dashboard import sentences
from retention_platform.dashboard.views.common import api
from retention_platform.report.untrusted import markdown, plain
from retention_platform.report.words import NOTHING, count, length
from retention_platform.settings import get_settings

_PARTS = {"clickhouse": "ClickHouse", "marts": "Figures (marts)", "kafka": "Broker", "dagster": "Dagster"}
_SIGNS = {"up": "✓ up", "down": "✕ down", "unknown": "? unknown"}
_QUALITY = {
    "implausible_sessions": "Sessions left out: played faster than any player can",
    "invalid_intervals": "Played intervals left out: impossible for the video",
    "duplicate_messages": "Messages that came more than once, counted once",
    "late_messages": "Messages that came late, counted all the same",
}


def show() -> None:
    """The page."""
    st.title("Pipeline", anchor=False)
    health = api().health()
    _fresh(health)
    st.subheader("Parts", anchor=False)
    parts = {name: getattr(health.dependencies, name) for name in _PARTS}
    st.dataframe(
        {
            "Part": list(_PARTS.values()),
            "State": [_SIGNS[part.status] for part in parts.values()],
            "What it says": [plain(part.detail, 400) for part in parts.values()],
        },
        hide_index=True,
    )
    # Below here the warehouse is needed; above it is not, so that the page tells what is away.
    figures = api().quality().figures
    _rejects([figure for figure in figures if figure.figure == "rejected_messages"])
    _quality([figure for figure in figures if figure.figure in _QUALITY])
    _runs()


def _fresh(health: Health) -> None:
    text, alarming = sentences.freshness(health)
    if alarming:
        st.warning(text, icon=":material/history:")
    fresh = health.freshness
    now = health.checked_at
    first, second, third, fourth = st.columns(4)
    newest, computed = fresh.newest_ingested_at, fresh.marts_computed_at
    first.metric("Newest event stored", NOTHING if newest is None else sentences.ago(newest, now), border=True)
    second.metric("Figures computed", NOTHING if computed is None else sentences.ago(computed, now), border=True)
    lag = fresh.marts_lag_s
    third.metric("Figures behind events", NOTHING if lag is None else length(lag), border=True)
    waiting = fresh.ingest_lag_messages
    fourth.metric("Messages waiting", NOTHING if waiting is None else count(waiting), border=True)
    st.link_button("API documentation", f"{api().base_url}/docs", icon=":material/api:")


def _rejects(rows: list[QualityFigure]) -> None:
    st.subheader("Rejected messages", anchor=False)
    if not rows:
        st.caption("None: every message so far was the contract.")
        return
    st.dataframe(
        {
            "Field": [plain(row.field, 80) for row in rows],
            "What is wrong": [plain(row.reason, 200) for row in rows],
            "Messages": [row.found for row in rows],
        },
        hide_index=True,
    )
    st.caption("`retention rejects` lists them, `retention rejects replay` sends mended ones again. None is lost.")


def _quality(rows: list[QualityFigure]) -> None:
    st.subheader("What is in no figure, or came twice or late", anchor=False)
    if not rows:
        st.caption("Nothing was measured yet.")
        return
    st.dataframe(
        {
            "What": [_QUALITY[row.figure] for row in rows],
            "Found": [row.found for row in rows],
            "Of": [row.out_of for row in rows],
        },
        hide_index=True,
        column_config={name: st.column_config.NumberColumn(format="localized") for name in ("Found", "Of")},
    )


def _runs() -> None:
    st.subheader("Last runs", anchor=False)
    found = api().runs()
    if found.reason is not None:
        st.info(markdown(found.reason.text, 400), icon=":material/schedule:")
    else:
        now = datetime.now(timezone.utc)
        st.dataframe(
            {
                "Job": [plain(run.job, 80) for run in found.runs],
                "Status": [run.status.capitalize() for run in found.runs],
                "Asked for": [sentences.ago(run.created_at, now) for run in found.runs],
                "Took": [
                    NOTHING
                    if run.started_at is None or run.ended_at is None
                    else length((run.ended_at - run.started_at).total_seconds())
                    for run in found.runs
                ],
                "Log": [f"{found.dagster_url}/runs/{run.run_id}" for run in found.runs],
            },
            hide_index=True,
            column_config={"Log": st.column_config.LinkColumn(display_text="open in Dagster")},
        )
    settings = get_settings()
    docs = f"http://{settings.docs_host}:{settings.docs_port}"
    with st.container(horizontal=True):
        st.link_button("Dagster", found.dagster_url, icon=":material/account_tree:")
        st.link_button("dbt documentation", docs, icon=":material/schema:", help="every table and column")
