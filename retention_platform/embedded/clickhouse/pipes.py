"""Pipes between the event loop and the engine's threads: the loop's ends never block, the engine's do.

What a thread has in its hands it gives as it is (`Reader.put`); pipes are for what the engine reads or writes as a
file.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import functools
import os
import threading
from collections import deque
from collections.abc import Callable

#: Bytes that a pipe holds once much goes through it; each one taken spares two changes of thread.
_WIDE = 1 << 20
#: Whether bytes can go from a socket into a pipe without coming up here: Linux.
CAN_SPLICE = hasattr(os, "splice")
#: Blocks of a result that may wait for the client, and the most bytes that one of them has.
_WAITING, _LONGEST = 4, 4 << 20
#: Linux's F_SETPIPE_SZ, which `fcntl` names from Python 3.10 on only where it exists.
_SET_SIZE = getattr(fcntl, "F_SETPIPE_SZ", None)


def _widen(descriptor: int) -> None:
    # A user's pipes may hold only so much together; then this one stays as it is.
    if _SET_SIZE is not None:
        with contextlib.suppress(OSError):
            fcntl.fcntl(descriptor, _SET_SIZE, _WIDE)


class _End:
    """The loop's end of a pipe."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor: int | None = descriptor
        self._moved = 0
        self._wake: Callable[[], None] | None = None
        os.set_blocking(descriptor, False)

    def _count(self, size: int) -> None:
        before, self._moved = self._moved, self._moved + size
        if before < _WIDE <= self._moved and self._descriptor is not None:
            _widen(self._descriptor)

    def close(self) -> None:
        """Close; what the other end does with the pipe from now on fails, or ends."""
        if self._descriptor is not None:
            # The number is at once another file's: the loop must not watch it any longer.
            if self._wake is not None:
                self._wake()
            os.close(self._descriptor)
            self._descriptor = None

    async def _ready(self, timeout: float | None, *, write: bool) -> bool:
        """Wait until the end can be used or is closed; False when ``timeout`` seconds passed before."""
        assert self._descriptor is not None
        descriptor, loop = self._descriptor, asyncio.get_running_loop()
        ready: asyncio.Future[bool] = loop.create_future()
        add, remove = (loop.add_writer, loop.remove_writer) if write else (loop.add_reader, loop.remove_reader)

        def settle(value: bool) -> None:
            if self._wake is not None:
                self._wake = None
                remove(descriptor)
            if not ready.done():
                ready.set_result(value)

        add(descriptor, settle, True)
        self._wake = functools.partial(settle, True)
        timer = loop.call_later(timeout, settle, False) if timeout is not None else None
        try:
            return await ready
        finally:
            settle(False)
            if timer is not None:
                timer.cancel()


class Reader(_End):
    """Reads what a thread puts, and what the engine writes into a pipe. Made in the loop, which reads it."""

    def __init__(self) -> None:
        descriptor, self.sink = os.pipe()
        super().__init__(descriptor)
        self._loop = asyncio.get_running_loop()
        self._blocks: deque[bytes] = deque()
        self._room = threading.Semaphore(_WAITING)

    def put(self, data: bytes) -> None:
        """Hand over data from a thread; waits for room. Raises BrokenPipeError when nobody reads any more."""
        for begin in range(0, len(data), _LONGEST):
            self._room.acquire()
            if self._descriptor is None:
                # The next one is not to wait either.
                self._room.release()
                raise BrokenPipeError
            self._blocks.append(data if len(data) <= _LONGEST else data[begin : begin + _LONGEST])
            self._loop.call_soon_threadsafe(self._notice)

    def end(self) -> None:
        """Tell from the thread that nothing more comes."""
        os.close(self.sink)

    async def read(self, timeout: float | None = None) -> bytes | None:
        """The next bytes; empty at the end, None when nothing came within ``timeout`` seconds."""
        while True:
            if self._blocks:
                self._room.release()
                return self._blocks.popleft()
            if self._descriptor is None:
                return b""
            try:
                data = os.read(self._descriptor, _WIDE)
            except BlockingIOError:
                if not await self._ready(timeout, write=False):
                    return None
                continue
            # The end may have come behind a block that was put since we looked.
            if data or not self._blocks:
                self._count(len(data))
                return data

    def close(self) -> None:
        """Close; a thread that puts something gets to know."""
        super().close()
        self._room.release()

    def _notice(self) -> None:
        if self._wake is not None:
            self._wake()


class Writer(_End):
    """Writes what a thread reads."""

    async def write(self, data: bytes) -> bool:
        """Write all; False when the other end is closed."""
        rest = memoryview(data)
        while rest:
            if self._descriptor is None:
                return False
            try:
                written = os.write(self._descriptor, rest)
            except BlockingIOError:
                await self._ready(None, write=True)
            except BrokenPipeError:
                return False
            else:
                self._count(written)
                rest = rest[written:]
        return True

    async def splice(self, source: int, size: int) -> int | None:
        """Move up to ``size`` bytes from the socket ``source``; 0 at its end, None when it has none now.

        Waits for room. Raises BrokenPipeError when the other end is closed, ConnectionError from the socket.
        """
        if self._descriptor is None:
            raise BrokenPipeError
        try:
            moved = os.splice(source, self._descriptor, min(size, _WIDE), flags=os.SPLICE_F_NONBLOCK)
        except BlockingIOError:
            # Either is why; once there is room it is the socket, or the next attempt succeeds.
            await self._ready(None, write=True)
            return None
        self._count(moved)
        return moved


class Inlet(_End):
    """A socket of which bytes are taken without looking at them, by a descriptor of its own."""

    def __init__(self, socket: int) -> None:
        super().__init__(os.dup(socket))

    async def move(self, pipe: Writer, size: int, timeout: float | None) -> int:
        """Move ``size`` bytes into the pipe, dropping them once its other end is closed; returns how many came.

        Raises asyncio.TimeoutError when none came for ``timeout`` seconds.
        """
        assert self._descriptor is not None
        left, wanted = size, True
        with contextlib.suppress(ConnectionError):
            while left:
                moved: int | None
                try:
                    moved = await pipe.splice(self._descriptor, left) if wanted else self._drop(left)
                except BrokenPipeError:
                    wanted = False
                    continue
                if moved == 0:
                    break
                if moved is None:
                    if not await self._ready(timeout, write=False):
                        raise asyncio.TimeoutError
                else:
                    left -= moved
                    # However fast both sides are, others have their turn.
                    await asyncio.sleep(0)
        return size - left

    def _drop(self, size: int) -> int | None:
        assert self._descriptor is not None
        try:
            return len(os.read(self._descriptor, min(size, _WIDE)))
        except BlockingIOError:
            return None
