"""What Streamlit runs for every viewer: the pages there are, and the one that is asked for."""

from __future__ import annotations

import streamlit as st

from retention_platform.dashboard.views import live, overview, pipeline, video
from retention_platform.dashboard.views.common import told


def main() -> None:
    """Show the page of the address."""
    st.set_page_config(page_title="Retention", page_icon=":material/monitoring:", layout="wide")
    page = st.navigation(
        [
            st.Page(overview.show, title="Overview", icon=":material/grid_view:", url_path="overview", default=True),
            st.Page(video.show, title="Video", icon=":material/show_chart:", url_path="video"),
            st.Page(live.show, title="Live", icon=":material/sensors:", url_path="live"),
            st.Page(pipeline.show, title="Pipeline", icon=":material/conveyor_belt:", url_path="pipeline"),
        ],
        position="top",
    )
    with told():
        page.run()


main()
