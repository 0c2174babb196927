"""Sizes are worked out from what the benchmarks wrote down, and from nothing else."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import sizing
from benchmarks.report import Report
from benchmarks.sizing import Habits, Measured, habits_of, read, size_of
from producer.simulator import history
from retention_platform.errors import RetentionError

MEASURED = Measured(ingest=2.0, clickhouse=8.0, rate=50_000, disk=40.0, refresh=0.0001, cores=2)


def written(folder: Path) -> Path:
    """A document with tables as the benchmarks make them."""
    document = folder / "benchmarks.md"
    delivery = Report("delivery", "Delivery")
    delivery.table(("broker", "n"), [("a", 1)])
    head = (
        "topic to raw",
        "events/s, median",
        "lowest",
        "highest",
        "CPU s a million: its own",
        "ClickHouse",
        "the broker",
    )
    delivery.table(head, [("tutorial", "1,000", 1, 1, 9.0, 9.0, 9), ("ingest, 1 process", "50,000", 1, 1, 2.0, 8.0, 9)])
    delivery.write(document)
    marts = Report("marts", "Marts")
    columns = ("new events", "sessions", "models, s", "ms a session")
    for size, seconds in (("1 M", 5), ("20 M", 10)):
        marts.table((f"refresh, {size}", *columns), [("0 %", 1, 1, 1, 1), ("1 %", 9, "100,000", seconds, 1)])
        marts.text(f"Models in all 3 s; stored events take {seconds * 4}.0 bytes each on disk.")
    marts.table(("refresh on", *columns), [("1 M", 9, 7, 9, 9)])
    marts.write(document)
    return document


def test_the_figures_are_those_of_ingest_alone_and_of_the_greatest_batch_on_the_longest_history(tmp_path: Path) -> None:
    found = read(written(tmp_path))
    assert (found.ingest, found.clickhouse, found.rate) == (2.0, 8.0, 50_000)
    assert (found.disk, found.refresh) == (40.0, 10 / 100_000)
    assert found.cores >= 1


def test_a_size_is_the_viewers_times_what_one_takes() -> None:
    habits = Habits(events=0.1, size=300.0, session=600.0)
    size = size_of(1_000_000, MEASURED, habits)
    assert size.events == pytest.approx(100_000)
    assert size.megabytes == pytest.approx(30)
    assert size.processes == 2
    assert (size.ingest, size.clickhouse) == (pytest.approx(0.2), pytest.approx(0.8))
    # Every 5 minutes a million who watch, and half a million who came and went; a tenth of a millisecond on two cores.
    assert size.marts == pytest.approx((1_000_000 + 500_000) / 300 * 0.0001 * 2)
    assert size.cores == 4
    assert size.gigabytes_a_day == pytest.approx(100_000 * 86_400 * 40 / 1e9)


def test_habits_are_those_of_the_simulated_viewers() -> None:
    habits = habits_of(50)
    sessions = list(history(1, 50, 30, sizing.END))
    messages = [message for session in sessions for _, message in session.messages]
    assert habits.size * len(messages) == pytest.approx(sum(map(len, messages)))
    assert all(json.loads(message)["session_id"] for message in messages)
    watched = sum(session.end_ms - session.start_ms for session in sessions) / 1000
    assert habits.session * 50 == pytest.approx(watched)
    assert habits.events * watched == pytest.approx(len(messages))


def test_the_table_is_written_and_what_was_not_measured_is_told(tmp_path: Path) -> None:
    report = Report("sizing", "Sizes")
    sizing.run(report, written(tmp_path), sessions=50)
    report.write(tmp_path / "scaling.md")
    lines = (tmp_path / "scaling.md").read_text().splitlines()
    assert [line.split("|")[1].strip() for line in lines if line.startswith("| 1")] == [
        *("10,000", "100,000", "1,000,000", "10,000,000")
    ]
    empty = tmp_path / "empty.md"
    empty.write_text("# Benchmarks\n")
    with pytest.raises(RetentionError, match="delivery was not measured yet"):
        sizing.run(report, empty)
    wrong = tmp_path / "wrong.md"
    wrong.write_text(written(tmp_path).read_text().replace("ingest, 1 process", "another"))
    with pytest.raises(RetentionError, match="do not say what sizes are worked out from"):
        sizing.run(report, wrong)


def test_what_is_kept_in_the_docs_can_be_read() -> None:
    text = sizing.BENCHMARKS.read_text(encoding="utf-8")
    if not all(f"<!-- {name} -->" in text for name in ("delivery", "marts")):
        pytest.skip("delivery and marts are not both in docs/benchmarks.md")
    assert read(sizing.BENCHMARKS).rate > 0
