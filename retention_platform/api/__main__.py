"""`python -m retention_platform.api`: serve the API until told to stop."""

from __future__ import annotations

import logging
import socket
import sys
import time

import uvicorn

from retention_platform import listening
from retention_platform.api.app import create_app
from retention_platform.api.middleware import access_log
from retention_platform.errors import RetentionError
from retention_platform.settings import Settings, get_settings

#: Seconds that requests under way may take to end after SIGTERM or Ctrl-C.
GRACE_SECONDS = 2
#: An idle connection is kept longer than clients and proxies trust one: who asks on it must not find it just closed.
KEEP_ALIVE_SECONDS = 75


def listen(settings: Settings) -> socket.socket:
    """A listening socket on the configured address. Raises RetentionError when it cannot be had."""
    return listening.listen(settings.api_host, settings.api_port, "API_HOST and API_PORT")


def _access_lines() -> logging.Handler:
    handler = logging.StreamHandler()
    formatter = logging.Formatter("%(asctime)sZ %(message)s", "%Y-%m-%dT%H:%M:%S")
    formatter.converter = time.gmtime
    handler.setFormatter(formatter)
    return handler


def server_config(settings: Settings) -> uvicorn.Config:
    """How the API is served."""
    return uvicorn.Config(
        create_app(settings),
        timeout_graceful_shutdown=GRACE_SECONDS,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        access_log=False,
    )


def main() -> None:
    """Serve until a signal; a user's error is one line on stderr and exit code 1."""
    try:
        settings = get_settings()
        with listen(settings) as taken:
            config = server_config(settings)
            access_log.setLevel(logging.INFO)
            access_log.addHandler(_access_lines())
            uvicorn.Server(config).run(sockets=[taken])
    except RetentionError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(1) from None


if __name__ == "__main__":
    main()
