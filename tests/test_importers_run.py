"""`retention import` without its processes: what is published, and how the summary accounts for every line."""

from __future__ import annotations

import gzip
import io
import json
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from retention_platform.errors import RetentionError
from retention_platform.importers import run
from retention_platform.importers.run import import_file
from retention_platform.ingest.batch import INBOX_COLUMNS
from retention_platform.warehouse.client import connect
from tests.conftest import Warehouse
from tests.messages import EVENT, VIDEO


class Direct:
    """A publisher whose messages are in the inbox when it says that they are stored; and the warehouse's answers."""

    def __init__(self, warehouse: Warehouse) -> None:
        self.client = connect(warehouse.settings)
        self.offset = 0
        self.waiting: list[tuple[Any, ...]] = []

    def publish(
        self, topic: str, messages: Iterable[tuple[str, bytes]], progress: Callable[[int], None] | None = None
    ) -> int:
        before = self.offset
        for key, value in messages:
            self.waiting.append(("log", topic, 0, self.offset, 0, key, value))
            self.offset += 1
        return self.offset - before

    def wait_until_stored(self) -> None:
        self.client.insert("raw.inbox", self.waiting, column_names=INBOX_COLUMNS)
        self.waiting.clear()

    def query(self, sql: str, values: Mapping[str, Any]) -> Sequence[Sequence[Any]]:
        return self.client.query(sql, parameters=dict(values)).result_rows


@pytest.fixture
def direct(empty_warehouse: Warehouse) -> Iterator[Direct]:
    publisher = Direct(empty_warehouse)
    yield publisher
    publisher.client.close()


def event(number: int, **fields: Any) -> dict[str, Any]:
    return {
        **EVENT,
        "event_id": str(uuid.UUID(int=number)),
        "event_time": f"2026-01-15T12:{number // 60 % 60:02d}:{number % 60:02d}.{number % 1000:03d}Z",
        "video_id": f"vidéo '{number % 3}",
        "session_id": f"session {number % 50}",
        **fields,
    }


def write(path: Path, records: Iterable[Any]) -> Path:
    path.write_text("".join((r if isinstance(r, str) else json.dumps(r)) + "\n" for r in records), encoding="utf-8")
    return path


def shown(summary: run.ImportSummary, path: Path) -> str:
    console = Console(file=io.StringIO(), width=120)
    console.print(summary.table(path))
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert isinstance(text, str)
    return text


QUIET = Console(file=io.StringIO(), width=120)


def test_every_event_is_accounted_for_and_a_second_import_changes_nothing(direct: Direct, tmp_path: Path) -> None:
    # More than two questions' worth of ids, over several videos and sessions, milliseconds and all.
    count = run.IDS_A_QUERY * 2 + 345
    path = write(
        tmp_path / "events.jsonl", [VIDEO, *(event(n) for n in range(count)), event(7), "nonsense", "nonsense"]
    )
    first = import_file("jsonl", path, direct, direct.query, QUIET)
    assert (first.lines, first.videos, first.events, first.repeated) == (count + 4, 1, count + 1, 1)
    assert (first.published, first.stored, first.known) == (count + 2, count, 0)
    assert first.problems.total() == 2
    assert not first.rejected
    rows = "select * except (offset, ingested_at) from raw.playback_events final order by event_id"
    before = direct.query(rows, {})
    again = import_file("jsonl", path, direct, direct.query, QUIET)
    assert (again.stored, again.known) == (count, count)
    assert direct.query(rows, {}) == before
    assert len(before) == count
    assert f"{count:,} of them known before; 1 more repeat" in shown(again, path)


def test_what_the_warehouse_rejects_is_told_and_what_others_had_rejected_is_not(direct: Direct, tmp_path: Path) -> None:
    bad = {**EVENT, "event_time": "2026-01-15T12:00:00Z", "position_ms": "x"}
    direct.publish("playback_events", [("session 1", json.dumps(bad).encode())])
    direct.wait_until_stored()
    path = write(tmp_path / "events.jsonl", [event(1), event(2, event_time="2099-01-01T00:00:00Z")])

    def publish_beside_others() -> None:
        direct.publish("playback_events", [("somebody else's", json.dumps(bad).encode())])

    publish_beside_others()
    # The rule against clocks ahead of the broker's needs a broker's timestamp.
    plain = direct.wait_until_stored

    def stamped() -> None:
        direct.waiting = [(*row[:4], 1_800_000_000_000, *row[5:]) for row in direct.waiting]
        plain()

    direct.wait_until_stored = stamped  # type: ignore[method-assign]
    summary = import_file("jsonl", path, direct, direct.query, QUIET)
    assert summary.stored == 1
    assert list(summary.rejected.items()) == [("event_time: more than 24 h ahead of the broker's clock", 1)]
    assert "more than 24 h ahead" in shown(summary, path)


def test_only_the_first_problems_are_told_one_by_one(direct: Direct, tmp_path: Path) -> None:
    broken = ['{"a": ' * (n + 1) for n in range(run.MAX_TOLD + 5)]
    path = write(tmp_path / "events.jsonl", [EVENT, *broken])
    told = io.StringIO()
    summary = import_file("jsonl", path, direct, direct.query, Console(file=told, width=200))
    assert summary.problems == {"not JSON": len(broken)}
    lines = told.getvalue().splitlines()
    assert lines[0].startswith("events.jsonl:2: not JSON")
    assert sum(line.startswith("events.jsonl:") for line in lines) == run.MAX_TOLD
    assert any(line.startswith("… and 5 more") for line in lines)


def test_a_file_of_another_format_is_one_line_and_publishes_nothing(direct: Direct, tmp_path: Path) -> None:
    path = write(tmp_path / "events.jsonl", [event(n) for n in range(3)])
    told = io.StringIO()
    with pytest.raises(RetentionError, match=r"none of the 3 lines of .* as xapi \(line 1: .*\): is it edx, jsonl\?"):
        import_file("xapi", path, direct, direct.query, Console(file=told))
    assert not told.getvalue()
    assert not direct.offset


def test_a_file_that_breaks_off_publishes_nothing(direct: Direct, tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl.gz"
    whole = gzip.compress("".join(json.dumps(event(n)) + "\n" for n in range(500)).encode())
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(RetentionError, match="not a whole gzip file"):
        import_file("jsonl", path, direct, direct.query, QUIET)
    assert not direct.offset


def test_messages_wait_on_disk_and_come_back_as_they_were(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "SPOOL_BYTES", 100)
    messages = [(f"key\t{n}\n'é", json.dumps({"n": n, "text": "a\tb\n"}).encode()) for n in range(100)]
    with run.Spool() as spool:
        for key, value in messages:
            spool.add(key, value)
        assert list(spool.messages()) == messages
        assert spool.count == len(messages)
