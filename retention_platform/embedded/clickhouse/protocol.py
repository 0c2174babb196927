"""The HTTP connection under the application: uvicorn's, with what ASGI has no words for.

ASGI sends all headers at once. Progress is told by headers that come while a query runs, so that a client or a proxy
that waits does not give up; `Wire.send` writes them to the connection itself. And ASGI hands a body over in pieces,
each copied several times; `Wire.splice` has the kernel move a big one from the socket into a pipe.
"""

from __future__ import annotations

import asyncio

import httptools
from starlette.types import Scope
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from retention_platform.embedded.clickhouse.pipes import CAN_SPLICE, Inlet, Writer

#: ASGI's name for what a server can do beyond it.
EXTENSION = "retention.wire"
#: Longest URL in bytes: the engine's own http_max_uri_size.
MAX_URL = 1 << 20
#: Bytes of a body to come that make it worth taking the socket for.
_MUCH = 4 << 20


def wire_of(scope: Scope) -> Wire | None:
    """The Wire of a request, where the connection has one."""
    wire: Wire | None = scope.get("extensions", {}).get(EXTENSION, {}).get("")
    return wire


class Wire:
    """The connection, as one request may use it past ASGI."""

    def __init__(self, protocol: Protocol, length: int) -> None:
        self._protocol = protocol
        #: Bytes of the body that have not come yet; 0 when its length is not told.
        self.left = length
        #: Whether the head of the response is begun.
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

    async def write(self, data: bytes) -> bool:
        """Send a piece of a body in chunks as it is, where ASGI would copy it; False when it cannot be so sent."""
        cycle = self._protocol.cycle
        if not cycle.chunked_encoding or cycle.scope["method"] == "HEAD":
            return False
        if not cycle.disconnected:
            self._protocol.transport.writelines((b"%x\r\n" % len(data), data, b"\r\n"))
        return True

    async def drained(self, timeout: float | None) -> None:
        """Wait until the client has taken most of what it was sent.

        When it takes nothing for ``timeout`` seconds it is taken for gone, which ASGI tells.
        """
        cycle, flow = self._protocol.cycle, self._protocol.flow
        if flow.write_paused and not cycle.disconnected:
            try:
                await asyncio.wait_for(flow.drain(), timeout)
            except asyncio.TimeoutError:
                self._protocol.transport.abort()

    async def splice(self, pipe: Writer, timeout: float | None) -> None:
        """Move the rest of the body into a pipe when it is big; ASGI then tells that the body has ended.

        Bytes that the pipe does not take any more are dropped. The client going away closes the connection, which ASGI
        tells too. Raises asyncio.TimeoutError when nothing came for ``timeout`` seconds.
        """
        if self.left < _MUCH or not CAN_SPLICE:
            return
        protocol, cycle = self._protocol, self._protocol.cycle
        protocol.flow.pause_reading()
        await pipe.write(bytes(cycle.body))
        cycle.body.clear()
        inlet = Inlet(protocol.transport.get_extra_info("socket").fileno())
        try:
            self.left -= await inlet.move(pipe, self.left, timeout)
        except (asyncio.CancelledError, asyncio.TimeoutError):
            # Nobody knows where the next head would begin: the answer is the last.
            cycle.keep_alive = False
            raise
        finally:
            inlet.close()
        if self.left:
            cycle.disconnected = True
            protocol.transport.close()
        else:
            # The parser has not seen the body's end: another one reads the next head.
            protocol.renew_parser()
            cycle.more_body = False
            protocol.flow.resume_reading()
        cycle.message_event.set()


class Protocol(HttpToolsProtocol):
    """uvicorn's protocol that hands each request its Wire."""

    _wire: Wire

    def on_url(self, url: bytes) -> None:
        """Called by the parser for each piece of a URL. What it raises is answered with 400."""
        super().on_url(url)
        if len(self.url) > MAX_URL:
            raise ValueError("URL too long")

    def on_headers_complete(self) -> None:
        """Called by the parser when a request's head is read."""
        length = dict(self.headers).get(b"content-length", b"")
        self._wire = Wire(self, int(length) if length.isdigit() else 0)
        self.scope["extensions"] = {EXTENSION: {"": self._wire}}
        # httptools takes a URL apart by offsets of 16 bits; a query may be longer.
        self.url, _, query = self.url.partition(b"?")
        super().on_headers_complete()
        self.scope["query_string"] = query

    def on_body(self, body: bytes) -> None:
        """Called by the parser for each piece of a body."""
        self._wire.left -= len(body)
        super().on_body(body)

    def renew_parser(self) -> None:
        """Expect the head of a request next."""
        self.parser = httptools.HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)
