"""The benchmark of pseudonyms and erased viewers runs, and stores the same whichever way it goes."""

from __future__ import annotations

import re
from pathlib import Path

from benchmarks import privacy
from benchmarks.report import Report


def test_each_way_has_its_figures(tmp_path: Path) -> None:
    report = Report("privacy", "Privacy")
    privacy.run(report, events=2_000, rounds=1)
    report.write(tmp_path / "security.md")
    document = (tmp_path / "security.md").read_text(encoding="utf-8")
    for way in privacy.WAYS:
        assert re.search(rf"^\| {re.escape(way.name)} \| [0-9.]+ \| [0-9.]+ \|$", document, re.MULTILINE)
