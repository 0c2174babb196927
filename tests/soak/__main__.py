"""Minutes of events while every part is killed, cut off or fills up; then a proof that each event counts once.

Exits with 1 and a line that says what differs when anything does.
"""

from __future__ import annotations

import argparse
import signal
import statistics
import sys
import threading
import time
from pathlib import Path

from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from benchmarks.report import Report
from tests.delivery import kafka
from tests.soak.run import Plan, State, by_kind, soak

DOCUMENT = Path(__file__).parents[2] / "docs" / "soak.md"


def main() -> None:
    """Run a soak, show it while it runs, and with --write keep its result in docs/soak.md."""
    options = _options()
    missing = None if options.broker == "development" else kafka.unavailable()
    if options.broker == "kafka" and missing:
        sys.exit(f"error: {missing}")
    plan = Plan(
        seconds=options.minutes * 60,
        rate=options.rate,
        seed=options.seed,
        kafka=options.broker != "development" and missing is None,
        deduplicate=not options.without_deduplication,
    )
    if missing:
        print(f"{missing}: the development broker it is", flush=True)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("error: told to end"))
    state = State(plan)
    try:
        _show(plan, state)
    except KeyboardInterrupt:
        sys.exit("error: interrupted; what it had started is gone")
    report = Report(f"soak {'kafka' if plan.kafka else 'development'}", f"On {state.broker}")
    tell(report, plan, state)
    if state.difference is not None:
        sys.exit(f"error: {state.difference}")
    if options.write:
        report.write(DOCUMENT)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make soak ARGS=...", description=__doc__)
    parser.add_argument("--minutes", type=float, default=5, help="how long events and faults come (default: 5)")
    parser.add_argument("--rate", type=float, default=300, help="messages a second (default: 300)")
    parser.add_argument("--seed", type=int, default=1, help="chooses events, faults and their order (default: 1)")
    parser.add_argument(
        "--broker",
        choices=("any", "kafka", "development"),
        default="any",
        help="any: Apache Kafka where Java and Maven can bring it, else the development broker",
    )
    parser.add_argument(
        "--without-deduplication", action="store_true", help="to see that the comparison then finds what is doubled"
    )
    parser.add_argument("--write", action="store_true", help="keep the result in docs/soak.md")
    options = parser.parse_args()
    if options.minutes <= 0 or options.rate <= 0:
        parser.error("--minutes and --rate must be above 0")
    if options.write and options.without_deduplication:
        parser.error("a soak without deduplication is not for the docs")
    return options


def _show(plan: Plan, state: State) -> None:
    """Run it, and show how far it is."""
    shown = "{task.fields[stage]}", "{task.fields[figures]}"
    columns = (TextColumn(shown[0]), BarColumn(bar_width=20), TimeElapsedColumn(), TextColumn(shown[1]))
    with Progress(*columns, refresh_per_second=2) as progress:
        bar = progress.add_task("soak", total=plan.seconds, stage=state.stage, figures="")
        ended = threading.Event()

        def look() -> None:
            while not ended.wait(0.5):
                since = state.elapsed or (time.monotonic() - state.began if state.began else 0.0)
                progress.update(bar, completed=min(since, plan.seconds), stage=state.stage, figures=_figures(state))

        threading.Thread(target=look, daemon=True).start()
        try:
            # In this thread: Ctrl-C ends it, and what it has started.
            soak(plan, state, lambda line: progress.console.print(line, highlight=False))
        finally:
            ended.set()


def _figures(state: State) -> str:
    if state.sender is None or state.witness is None or state.refresher is None:
        return ""
    stored = state.stored + state.rejected
    lag = max(0, len(state.witness.log) - stored)
    return (
        f"sent {sum(state.sender.sent.values()):,} · stored {stored:,} · lag {lag:,}"
        f" · faults {len(state.suffered)} · refreshes {len(state.refresher.seconds)}"
    )


def tell(report: Report, plan: Plan, state: State) -> None:
    """The result as tables."""
    sender, witness, refresher = state.sender, state.witness, state.refresher
    if sender is None or witness is None or refresher is None:
        return
    events = sum(kind == "event" for kind in map(sender.kinds.__getitem__, witness.log.values()))
    report.table(
        ("soak", "figure"),
        [
            ("minutes of events and faults", f"{state.elapsed / 60:.1f}"),
            ("messages a second, asked for", f"{plan.rate:,.0f}"),
            ("seed", plan.seed),
            ("events sent, repeats included", f"{sender.sent['event'] + sender.sent['repeat']:,}"),
            ("of these sent again by a client", f"{sender.sent['repeat']:,}"),
            ("of these over 5 s late, or hours", f"{sender.late:,}"),
            ("malformed messages sent", f"{sender.sent['malformed']:,}"),
            ("acknowledged by the broker", f"{sender.acknowledged_count:,}"),
            ("in the log: events, malformed", f"{events:,}, {len(witness.log) - events:,}"),
            ("rows in raw: events, rejects", f"{state.stored:,}, {state.rejected:,}"),
            ("events in the marts", f"{state.in_marts:,}"),
            ("faults", len(state.suffered)),
            ("seconds from the last message until all was stored", f"{state.settled:.1f}"),
            ("load of the machine meanwhile, mean", f"{statistics.fmean(state.loads or [0]):.1f}"),
            ("refreshes that went through", len(refresher.seconds)),
            ("refreshes killed under way", refresher.killed),
            ("refreshes that failed with what was under them", refresher.failed),
            ("result", "exact" if state.difference is None else "differs"),
        ],
    )
    report.table(
        ("fault", "times", "s to recover, median", "longest"),
        [(kind, times, f"{median:.1f}", f"{longest:.1f}") for kind, times, median, longest in by_kind(state.suffered)],
    )
    for kind, reason in state.left_out.items():
        report.text(f"Left out: {kind.replace('_', ' ')}, since {reason}.")


if __name__ == "__main__":
    main()
