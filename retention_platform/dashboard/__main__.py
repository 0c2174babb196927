"""`python -m retention_platform.dashboard`: serve the dashboard until told to stop."""

from __future__ import annotations

import os
import socket
import sys
import threading
from pathlib import Path

from retention_platform.dashboard.theme import streamlit_options
from retention_platform.errors import RetentionError
from retention_platform.settings import Settings, get_settings

APP = Path(__file__).with_name("app.py")


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


def check_port(settings: Settings) -> None:
    """Raise RetentionError when the address cannot be listened on."""
    host, port = settings.dashboard_host, settings.dashboard_port
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        socket.create_server((host, port), family=family).close()
    except OSError as error:
        number = error.errno or 0
        reason = os.strerror(number) if number > 0 else error.strerror or str(error)
        raise RetentionError(
            f"cannot listen on {host}:{port} ({reason.lower()}): stop what uses it, or set DASHBOARD_PORT"
        ) from None


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
        check_port(settings)
    except RetentionError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(1) from None
    from streamlit.web import bootstrap

    threading.Thread(target=warm, daemon=True).start()
    chosen = options(settings)
    bootstrap.load_config_options(chosen)
    bootstrap.run(str(APP), False, [], chosen)


if __name__ == "__main__":
    main()
