"""What dbt tests need: messages sent as ingest sends them, dbt run in this process, and marts read back as rows."""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest import mock

from dbt.cli.main import dbtRunner

from retention_platform.contract import EVENTS_TOPIC, VIDEOS_TOPIC
from retention_platform.settings import DBT_PROJECT_DIR
from retention_platform.warehouse.client import connect

if TYPE_CHECKING:
    from retention_platform.settings import Settings

Row = dict[str, Any]

#: The key of each mart's rows.
KEYS = {
    "videos": ("video_id",),
    "retention_curve": ("video_id", "second"),
    "retention_curve_by_segment": ("video_id", "dimension", "value", "second"),
    "engagement_summary": ("video_id",),
    "dropoff_points": ("video_id", "start_second"),
    "key_moments": ("video_id", "moment_id"),
    "sessions": ("video_id", "session_id"),
    "engagement_daily": ("video_id", "day"),
    "engagement_by_segment": ("video_id", "dimension", "value"),
    "concurrent_viewers": ("video_id", "at"),
    "concurrent_viewers_total": ("at",),
    "data_quality": ("figure", "day", "video_id", "field", "reason"),
}

#: What tells of the run or of the delivery and not of the events, or would take long, left out when marts are compared.
SELECTIONS = {
    "engagement_summary": "* except (computed_at, last_ingested_at) from marts.engagement_summary",
    # of a video of ten hours the first ten minutes: all seconds are made alike
    "retention_curve_by_segment": "* from marts.retention_curve_by_segment where second < 600",
    "sessions": "* except (last_ingested_at) from marts.sessions",
    "data_quality": "* from marts.data_quality where figure not in ('duplicate_messages', 'late_messages')",
}

_offsets = itertools.count()


class Chain:
    """Raw tables and dbt over one ClickHouse: send messages, build, read the marts."""

    def __init__(self, settings: Settings, folder: Path) -> None:
        self.settings = settings
        self._folder = folder
        self._manifest: Any = None
        self.client = connect(settings)

    def send(self, topic: str, messages: Iterable[Mapping[str, Any]]) -> None:
        """Insert messages into the inbox in one batch, as ingest does."""
        rows = [["test", topic, 0, next(_offsets), 0, "", json.dumps(message)] for message in messages]
        columns = ["log_id", "topic", "partition", "offset", "message_time", "key", "payload"]
        if rows:
            self.client.insert("raw.inbox", rows, column_names=columns)

    def send_events(self, events: Iterable[Mapping[str, Any]]) -> None:
        self.send(EVENTS_TOPIC, events)

    def send_videos(self, videos: Iterable[Mapping[str, Any]]) -> None:
        self.send(VIDEOS_TOPIC, videos)

    def dbt(self, *arguments: str) -> Any:
        """Run dbt; its result. Raises AssertionError with what failed."""
        outcome = self._invoke(dbtRunner(manifest=self.manifest), *arguments)
        assert outcome.success, outcome.exception or [
            f"{result.node.name}: {result.message}" for result in outcome.result if result.status in ("error", "fail")
        ]
        return outcome.result

    def _invoke(self, runner: dbtRunner, *arguments: str) -> Any:
        where = ["--project-dir", str(DBT_PROJECT_DIR), "--profiles-dir", str(DBT_PROJECT_DIR)]
        where += ["--target-path", str(self._folder / "target"), "--log-path", str(self._folder / "logs")]
        environment = {
            "CLICKHOUSE_HOST": self.settings.clickhouse_host,
            "CLICKHOUSE_PORT": str(self.settings.clickhouse_port),
        }
        with mock.patch.dict(os.environ, environment):
            outcome = runner.invoke(["--quiet", *arguments, *where])
        assert outcome.exception is None, outcome.exception
        return outcome

    @property
    def manifest(self) -> Any:
        """dbt's manifest of the project."""
        if self._manifest is None:
            self._manifest = self._invoke(dbtRunner(), "parse").result
        return self._manifest

    def ask(self, sql: str) -> list[tuple[Any, ...]]:
        """A query's rows over a connection of its own, for readers in other threads."""
        client = connect(self.settings)
        try:
            return [tuple(row) for row in client.query(sql).result_rows]
        finally:
            client.close()

    def build(self, *arguments: str) -> None:
        """Build models and run data tests, as Dagster does."""
        self.dbt("build", "--exclude-resource-type", "unit_test", *arguments)

    def mart(self, name: str) -> dict[Any, Row]:
        """A mart's rows by their key, without what tells of the run."""
        result = self.client.query(f"select {SELECTIONS.get(name, f'* from marts.{name}')}")
        found: dict[Any, Row] = {}
        for row in result.named_results():
            values = dict(row)
            key = tuple(values[column] for column in KEYS[name])
            found[key[0] if len(key) == 1 else key] = values
        assert len(found) == result.row_count, f"marts.{name}: a key twice"
        return found

    def marts(self) -> dict[str, dict[Any, Row]]:
        """Every mart."""
        return {name: self.mart(name) for name in KEYS}
