"""Runs every benchmark and prints a table. Figures are of this machine, now."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import datetime, timezone

from rich.console import Console
from rich.table import Table

from producer.simulator import history, in_sending_order


def simulator_rate() -> str:
    """Messages made, serialized and put in order, a second, on one core."""
    began = time.process_time()
    end = datetime(2026, 1, 31, tzinfo=timezone.utc)
    count = sum(1 for _ in in_sending_order(history(1, 5_000, 30, end)))
    return f"{count / (time.process_time() - began):,.0f} events/s"


BENCHMARKS: tuple[tuple[str, Callable[[], str]], ...] = (("simulator, one core", simulator_rate),)


def main() -> None:
    """Run them all."""
    table = Table("what", "result", box=None)
    for name, measure in BENCHMARKS:
        table.add_row(name, measure())
    Console().print(table)


if __name__ == "__main__":
    main()
