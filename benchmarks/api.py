"""What the API adds to a query: one video's curve through it and straight from ClickHouse, at the same rate."""

from __future__ import annotations

import asyncio
import random
import statistics
import time
from collections.abc import Callable, Sequence

import httpx

from benchmarks.report import Report
from retention_platform.api.choice import Choice
from retention_platform.api.curves import Curve
from tests.screenshots import Stack, stack

RATE = 50
#: Of questions that nobody asked before, which embedded ClickHouse on 2 cores has to answer one by one.
RATE_ANEW = 10
#: Seconds of one turn, and turns of each way; they alternate.
SECONDS, TURNS = 8, 6
#: A curve as it is asked for again and again, and one that nobody asked for before.
AGAIN, ANEW = "as people ask", "never asked before"
STRAIGHT, THROUGH = "straight from ClickHouse", "through the API"
Way = tuple[str, str]
#: The most points that the API gives: more than any video has seconds, so that all of these are the same curve.
MOST_POINTS = 100_000


def run(report: Report) -> None:
    """Requests leave at fixed instants, whether the earlier ones were answered or not."""
    report.text(
        f"One video's retention curve after the other, at fixed instants, in {TURNS} turns of {SECONDS} s each way, on "
        "the demo stack as `make up` starts it, which takes in events and refreshes its marts meanwhile on the same "
        "machine. A time begins when its request was due and ends with the whole answer; of the first second of a turn "
        "none is counted. ClickHouse is asked the API's own query. Until the marts change the API answers a question "
        f"it had before from memory. {AGAIN.capitalize()}, {RATE} a second: a video, by chance. {ANEW.capitalize()}, "
        f"{RATE_ANEW} a second: each with another number of points, so that no answer is kept."
    )
    with stack() as running:
        taken = asyncio.run(_ask(running))
    rows = []
    for asked in (AGAIN, ANEW):
        high = {way: statistics.quantiles(taken[way, asked], n=100)[94] for way in (STRAIGHT, THROUGH)}
        for way in (STRAIGHT, THROUGH):
            times = taken[way, asked]
            figures = (statistics.median(times), high[way], max(times))
            ratio = f"{high[way] / high[STRAIGHT]:.2f}"
            rows.append((f"{asked}, {way}", *(f"{figure * 1000:.1f}" for figure in figures), ratio, f"{len(times):,}"))
    report.table(("ms", "p50", "p95", "slowest", "p95 of ClickHouse's", "requests"), rows)


async def _ask(running: Stack) -> dict[Way, list[float]]:
    """Seconds to the whole answer, by way."""
    rng = random.Random(1)
    points = iter(range(MOST_POINTS, 0, -1))
    api, clickhouse = running.url("API_PORT"), running.url("CLICKHOUSE_PORT")
    async with httpx.AsyncClient(timeout=60) as client:
        listed = (await client.get(f"{api}/videos")).raise_for_status().json()["videos"]
        videos = [video["video_id"] for video in listed if video["views"]]

        def straight(points: int | None) -> httpx.Request:
            table = Curve(rng.choice(videos), Choice(), live=False).points(points)
            asked: dict[str, str | int] = {"default_format": "JSONEachRow", "output_format_json_array_of_rows": 1}
            asked |= {
                f"param_{name}": value for name, value in table.parameters.items() if isinstance(value, str | int)
            }
            return client.build_request("POST", clickhouse, params=asked, content=table.sql)

        def through(points: int | None) -> httpx.Request:
            chosen = {} if points is None else {"points": points}
            return client.build_request("GET", f"{api}/video/{rng.choice(videos)}/retention_curve", params=chosen)

        ways: dict[Way, Callable[[], httpx.Request]] = {
            (STRAIGHT, AGAIN): lambda: straight(None),
            (THROUGH, AGAIN): lambda: through(None),
            (STRAIGHT, ANEW): lambda: straight(next(points)),
            (THROUGH, ANEW): lambda: through(next(points)),
        }
        taken: dict[Way, list[float]] = {way: [] for way in ways}
        for _ in range(TURNS):
            for way, make in ways.items():
                rate = RATE if way[1] == AGAIN else RATE_ANEW
                taken[way] += await _turn(client, rate, [make() for _ in range(rate * SECONDS)])
    return taken


async def _turn(client: httpx.AsyncClient, rate: int, requests: Sequence[httpx.Request]) -> list[float]:
    """Seconds from the instant each was due, without the first second's."""

    async def one(request: httpx.Request, due: float) -> float:
        await asyncio.sleep(due - time.perf_counter())
        answer = await client.send(request)
        answer.raise_for_status()
        return time.perf_counter() - due

    begin = time.perf_counter() + 0.1
    asked = [one(request, begin + number / rate) for number, request in enumerate(requests)]
    return (await asyncio.gather(*asked))[rate:]
