"""The command as people type it: help that teaches, errors in one line, rejects as a readable list."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from retention_platform.ingest.batch import Source
from retention_platform.ingest.sink import ClickHouseSink
from tests.conftest import Warehouse


def retention(warehouse: Warehouse, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    settings = warehouse.settings
    return subprocess.run(
        [sys.executable, "-m", "retention_platform.cli", *arguments],
        env={
            **os.environ,
            "RETENTION_HOME": str(settings.retention_home),
            "CLICKHOUSE_PORT": str(settings.clickhouse_port),
            **env,
        },
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_help_names_every_command_and_what_to_do_first(empty_warehouse: Warehouse) -> None:
    told = retention(empty_warehouse, "--help").stdout
    for command in (
        "up",
        "down",
        "status",
        "migrate",
        "ingest",
        "produce",
        "import",
        "convert",
        "refresh",
        "docs",
        "sql",
        "rejects",
    ):
        assert f" {command} " in told
    assert "retention up" in told


def test_status_tells_of_parts_that_are_elsewhere_without_what_the_deployed_image_leaves_out(
    empty_warehouse: Warehouse, broker: str
) -> None:
    """Neither engine nor process manager is there (Dockerfile); they cannot be imported here either."""
    settings = empty_warehouse.settings
    lacking = "import sys; sys.modules.update(chdb=None, supervisor=None)"
    answer = subprocess.run(
        [sys.executable, "-c", f"{lacking}; from retention_platform.cli import app; app()", "status", "--json"],
        env={
            **os.environ,
            "RETENTION_HOME": str(settings.retention_home / "elsewhere"),
            "CLICKHOUSE_PORT": str(settings.clickhouse_port),
            "KAFKA_BOOTSTRAP_SERVERS": broker,
            **dict.fromkeys(("DAGSTER_PORT", "API_PORT", "DOCS_PORT", "DASHBOARD_PORT"), "1"),
        },
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert answer.returncode == 1, answer.stderr
    told = {part["name"]: part["up"] for part in json.loads(answer.stdout)}
    assert told["clickhouse"] and told["broker"] and not told["dagster"] and not told["api"]
    assert "producer" not in told, "of whom nobody can tell"


@pytest.mark.parametrize(
    ("arguments", "env", "told"),
    [
        (["sql", "selec 1"], {}, "Syntax error"),
        (["sql", "select 1"], {"CLICKHOUSE_PASSWORD": "wrong"}, "CLICKHOUSE_PASSWORD"),
        (["sql", "select 1"], {"CLICKHOUSE_PORT": "1"}, "127.0.0.1:1 does not answer"),
        (["sql", "select 1"], {"CLICKHOUSE_PORT": "eight"}, "CLICKHOUSE_PORT"),
        (["ingest"], {}, "KAFKA_BOOTSTRAP_SERVERS"),
        (["refresh"], {"DAGSTER_PORT": "1"}, "Dagster"),
        (["convert", "xapi", "no-such-file.gz"], {}, "no-such-file.gz"),
        (["import", "xapi", "README.md"], {}, "no Kafka broker"),
        (["convert", "vhs", "README.md"], {}, "vhs"),
    ],
)
def test_a_mistake_is_told_in_one_line_and_ends_with_1(
    empty_warehouse: Warehouse, arguments: list[str], env: dict[str, str], told: str
) -> None:
    answer = retention(empty_warehouse, *arguments, **env)
    assert answer.returncode == 1, answer.stdout + answer.stderr
    assert len(answer.stderr.strip().splitlines()) == 1, answer.stderr
    assert answer.stderr.startswith("error: ")
    assert told in answer.stderr


def test_rejects_are_listed_with_place_reason_and_message_and_no_markup_of_theirs_takes_effect(
    empty_warehouse: Warehouse,
) -> None:
    assert "nothing was rejected" in retention(empty_warehouse, "rejects").stdout
    payloads = [b"[bold]x[/bold] \x1b[31mred", b"\xff\xfe", b'{"schema_version": 1}']
    rows = [(n, 1_760_000_000_000, b"", payload) for n, payload in enumerate(payloads)]
    ClickHouseSink(empty_warehouse.settings).insert(Source("log", "playback_events", 3), rows, "token")
    for columns in ("160", "80", "60"):
        told = retention(empty_warehouse, "rejects", COLUMNS=columns).stdout
        assert "[bold]x[/bold]" in told
        assert "\x1b[31m" not in told
        assert "playback_events/3 @ 2" in told
        assert "event_id: missing" in told
        assert "3 rejected in all" in told


def test_sql_prints_a_table_or_the_format_that_is_asked_for(empty_warehouse: Warehouse) -> None:
    assert "│ 3 │" in retention(empty_warehouse, "sql", "select 1 + 2 as x").stdout
    assert retention(empty_warehouse, "sql", "select 1 as a format JSONEachRow").stdout.strip() == '{"a":1}'
