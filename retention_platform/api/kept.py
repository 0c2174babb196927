"""What was found out of the marts' present version, kept in memory: until the next refresh it is the same.

It knows questions, answers and versions, neither queries nor requests.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Hashable
from functools import partial
from typing import Generic, TypeVar

#: An answer larger than this part of all the room is not kept.
MAX_SHARE = 8

Answer = TypeVar("Answer")


class Kept(Generic[Answer]):
    """The answers asked for last, of one version; ``size`` of all of them is at most ``room``.

    Belongs to one event loop.
    """

    def __init__(self, room: int, size: Callable[[Answer], int]) -> None:
        self._room = room
        self._size = size
        self._version = ""
        self._taken = 0
        #: In the order of their use, the latest last.
        self._answers: dict[Hashable, asyncio.Task[Answer]] = {}

    async def __call__(self, version: str, question: Hashable, make: Callable[[], Awaitable[Answer]]) -> Answer:
        """The answer to ``question`` as of ``version``; ``make`` makes it when nobody has asked before.

        Who asks while it is made waits for the same answer. What ``make`` raises goes to all of them and is not kept.
        """
        if version != self._version:
            self._version, self._taken, self._answers = version, 0, {}
        answer = self._answers.pop(question, None)
        if answer is None:
            answer = asyncio.ensure_future(_made(make))
            answer.add_done_callback(partial(self._keep, question))
        self._answers[question] = answer
        return await asyncio.shield(answer)

    def _keep(self, question: Hashable, answer: asyncio.Task[Answer]) -> None:
        failed = answer.cancelled() or answer.exception() is not None
        if self._answers.get(question) is not answer:
            return  # of an earlier version
        if failed or self._size(answer.result()) > self._room // MAX_SHARE:
            del self._answers[question]
            return
        self._taken += self._size(answer.result())
        for oldest, other in list(self._answers.items()):
            if self._taken <= self._room:
                break
            if other.done():
                del self._answers[oldest]
                self._taken -= self._size(other.result())


async def _made(make: Callable[[], Awaitable[Answer]]) -> Answer:
    return await make()
