"""`python -m retention_platform.docs_site`: serve dbt's documentation of the project until told to stop.

The page is made anew when the project's files changed since it was made last, and asks nothing of any other part.
"""

from __future__ import annotations

import logging
import sys
import threading
from pathlib import Path

import uvicorn
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from retention_platform import logs
from retention_platform.docs_site import site
from retention_platform.errors import RetentionError
from retention_platform.listening import listen
from retention_platform.orchestration.dbt_project import fingerprint
from retention_platform.settings import DBT_PROJECT_DIR, get_settings

#: dbt's page is one file with everything in it: scripts, styles and fonts inline. Whatever it would send or fetch
#: elsewhere, its usage statistics among them, the browser refuses.
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'unsafe-inline' 'unsafe-eval'; style-src 'unsafe-inline'; "
        "img-src 'self' data:; font-src data:; connect-src 'self'; base-uri 'none'; form-action 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}


class Site:
    """The page, kept until the project changes; for any number of threads."""

    def __init__(self, project_dir: Path = DBT_PROJECT_DIR) -> None:
        self._project_dir = project_dir
        self._lock = threading.Lock()
        self._made: tuple[str, str] = ("", "")

    def current(self) -> tuple[str, str]:
        """What names this state of the project, and the page of it. Raises RetentionError."""
        with self._lock:
            wanted = fingerprint(self._project_dir)
            if self._made[0] != wanted:
                self._made = wanted, site(self._project_dir)
            return self._made


def create_app(project_dir: Path = DBT_PROJECT_DIR) -> Starlette:
    """The page at `/`, and `/health`: whether the page can be made, else why not."""
    its_site = Site(project_dir)

    def page(request: Request) -> Response:
        try:
            version, html = its_site.current()
        except RetentionError as error:
            return Response(f"{error}\n", 503, HEADERS, "text/plain")
        tag = f'"{version}"'
        if request.headers.get("If-None-Match", "").removeprefix("W/") == tag:
            return Response(None, 304, {**HEADERS, "ETag": tag})
        return HTMLResponse(html, headers={**HEADERS, "ETag": tag})

    def health(_: Request) -> Response:
        try:
            its_site.current()
        except RetentionError as error:
            return JSONResponse({"status": "failed", "reason": str(error)}, 503)
        return JSONResponse({"status": "ok"})

    return Starlette(
        routes=[Route("/", page), Route("/index.html", page), Route("/health", health)],
        middleware=[Middleware(GZipMiddleware)],
    )


def main() -> None:
    """Serve until a signal; a user's error is one line on stderr and exit code 1."""
    try:
        settings = get_settings()
        with listen(settings.docs_host, settings.docs_port, "DOCS_HOST and DOCS_PORT") as listening:
            logs.to_stderr(settings.log_format, logging.WARNING)
            quiet = {**logs.for_uvicorn(settings.log_format), "log_level": "warning"}
            config = uvicorn.Config(create_app(), timeout_graceful_shutdown=1, access_log=False, **quiet)
            uvicorn.Server(config).run(sockets=[listening])
    except RetentionError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(1) from None


if __name__ == "__main__":
    main()
