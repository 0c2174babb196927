"""One response, from its first header to its end: held back while it can still be an error, then streamed."""

from __future__ import annotations

import asyncio
import tempfile
import time

from starlette.requests import Request
from starlette.types import Scope, Send

from retention_platform.embedded.clickhouse.blocks import BlockEncoder
from retention_platform.embedded.clickhouse.codecs import Encoder, Plain, encoder
from retention_platform.embedded.clickhouse.engine import Engine, Run
from retention_platform.embedded.clickhouse.errors import AbortedError, EngineError
from retention_platform.embedded.clickhouse.pipes import Reader
from retention_platform.embedded.clickhouse.protocol import wire_of
from retention_platform.embedded.clickhouse.request import Asked
from retention_platform.embedded.clickhouse.response import exception_block, media_type, new_tag, summary_of

#: Bytes of a result that are held back, as by the server: so much can still be replaced by an error.
_HELD_BACK = 1 << 20
#: Seconds that the first bytes wait for the rest. A result that is whole by then has true counts in its headers.
_PATIENCE = 0.01
#: Pieces of a body that take longer to compress than a change of thread, and that are better not copied.
_MUCH = 64 * 1024
#: Seconds between an error amid a result and the end of the connection: drivers that are told of both at once forget
#: what they have not read yet.
_TO_BE_READ = 0.1

SERVER_NAME = "retention"


class Answer:
    """The response to one request."""

    def __init__(self, engine: Engine, scope: Scope, send: Send) -> None:
        #: What is asked for; None as long as the request is not understood.
        self.asked: Asked | None = None
        self._engine = engine
        self._accepted = Request(scope).headers.get("Accept-Encoding", "")
        self._wire = wire_of(scope)
        self._send = send
        self._stages: list[Encoder] = []

    @property
    def query_id(self) -> str:
        """The id of the query, as far as known."""
        return self.asked.query_id if self.asked else ""

    async def stream(self, run: Run, result: Reader, execution: asyncio.Future[None], output: str) -> None:
        """Send a result as it comes. Raises EngineError while nothing is sent, AbortedError afterwards."""
        asked = self.asked
        assert asked is not None
        tag = new_tag()
        with tempfile.SpooledTemporaryFile(_HELD_BACK) as held:
            ended = await self._hold_back(run, result, held, asked)
            if ended:
                await execution
            counts = run.counts_now()
            # Of what the engine wrote into a pipe only this side knows the size.
            counts.result_bytes = counts.result_bytes or held.tell()
            headers = self._common() | {
                "Content-Type": media_type(output),
                "X-ClickHouse-Exception-Tag": tag,
                "X-ClickHouse-Summary": summary_of(counts),
            }
            # Drivers tell an empty result from none by it.
            if run.gives_result or not ended:
                headers["X-ClickHouse-Format"] = output
            self._choose_stages(asked, headers)
            size = held.tell()
            held.seek(0)
            if ended and size <= _HELD_BACK and not self._has_begun:
                await self._at_once(200, headers, held.read())
                return
            await self._begin(headers)
            while piece := held.read(_HELD_BACK):
                await self._body(await self._encoded(piece))
        while not ended:
            more = await result.read() or b""
            ended = not more
            await self._body(await self._encoded(more))
        try:
            await execution
        except EngineError as error:
            block = exception_block(error.text(self._engine.version), tag)
            await self._body(await self._encoded(block) + self._rest())
            await asyncio.sleep(_TO_BE_READ)
            raise AbortedError from None
        await self._body(self._rest(), more=False)

    async def fail(self, error: EngineError) -> None:
        """Answer with an error. Raises AbortedError when a success is begun already."""
        headers = self._common() | {
            "Content-Type": "text/plain; charset=UTF-8",
            "X-ClickHouse-Exception-Code": str(error.code),
        }
        text = error.text(self._engine.version)
        if self._has_begun:
            tag = new_tag()
            await self._begin(headers | {"X-ClickHouse-Exception-Tag": tag})
            await self._body(exception_block(text, tag))
            await asyncio.sleep(_TO_BE_READ)
            raise AbortedError
        await self._at_once(error.status, headers, f"{text}\n".encode("utf-8", "surrogateescape"))

    async def _hold_back(
        self,
        run: Run,
        result: Reader,
        held: tempfile.SpooledTemporaryFile[bytes],
        asked: Asked,
    ) -> bool:
        """Collect a result's beginning; True when that is all of it."""
        deadline: float | None = None
        told = time.monotonic()
        while asked.whole or held.tell() < max(_HELD_BACK, asked.buffer_bytes):
            now = time.monotonic()
            waits = []
            if deadline is not None:
                waits.append(max(deadline - now, 0))
            if asked.progress_seconds is not None and self._wire is not None:
                waits.append(max(told + asked.progress_seconds - now, 0))
            piece = await result.read(min(waits, default=None))
            if piece == b"":
                return True
            if piece is not None:
                held.write(piece)
                if deadline is None and not asked.whole and not asked.buffer_bytes:
                    deadline = time.monotonic() + _PATIENCE
            elif deadline is not None and time.monotonic() >= deadline:
                return False
            elif self._wire is not None:
                told = time.monotonic()
                progress = {"X-ClickHouse-Progress": summary_of(run.counts_now())}
                self._wire.send(_encoded_headers(progress if self._wire.begun else self._common() | progress))
        return False

    def _common(self) -> dict[str, str]:
        """The headers of every answer; those already sent are left out."""
        if self._has_begun:
            return {}
        headers = {"X-ClickHouse-Server-Display-Name": SERVER_NAME, "X-ClickHouse-Timezone": self._engine.timezone}
        if self.asked is not None:
            headers["X-ClickHouse-Query-Id"] = self.asked.query_id
            headers["X-ClickHouse-Timezone"] = self.asked.settings.get("session_timezone") or self._engine.timezone
            if self.asked.cors:
                headers["Access-Control-Allow-Origin"] = "*"
        return headers

    @property
    def _has_begun(self) -> bool:
        return self._wire is not None and self._wire.begun

    def _choose_stages(self, asked: Asked, headers: dict[str, str]) -> None:
        """Choose the compressions of the body; named in the headers but for ClickHouse's own."""
        if asked.packed_out:
            self._stages.append(BlockEncoder())
        outer, name = encoder(self._accepted, asked.zlib_level) if asked.may_compress else (Plain(), "")
        if name:
            headers["Content-Encoding"] = name
            self._stages.append(outer)

    async def _encoded(self, piece: bytes) -> bytes:
        if not self._stages or len(piece) < _MUCH:
            return self._encode(piece)
        return await asyncio.to_thread(self._encode, piece)

    def _encode(self, piece: bytes) -> bytes:
        for stage in self._stages:
            piece = stage.feed(piece)
        return piece

    def _rest(self) -> bytes:
        """What the stages still hold."""
        rest = b""
        for stage in self._stages:
            rest = stage.feed(rest) + stage.finish()
        return rest

    async def _at_once(self, status: int, headers: dict[str, str], body: bytes) -> None:
        if self._stages and not body:
            # Nothing needs no compression.
            headers.pop("Content-Encoding", None)
        elif self._stages:
            body = await self._encoded(body) + self._rest()
        headers["Content-Length"] = str(len(body))
        await self._send({"type": "http.response.start", "status": status, "headers": _encoded_headers(headers)})
        await self._body(body, more=False)

    async def _begin(self, headers: dict[str, str]) -> None:
        if self._wire is not None and self._wire.begun:
            self._wire.finish(_encoded_headers(headers))
        else:
            await self._send({"type": "http.response.start", "status": 200, "headers": _encoded_headers(headers)})

    async def _body(self, data: bytes, *, more: bool = True) -> None:
        if self._wire is not None and self.asked is not None:
            await self._wire.drained(self.asked.send_seconds)
        if len(data) >= _MUCH and more and self._wire is not None and await self._wire.write(data):
            return
        if data or not more:
            await self._send({"type": "http.response.body", "body": data, "more_body": more})


def _encoded_headers(headers: dict[str, str]) -> list[tuple[bytes, bytes]]:
    return [(name.encode(), value.encode("latin-1", "replace")) for name, value in headers.items()]
