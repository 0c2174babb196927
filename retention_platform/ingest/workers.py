"""Threads for work that a process must be able to leave behind: whether it ends is another's business.

Not the standard library's thread pool, because that one's threads are waited for when the process ends, and an insert
that ClickHouse never answers would hold up the end for as long.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from types import TracebackType
from typing import TypeVar

T = TypeVar("T")


class Workers:
    """So many daemon threads that take one piece of work after the other. Leaving the context waits for none.

    Each begins with ``begin``, which raises nothing.
    """

    def __init__(self, count: int, name: str, begin: Callable[[], None] = lambda: None) -> None:
        self._begin = begin
        self._work: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._threads = [threading.Thread(target=self._run, name=f"{name}-{n}", daemon=True) for n in range(count)]

    def __enter__(self) -> Workers:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for _ in self._threads:
            self._work.put(None)

    def submit(self, work: Callable[[], T]) -> Future[T]:
        """Have ``work`` done by the next thread that is free; what it returns or raises is the future's."""
        future: Future[T] = Future()

        def do() -> None:
            try:
                result = work()
            except BaseException as error:
                future.set_exception(error)
            else:
                future.set_result(result)

        self._work.put(do)
        return future

    def _run(self) -> None:
        self._begin()
        while (work := self._work.get()) is not None:
            work()
