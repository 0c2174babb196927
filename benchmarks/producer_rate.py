"""How many events a second the simulator makes on one core: simulated, serialized, in sending order.

Run: python -m benchmarks.producer_rate [SESSIONS]
"""

from __future__ import annotations

import statistics
import sys
import time
from datetime import datetime, timezone

from producer.simulator import history, in_sending_order

REPEATS = 5
END = datetime(2026, 2, 2, 12, 0, tzinfo=timezone.utc)


def measure(seed: int, sessions: int) -> tuple[int, int, float, float]:
    """Messages, bytes, wall seconds and CPU seconds of making one history and throwing it away."""
    count = size = 0
    wall, cpu = time.perf_counter(), time.process_time()
    for _, message in in_sending_order(history(seed, sessions, 30, END)):
        count += 1
        size += len(message)
    return count, size, time.perf_counter() - wall, time.process_time() - cpu


def main() -> None:
    """Print the median of several runs, each with viewers and caches of its own."""
    sessions = int(sys.argv[1]) if len(sys.argv) > 1 else 5_000
    runs = [measure(seed, sessions) for seed in range(1, REPEATS + 1)]
    count, size = sum(run[0] for run in runs), sum(run[1] for run in runs)
    wall = statistics.median(run[0] / run[2] for run in runs)
    cpu = statistics.median(run[0] / run[3] for run in runs)
    slowest = min(run[0] / run[2] for run in runs)
    print(f"{count:,} events of {size / count:.0f} bytes from {REPEATS} histories of {sessions:,} sessions")
    print(f"{wall:,.0f} events/s by the clock (slowest run {slowest:,.0f}), {cpu:,.0f} by CPU time of one core")


if __name__ == "__main__":
    main()
