"""A listening socket for a service, or why it cannot be had: the one place that words a port that is taken."""

from __future__ import annotations

import os
import socket

from retention_platform.errors import RetentionError


def listen(host: str, port: int, variables: str) -> socket.socket:
    """A listening socket; port 0 takes a free one. Raises RetentionError naming the variables that choose another."""
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family, backlog=2048)
    except OSError as error:
        # Python puts the address into the text of the system's error; those of name resolution have negative numbers.
        number = error.errno or 0
        reason = os.strerror(number) if number > 0 else error.strerror or str(error)
        raise RetentionError(
            f"cannot listen on {host}:{port} ({reason.lower()}): stop what uses it, or set {variables}"
        ) from None
