"""The HTTP connection under the application: uvicorn's, with headers that may be sent one by one.

ASGI sends all headers at once. Progress is told by headers that come while a query runs, so that a client or a proxy
that waits does not give up; `EarlyHeaders` writes them to the connection itself.
"""

from __future__ import annotations

from starlette.types import Scope
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

#: ASGI's name for what a server can do beyond it.
EXTENSION = "retention.early_headers"


def early_headers_of(scope: Scope) -> EarlyHeaders | None:
    """The EarlyHeaders of a request, where the connection has any."""
    early: EarlyHeaders | None = scope.get("extensions", {}).get(EXTENSION, {}).get("")
    return early


class EarlyHeaders:
    """Sends the head of one response in pieces; its body goes through ASGI as ever."""

    def __init__(self, protocol: HttpToolsProtocol) -> None:
        self._protocol = protocol
        self.begun = False

    def send(self, headers: list[tuple[bytes, bytes]]) -> None:
        """Send some headers; the status line of a success before the first."""
        lines = [b"%b: %b\r\n" % header for header in headers]
        if not self.begun:
            self.begun = True
            lines[:0] = [b"HTTP/1.1 200 OK\r\n"]
        self._protocol.transport.write(b"".join(lines))

    def finish(self, headers: list[tuple[bytes, bytes]]) -> None:
        """Send the last headers; a body in chunks follows."""
        self.send([*headers, (b"transfer-encoding", b"chunked")])
        self._protocol.transport.write(b"\r\n")
        # As uvicorn leaves it when it has sent such a head itself.
        cycle = self._protocol.cycle
        cycle.response_started = True
        cycle.waiting_for_100_continue = False
        cycle.chunked_encoding = True


class Protocol(HttpToolsProtocol):
    """uvicorn's protocol that hands each request its EarlyHeaders."""

    def on_headers_complete(self) -> None:
        """Called by the parser when a request's head is read."""
        self.scope["extensions"] = {EXTENSION: {"": EarlyHeaders(self)}}
        super().on_headers_complete()
