"""What so many viewers at once take: worked out from figures that the other benchmarks measured and wrote down.

Everything grows in proportion here, which is a plan and no measurement; the text beside the table says so.
"""

from __future__ import annotations

import math
import re
import statistics
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

from benchmarks.report import Report
from producer.simulator import history
from retention_platform.errors import RetentionError

BENCHMARKS = Path(__file__).parents[1] / "docs" / "benchmarks.md"
VIEWERS = (10_000, 100_000, 1_000_000, 10_000_000)
END = datetime(2026, 2, 2, 12, tzinfo=timezone.utc)
#: Seconds between two refreshes of the marts.
REFRESH = 300
#: The part of a machine that is planned to be busy.
BUSY = 0.5

Row = dict[str, str]


@dataclass(frozen=True)
class Habits:
    """What a viewer does, by the simulator: the events a second of watching, their bytes, and a session's length."""

    events: float
    size: float
    session: float


@dataclass(frozen=True)
class Measured:
    """What one event or session takes: CPU seconds a million events, bytes on disk an event, seconds a session."""

    ingest: float
    clickhouse: float
    rate: float
    disk: float
    refresh: float
    #: Cores of the machine on which the refreshes ran, all of which may have been busy.
    cores: int


@dataclass(frozen=True)
class Size:
    """What so many viewers at once take; cores are cores' worth of work."""

    viewers: int
    events: float
    megabytes: float
    processes: int
    ingest: float
    clickhouse: float
    marts: float
    gigabytes_a_day: float

    @property
    def cores(self) -> int:
        """Cores to have, so that no more than `BUSY` of them is."""
        return math.ceil((self.ingest + self.clickhouse + self.marts) / BUSY)


def run(report: Report, document: Path = BENCHMARKS, sessions: int = 3_000) -> None:
    """Work it out. Raises RetentionError when what it needs was not measured."""
    measured, habits = read(document), habits_of(sessions)
    report.text(
        f"Worked out, not run: each figure of [benchmarks.md](benchmarks.md) times the viewers. A viewer sends "
        f"{habits.events:.3f} events of {habits.size:.0f} bytes a second and watches for {habits.session:.0f} s (the "
        f"simulator). A million events take {measured.ingest:.1f} s of CPU time in ingest and "
        f"{measured.clickhouse:.1f} s in ClickHouse; one process takes {measured.rate:,.0f} a second; an event takes "
        f"{measured.disk:.1f} bytes on disk. A refresh takes {measured.refresh * 1000:.3f} ms a session on "
        f"{measured.cores} cores, which are taken to be all busy; every {REFRESH // 60} minutes it computes again "
        "whoever watched."
    )
    report.table(
        (
            *("viewers at once", "events/s", "MB/s in the topic", "ingest processes", "their cores"),
            *("ClickHouse taking in, cores", f"marts every {REFRESH // 60} min, cores at most"),
            *(f"cores to have, {BUSY:.0%} idle", "raw on disk, GB a day"),
        ),
        [shown(size_of(viewers, measured, habits)) for viewers in VIEWERS],
    )
    report.text(
        "Beyond the cores of one server the stream is for shards; the marts are computed by one node, so where their "
        "cores are more than it has, refresh less often. Not in it: readers, merges after the measured time, a "
        "replica's own work, the broker."
    )


def habits_of(sessions: int) -> Habits:
    """By so many simulated sessions of a month."""
    found = list(history(1, sessions, 30, END))
    messages = [message for session in found for _, message in session.messages]
    lengths = [(session.end_ms - session.start_ms) / 1000 for session in found]
    return Habits(
        events=len(messages) / sum(lengths),
        size=statistics.fmean(map(len, messages)),
        session=statistics.fmean(lengths),
    )


def size_of(viewers: int, measured: Measured, habits: Habits) -> Size:
    """What so many take."""
    events = viewers * habits.events
    # Whoever watches is computed again by each refresh, and once more those who came and went between two.
    sessions = viewers / REFRESH + viewers / habits.session
    return Size(
        viewers=viewers,
        events=events,
        megabytes=events * habits.size / 1e6,
        processes=math.ceil(events / measured.rate),
        ingest=events * measured.ingest / 1e6,
        clickhouse=events * measured.clickhouse / 1e6,
        marts=sessions * measured.refresh * measured.cores,
        gigabytes_a_day=events * measured.disk * 86_400 / 1e9,
    )


def shown(size: Size) -> list[str]:
    """A row of the table."""
    return [
        f"{size.viewers:,}",
        f"{size.events:,.0f}",
        f"{size.megabytes:,.1f}",
        f"{size.processes:,}",
        *(f"{cores:,.2f}" if cores < 10 else f"{cores:,.0f}" for cores in (size.ingest, size.clickhouse, size.marts)),
        f"{size.cores:,}",
        f"{size.gigabytes_a_day:,.1f}" if size.gigabytes_a_day < 100 else f"{size.gigabytes_a_day:,.0f}",
    ]


def read(document: Path) -> Measured:
    """The figures that were measured last. Raises RetentionError when there are none."""
    text = document.read_text(encoding="utf-8")
    delivery, marts = _section(text, "delivery"), _section(text, "marts")
    try:
        ours = next(table for table in _tables(delivery) if "topic to raw" in table[0])
        ingest = next(row for row in ours if row["topic to raw"] == "ingest, 1 process")
        refreshes = [table for table in _tables(marts) if next(iter(table[0])).startswith("refresh, ")][-1]
        # The greatest batch: of a small one most is the statements' own time.
        refresh = max(refreshes, key=lambda row: _number(row["sessions"]))
        return Measured(
            ingest=_number(ingest["CPU s a million: its own"]),
            clickhouse=_number(ingest["ClickHouse"]),
            rate=_number(ingest["events/s, median"]),
            disk=_number(re.findall(r"stored events take ([\d.,]+) bytes each", marts)[-1]),
            refresh=_number(refresh["models, s"]) / _number(refresh["sessions"]),
            cores=int(re.findall(r"^(\d+) cores", marts, re.MULTILINE)[0]),
        )
    except (StopIteration, IndexError, KeyError, ValueError) as error:
        raise RetentionError(
            f"{document.name}: its sections delivery and marts do not say what sizes are worked out from "
            f"({type(error).__name__} {error}): make bench ARGS='delivery marts --write'"
        ) from None


def _section(text: str, name: str) -> str:
    match = re.search(f"<!-- {name} -->(.*?)<!-- /{name} -->", text, re.DOTALL)
    if match is None:
        raise RetentionError(f"{name} was not measured yet: make bench ARGS='{name} --write'")
    return match[1]


def _tables(section: str) -> list[list[Row]]:
    """The tables of Markdown, each row by its columns' titles."""
    tables = []
    for block in re.findall(r"(?:^\|.*\|$\n?)+", section, re.MULTILINE):
        head, _, *rows = ([cell.strip() for cell in line.strip("|").split("|")] for line in block.strip().splitlines())
        tables.append([dict(zip(head, row, strict=True)) for row in rows])
    return [table for table in tables if table]


def _number(text: str) -> float:
    return float(text.replace(",", ""))
