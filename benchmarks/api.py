"""What the API adds to a query: one video's curve through it and straight from ClickHouse, at the same rate."""

from __future__ import annotations

import asyncio
import random
import statistics
import time
from collections.abc import Callable

import httpx

from benchmarks.marts import Bench
from benchmarks.report import Report
from benchmarks.serving import serving
from retention_platform.api.choice import Choice
from retention_platform.api.curves import Curve

INTERVALS = 200_000
DAYS = 30
RATE = 50
#: Seconds of one turn, and turns of each way; they alternate.
SECONDS, TURNS = 8, 4
WAYS = ("straight from ClickHouse", "through the API")


def run(report: Report) -> None:
    """Requests leave at fixed instants, whether the earlier ones were answered or not."""
    report.text(
        f"One video's retention curve after the other, {RATE} requests a second at fixed instants, in turns of "
        f"{SECONDS} s; 1,000 videos of up to an hour, {INTERVALS:,} played intervals; embedded "
        "ClickHouse, the API and the asker each a process on the same machine. ClickHouse is asked the API's own "
        "query over a kept HTTP connection; the API asks besides for what the answer begins with, and whether the "
        "marts have changed."
    )
    with Bench.started(INTERVALS, DAYS) as bench:
        bench.fill(report, "API")
        bench.dbt.build(full=True, select=("+retention_curve", "+engagement_summary", "+videos"))
        videos = [
            row[0] for row in bench.client.query("select distinct video_id from marts.retention_curve").result_rows
        ]
        with serving(bench, "api") as api:
            taken = asyncio.run(_ask(f"http://127.0.0.1:{bench.settings.clickhouse_port}", api, videos))
    middle = {way: statistics.median(times) for way, times in taken.items()}
    high = {way: statistics.quantiles(times, n=100)[94] for way, times in taken.items()}
    rows = [
        (
            way,
            f"{middle[way] * 1000:.1f}",
            f"{high[way] * 1000:.1f}",
            f"{max(taken[way]) * 1000:.1f}",
            f"{high[way] / high[WAYS[0]]:.2f}",
            f"{len(taken[way]):,}",
        )
        for way in WAYS
    ]
    report.table(("ms", "p50", "p95", "slowest", "p95 of ClickHouse's", "requests"), rows)


async def _ask(clickhouse: str, api: str, videos: list[str]) -> dict[str, list[float]]:
    """Seconds to the whole answer, by way; of the first second of a turn none is counted."""
    rng = random.Random(1)
    taken: dict[str, list[float]] = {way: [] for way in WAYS}
    async with httpx.AsyncClient(timeout=60) as client:

        def straight(video_id: str) -> httpx.Request:
            table = Curve(video_id, Choice(), live=False).points(None)
            settings = {"default_format": "JSONEachRow", "output_format_json_array_of_rows": 1}
            return client.build_request(
                "POST", clickhouse, params={"param_video_id": video_id, **settings}, content=table.sql
            )

        def through(video_id: str) -> httpx.Request:
            return client.build_request("GET", f"{api}/video/{video_id}/retention_curve")

        async def one(request: httpx.Request, due: float, times: list[float] | None) -> None:
            await asyncio.sleep(due - time.perf_counter())
            begin = time.perf_counter()
            answer = await client.send(request)
            answer.raise_for_status()
            if times is not None:
                times.append(time.perf_counter() - begin)

        ways: dict[str, Callable[[str], httpx.Request]] = dict(zip(WAYS, (straight, through), strict=True))
        for _ in range(TURNS):
            for way, make in ways.items():
                begin = time.perf_counter() + 0.1
                requests = [make(rng.choice(videos)) for _ in range(RATE * SECONDS)]
                await asyncio.gather(
                    *(
                        one(request, begin + number / RATE, taken[way] if number >= RATE else None)
                        for number, request in enumerate(requests)
                    )
                )
    return taken
