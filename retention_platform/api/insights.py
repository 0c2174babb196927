"""Fresh insights for who asks: made of the marts of now, stored nowhere, and within a budget of a language model.

The same facts are not asked about twice, and requests that come together ask one after the other.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict, deque
from collections.abc import Mapping, Sequence
from typing import Any

from anyio import from_thread
from starlette.concurrency import run_in_threadpool

from retention_platform.api.warehouse import MartsMissing, Warehouse
from retention_platform.errors import ServiceError
from retention_platform.insights.analyse import Analyst, read_facts
from retention_platform.insights.schema import Insights
from retention_platform.settings import Settings

#: The budget of a run (INSIGHTS_MAX_CALLS_PER_RUN) is here that of so many seconds.
BUDGET_SECONDS = 3600.0
#: Insights by a language model that are remembered.
REMEMBERED = 256


class FreshInsights:
    """Makes them, one at a time. One per application; belongs to one event loop."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._lock = asyncio.Lock()
        self._asked: deque[float] = deque()
        self._remembered: OrderedDict[tuple[str, str], Insights] = OrderedDict()

    async def __call__(self, warehouse: Warehouse, video_id: str) -> Insights:
        """Insights of a video as the marts know it now. Raises UnknownVideo, and what the warehouse raises."""
        async with self._lock:
            return await run_in_threadpool(self._make, warehouse, video_id)

    def _make(self, warehouse: Warehouse, video_id: str) -> Insights:
        """In a thread of its own: a language model may take a minute. ClickHouse is asked through the event loop."""

        def ask(sql: str, parameters: Mapping[str, str]) -> Sequence[dict[str, Any]]:
            return from_thread.run(warehouse.rows, sql, dict(parameters))

        try:
            facts = read_facts(ask, video_id)
        except ServiceError as error:
            # What is missing is told apart from what the warehouse itself says of a failure.
            raise (error if type(error) is not ServiceError else MartsMissing(str(error))) from None
        key = (video_id, facts.hash)
        if (known := self._remembered.get(key)) is not None:
            return known
        now = time.monotonic()
        while self._asked and self._asked[0] < now - BUDGET_SECONDS:
            self._asked.popleft()
        left = max(0, self._settings.insights_max_calls_per_run - len(self._asked))
        made = Analyst(self._settings, calls=left).insights(video_id, facts)
        self._asked.extend([now] * made.usage.calls)
        if made.mode == "openai":
            self._remembered[key] = made
            while len(self._remembered) > REMEMBERED:
                self._remembered.popitem(last=False)
        return made
