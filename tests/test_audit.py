"""What `make audit` says of pip-audit's answer: nobody's silence is taken for a clean bill."""

from __future__ import annotations

from typing import Any

from tests.audit import judge

GOOD = {"name": "good", "version": "1.0", "vulns": []}
BAD = {
    "name": "bad",
    "version": "2.0",
    "vulns": [{"id": "PYSEC-1", "fix_versions": ["2.1"]}, {"id": "PYSEC-2", "fix_versions": []}],
}
UNKNOWN = {"name": "unknown", "skip_reason": "not found"}


def test_only_answers_about_every_version_are_a_clean_bill() -> None:
    def told(*dependencies: dict[str, Any]) -> tuple[int, int]:
        code, lines = judge(dependencies)
        return code, len(lines)

    assert told(GOOD, GOOD) == (0, 1)
    assert told(GOOD, BAD) == (1, 2)
    assert told(GOOD, UNKNOWN) == (2, 1)
    assert told(UNKNOWN, BAD) == (1, 3)
    assert told(UNKNOWN, UNKNOWN) == (2, 1)
    assert told() == (2, 1)


def test_what_was_found_is_told_with_the_version_that_mends_it() -> None:
    assert judge([BAD])[1] == ["bad 2.0: PYSEC-1, mended in 2.1", "bad 2.0: PYSEC-2, mended in no version yet"]
    assert judge([UNKNOWN])[1][0].startswith("error: not audited")
