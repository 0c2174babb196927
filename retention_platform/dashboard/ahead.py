"""Tells browsers of what draws charts before a page needs it: 5 MB that they can fetch and read while the API is asked.

Streamlit's pages ask for it no sooner than the first chart is there to be drawn.
"""

from __future__ import annotations

from pathlib import Path

import streamlit
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_STATIC = Path(streamlit.__file__).with_name("static")


def link() -> str | None:
    """The value of a ``Link`` header for Streamlit's part that draws Plotly's charts; None when it has none."""
    found = sorted(_STATIC.glob("static/js/PlotlyChart.*.js"))
    return f"<./{found[0].relative_to(_STATIC).as_posix()}>; rel=modulepreload; crossorigin" if found else None


class ChartsAhead:
    """Adds the header to every page."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._link = link()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """An ASGI application."""

        async def told(message: Message) -> None:
            if message["type"] == "http.response.start" and self._link is not None:
                headers = MutableHeaders(scope=message)
                if headers.get("content-type", "").startswith("text/html"):
                    headers.append("Link", self._link)
            await send(message)

        await self._app(scope, receive, told if scope["type"] == "http" else send)
