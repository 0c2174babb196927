"""`python -m retention_platform.api`: serve the API until told to stop."""

from __future__ import annotations

import logging
import socket
import sys
import time

import uvicorn

from retention_platform import listening, logs
from retention_platform.api.app import create_app
from retention_platform.api.middleware import access_log
from retention_platform.errors import RetentionError
from retention_platform.settings import Settings, get_settings

#: An idle connection is kept longer than clients and proxies trust one: who asks on it must not find it just closed.
KEEP_ALIVE_SECONDS = 75


def listen(settings: Settings) -> socket.socket:
    """A listening socket on the configured address. Raises RetentionError when it cannot be had."""
    return listening.listen(settings.api_host, settings.api_port, "API_HOST and API_PORT")


def _log(settings: Settings) -> None:
    """Tell of every request: a line for people, or with the rest of the process in JSON."""
    access_log.setLevel(logging.INFO)
    if settings.log_format == "json":
        logs.to_stderr("json", logging.WARNING)
        return
    handler = logging.StreamHandler()
    formatter = logging.Formatter("%(asctime)sZ %(message)s", "%Y-%m-%dT%H:%M:%S")
    formatter.converter = time.gmtime
    handler.setFormatter(formatter)
    access_log.addHandler(handler)


def server_config(settings: Settings) -> uvicorn.Config:
    """How the API is served."""
    return uvicorn.Config(
        create_app(settings),
        timeout_graceful_shutdown=settings.api_stop_seconds,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        access_log=False,
        **logs.for_uvicorn(settings.log_format),
    )


def main() -> None:
    """Serve until a signal; a user's error is one line on stderr and exit code 1."""
    try:
        settings = get_settings()
        with listen(settings) as taken:
            config = server_config(settings)
            _log(settings)
            uvicorn.Server(config).run(sockets=[taken])
    except RetentionError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(1) from None


if __name__ == "__main__":
    main()
