"""`python -m retention_platform.api`: serve the API until told to stop."""

from __future__ import annotations

import logging
import os
import socket
import sys
import time

import uvicorn

from retention_platform.api.app import create_app
from retention_platform.api.middleware import access_log
from retention_platform.errors import RetentionError
from retention_platform.settings import Settings, get_settings

#: Seconds that requests under way may take to end after SIGTERM or Ctrl-C.
GRACE_SECONDS = 2


def listen(settings: Settings) -> socket.socket:
    """A listening socket on the configured address. Raises RetentionError when it cannot be had."""
    host, port = settings.api_host, settings.api_port
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family, backlog=2048)
    except OSError as error:
        # Python puts the address into the text of the system's error; those of name resolution have negative numbers.
        number = error.errno or 0
        reason = os.strerror(number) if number > 0 else error.strerror or str(error)
        raise RetentionError(
            f"cannot listen on {host}:{port} ({reason.lower()}): stop what uses it, or set API_HOST and API_PORT"
        ) from None


def _access_lines() -> logging.Handler:
    handler = logging.StreamHandler()
    formatter = logging.Formatter("%(asctime)sZ %(message)s", "%Y-%m-%dT%H:%M:%S")
    formatter.converter = time.gmtime
    handler.setFormatter(formatter)
    return handler


def main() -> None:
    """Serve until a signal; a user's error is one line on stderr and exit code 1."""
    try:
        settings = get_settings()
        with listen(settings) as listening:
            config = uvicorn.Config(create_app(settings), timeout_graceful_shutdown=GRACE_SECONDS, access_log=False)
            access_log.setLevel(logging.INFO)
            access_log.addHandler(_access_lines())
            uvicorn.Server(config).run(sockets=[listening])
    except RetentionError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(1) from None


if __name__ == "__main__":
    main()
