"""Runs every benchmark and prints a table. Figures are of this machine, now: nothing here is a test."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from datetime import datetime, timezone

from rich.console import Console
from rich.table import Table

from producer.simulator import history, in_sending_order

END = datetime(2026, 2, 2, 12, 0, tzinfo=timezone.utc)


def simulator_rate(repeats: int = 5, sessions: int = 3_000) -> str:
    """Messages simulated, serialized and put in sending order, a second; each run with viewers of its own."""
    by_clock, by_cpu = [], []
    for seed in range(1, repeats + 1):
        wall, cpu = time.perf_counter(), time.process_time()
        count = sum(1 for _ in in_sending_order(history(seed, sessions, 30, END)))
        by_clock.append(count / (time.perf_counter() - wall))
        by_cpu.append(count / (time.process_time() - cpu))
    return (
        f"{statistics.median(by_clock):,.0f} events/s by the clock, median of {repeats} "
        f"({min(by_clock):,.0f} to {max(by_clock):,.0f}); {statistics.median(by_cpu):,.0f} by CPU time"
    )


BENCHMARKS: tuple[tuple[str, Callable[[], str]], ...] = (("simulator, one core", simulator_rate),)


def main() -> None:
    """Run them all."""
    table = Table("what", "result", box=None)
    for name, measure in BENCHMARKS:
        table.add_row(name, measure())
    Console().print(table)


if __name__ == "__main__":
    main()
