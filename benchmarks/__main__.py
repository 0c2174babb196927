"""`make bench`: runs every benchmark, or those named. Figures are of this machine, now: nothing here is a test."""

from __future__ import annotations

import argparse
import importlib
from pathlib import Path

from benchmarks.report import Report
from retention_platform.errors import RetentionError

# The module's name and the title of its section, in the order they run.
BENCHMARKS = {
    "simulator": "Simulator",
    "embedded": "Embedded ClickHouse",
    "delivery": "Delivery",
    "live": "Live layer",
    "privacy": "What pseudonyms and erased viewers cost",
    "dropoffs": "Dropoffs and key moments: false alarms",
    "marts": "Marts",
    "api": "REST API",
    "dashboard": "Dashboard",
    "insights": "What demo mode finds",
    # Last, since it reads what others wrote.
    "sizing": "Sizes",
}
DOCS = Path(__file__).parents[1] / "docs"
#: Where a benchmark's section is kept, when not with the others.
DOCUMENTS = {"insights": DOCS / "insights.md", "privacy": DOCS / "security.md", "sizing": DOCS / "scaling.md"}


def main() -> None:
    """Run them, show them, and with --write keep them in the docs."""
    parser = argparse.ArgumentParser(prog="make bench ARGS=...", description=__doc__)
    parser.add_argument("names", nargs="*", help=f"of {', '.join(BENCHMARKS)}; all when none is named")
    parser.add_argument("--write", action="store_true", help="put the figures into the docs")
    options = parser.parse_args()
    if unknown := set(options.names) - set(BENCHMARKS):
        parser.error(f"no benchmark is called {', '.join(sorted(unknown))}: there are {', '.join(BENCHMARKS)}")
    for name in options.names or BENCHMARKS:
        report = Report(name, BENCHMARKS[name])
        try:
            importlib.import_module(f"benchmarks.{name}").run(report)
        except RetentionError as error:
            parser.exit(1, f"error: {error}\n")
        if options.write:
            report.write(DOCUMENTS.get(name, DOCS / "benchmarks.md"))


if __name__ == "__main__":
    main()
