"""Answers of the marts' present version, kept in memory: between two refreshes the same question has the same answer.

It knows bytes and versions, neither queries nor requests.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Hashable
from functools import partial

#: Bytes of all answers together; one that is longer than its share is not kept.
MAX_BYTES = 64 * 2**20
MAX_SHARE = 8


class KeptAnswers:
    """The answers asked for last, of one version. One per application; belongs to one event loop."""

    def __init__(self, max_bytes: int = MAX_BYTES) -> None:
        self._max_bytes = max_bytes
        self._version = ""
        self._bytes = 0
        #: In the order of their use, the latest last.
        self._answers: dict[Hashable, asyncio.Task[bytes]] = {}

    async def __call__(self, version: str, question: Hashable, make: Callable[[], Awaitable[bytes]]) -> bytes:
        """The answer to ``question`` as of ``version``; ``make`` makes it when nobody has asked before.

        Who asks while it is made waits for the same answer. What ``make`` raises goes to all of them and is not kept.
        """
        if version != self._version:
            self._version, self._bytes, self._answers = version, 0, {}
        answer = self._answers.pop(question, None)
        if answer is None:
            answer = asyncio.ensure_future(_made(make))
            answer.add_done_callback(partial(self._keep, question))
        self._answers[question] = answer
        return await asyncio.shield(answer)

    def _keep(self, question: Hashable, answer: asyncio.Task[bytes]) -> None:
        failed = answer.cancelled() or answer.exception() is not None
        if self._answers.get(question) is not answer:
            return  # of an earlier version
        if failed or len(answer.result()) > self._max_bytes // MAX_SHARE:
            del self._answers[question]
            return
        self._bytes += len(answer.result())
        for oldest, other in list(self._answers.items()):
            if self._bytes <= self._max_bytes:
                break
            if other.done():
                del self._answers[oldest]
                self._bytes -= len(other.result())


async def _made(make: Callable[[], Awaitable[bytes]]) -> bytes:
    return await make()
