"""The benchmarks run, on sizes whose figures say nothing: what they compare must agree, or they raise."""

from __future__ import annotations

import re
from pathlib import Path

import polars as pl
import pytest

from benchmarks import delivery, marts
from benchmarks.marts_rivals import RIVALS, differences
from benchmarks.report import Report
from tests.delivery.kafka import unavailable


def test_the_marts_are_measured_beside_rivals_that_find_the_same_rows(tmp_path: Path) -> None:
    report = Report("marts", "Marts")
    marts.run(report, millions=[0.004], rounds=1, requests=3, histories=(1, 3))
    report.write(tmp_path / "benchmarks.md")
    document = (tmp_path / "benchmarks.md").read_text(encoding="utf-8")
    for rival in ("floor", "exploding", *RIVALS):
        # Once from the stored events and once from views.
        assert len(re.findall(rf"^\| {rival} \| [0-9.]+ \|", document, re.MULTILINE)) == 2
    assert re.search(r"^\| 1 % \| \d+ \|", document, re.MULTILINE), "the refresh after new events"
    assert len(re.findall(r"^\| [0-9.]+ M intervals, \d+ days \|", document, re.MULTILINE)) == 2
    assert re.search(r"^\| ms, 3 requests \| [0-9.]+ \|", document, re.MULTILINE)


def test_curves_differ_by_every_row_that_only_one_of_them_has(tmp_path: Path) -> None:
    one, other = tmp_path / "one.parquet", tmp_path / "other.parquet"
    pl.DataFrame({"video_id": ["a", "a", "b"], "second": [0, 1, 0], "views": [5, 5, 1]}).write_parquet(one)
    pl.DataFrame({"video_id": ["a", "a"], "second": [0, 1], "views": [5, 4]}).write_parquet(other)
    assert differences(one, one, ("views",)) == 0
    assert differences(one, other, ("views",)) == 3


def test_ingest_is_measured_beside_others_that_store_the_same_events(tmp_path: Path) -> None:
    if reason := unavailable():
        pytest.skip(reason)
    report = Report("delivery", "Delivery")
    # Each turn asserts that every event has arrived, and none twice.
    delivery.run(report, events=2_000, rounds=1, seconds=10)
    report.write(tmp_path / "benchmarks.md")
    document = (tmp_path / "benchmarks.md").read_text(encoding="utf-8")
    for contender in delivery.CONTENDERS:
        assert re.search(rf"^\| {contender.name} \| [0-9,]+ \|", document, re.MULTILINE)
    for ours, theirs in delivery.RATIOS:
        assert re.search(rf"^{ours} / {theirs}: [0-9.]+ times", document, re.MULTILINE)
    assert re.search(r"^\| ingest, 1 process \| [0-9.]+ s \|", document, re.MULTILINE)
