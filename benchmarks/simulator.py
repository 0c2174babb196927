"""How fast the simulator invents viewers: pure Python, one core."""

from __future__ import annotations

import statistics
import time
from datetime import datetime, timezone

from benchmarks.report import Report
from producer.simulator import history, in_sending_order

END = datetime(2026, 2, 2, 12, 0, tzinfo=timezone.utc)


def run(report: Report, repeats: int = 5, sessions: int = 3_000) -> None:
    """Messages simulated, serialized and put in sending order, a second; each run with viewers of its own."""
    by_clock, by_cpu = [], []
    for seed in range(1, repeats + 1):
        wall, cpu = time.perf_counter(), time.process_time()
        count = sum(1 for _ in in_sending_order(history(seed, sessions, 30, END)))
        by_clock.append(count / (time.perf_counter() - wall))
        by_cpu.append(count / (time.process_time() - cpu))
    report.table(
        ("simulator, one core", "median", "lowest", "highest"),
        [
            (name, f"{statistics.median(rates):,.0f}", f"{min(rates):,.0f}", f"{max(rates):,.0f}")
            for name, rates in (("events/s by the clock", by_clock), ("events/s by CPU time", by_cpu))
        ],
    )
