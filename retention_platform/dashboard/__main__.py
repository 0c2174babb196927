"""`python -m retention_platform.dashboard`: serve the dashboard until told to stop."""

from __future__ import annotations

import logging
import socket
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import uvicorn
from starlette.middleware import Middleware

from retention_platform import listening, logs
from retention_platform.dashboard.ahead import ChartsAhead
from retention_platform.dashboard.theme import streamlit_options
from retention_platform.errors import RetentionError
from retention_platform.settings import Settings, get_settings

if TYPE_CHECKING:
    from streamlit.starlette import App

SCRIPT = Path(__file__).with_name("app.py")
#: Seconds that answers under way may take to end after SIGTERM or Ctrl-C; open pages connect again by themselves.
GRACE_SECONDS = 1


def options(settings: Settings) -> dict[str, object]:
    """Streamlit's options: our address and themes, nothing sent anywhere, no files watched."""
    return {
        "server.address": settings.dashboard_host,
        "server.port": settings.dashboard_port,
        "server.headless": True,
        "server.fileWatcherType": "none",
        "server.showEmailPrompt": False,
        "browser.gatherUsageStats": False,
        "client.toolbarMode": "viewer",
        "client.showErrorDetails": "none",
        **streamlit_options(),
    }


def listen(settings: Settings) -> socket.socket:
    """A listening socket on the configured address. Raises RetentionError when it cannot be had."""
    return listening.listen(settings.dashboard_host, settings.dashboard_port, "DASHBOARD_HOST and DASHBOARD_PORT")


def create_app(settings: Settings) -> App:
    """The dashboard as an ASGI application; its options are those of the process."""
    from streamlit.starlette import App
    from streamlit.web import bootstrap

    bootstrap.load_config_options(options(settings))
    if settings.log_format == "json":
        logs.to_stderr("json", logging.WARNING)
        _log_with_the_process()
    return App(str(SCRIPT), middleware=[Middleware(ChartsAhead)])


def _log_with_the_process() -> None:
    """Let Streamlit's loggers, later ones too, write as the process does: each would have a form of its own."""
    from streamlit import logger as theirs

    def to_root(logger: logging.Logger) -> None:
        logger.handlers.clear()
        logger.propagate = True

    theirs.setup_formatter = to_root
    theirs.update_formatter()


def warm() -> None:
    """Do once what takes long when it is done first, so that the first viewer does not wait for it."""
    import plotly.tools  # type: ignore[import-untyped]

    from retention_platform.api.models.curves import RetentionCurve
    from retention_platform.dashboard import figures, theme
    from retention_platform.dashboard.views import common, live, overview, pipeline, video  # noqa: F401

    nothing = RetentionCurve.model_construct(points=[], duration_s=1.0, views=0)
    plotly.tools.return_figure_from_figure_or_data(figures.retention(nothing, theme.palette(dark=False)), True)
    common.api()


def main() -> None:
    """Serve until a signal; a user's error is one line on stderr and exit code 1."""
    try:
        settings = get_settings()
        with listen(settings) as taken:
            threading.Thread(target=warm, daemon=True).start()
            config = uvicorn.Config(
                create_app(settings),
                timeout_graceful_shutdown=GRACE_SECONDS,
                access_log=False,
                **{**logs.for_uvicorn(settings.log_format), "log_level": "warning"},
            )
            uvicorn.Server(config).run(sockets=[taken])
    except RetentionError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(1) from None


if __name__ == "__main__":
    main()
