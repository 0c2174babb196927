"""Every SQL block of docs/sql.md runs as the read-only user `bi` and answers what its heading asks."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

import clickhouse_connect
import pytest
from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.exceptions import DatabaseError

from retention_platform.settings import load_settings
from retention_platform.warehouse.client import connect
from retention_platform.warehouse.migrate import migrate
from tests import oracle, oracle_engagement
from tests.api_support import describe, watch
from tests.conftest import DATABASES
from tests.dbt_support import Chain
from tests.test_api_choices import HISTORY

PAGE = Path(__file__).parents[1] / "docs" / "sql.md"
BLOCKS = re.findall(r"^## (\d+)\. .*?```sql\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
PARAMETERS = {"video_id": "talk", "first_day": date(2026, 3, 15), "last_day": date(2026, 3, 17)}

#: Many leave at once at 60 s, and some go back to 20 s.
CLIFF = [
    event
    for viewer in range(400)
    for event in watch("cliff", viewer, 60.5 if viewer % 3 == 0 else 1 + viewer * 199 / 400, 200)
]
EVENTS = HISTORY + CLIFF
VIDEOS = [describe(video_id) for video_id in ("talk", "clip", "epic", "cliff")]


@pytest.fixture(scope="module")
def bi(clickhouse_port: int, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    home = tmp_path_factory.mktemp("sql")
    settings = load_settings(retention_home=home, clickhouse_host="127.0.0.1", clickhouse_port=clickhouse_port)
    client = connect(settings)
    for database in DATABASES:
        client.command(f"drop database if exists {database} sync")
    migrate(client)
    client.close()
    chain = Chain(settings, home)
    chain.send_events(EVENTS)
    chain.send_videos(VIDEOS)
    chain.build()
    chain.client.close()
    reader = clickhouse_connect.get_client(host="127.0.0.1", port=clickhouse_port, username="bi", database="marts")
    yield reader
    reader.close()


@pytest.fixture(scope="module")
def answers(bi: Client) -> dict[int, list[dict[str, Any]]]:
    # Without places to fill the driver would take every % for one.
    return {
        int(number): list(bi.query(sql, parameters=PARAMETERS if "{" in sql else None).named_results())
        for number, sql in BLOCKS
    }


@pytest.fixture(scope="module")
def sessions() -> dict[str, list[oracle_engagement.Session]]:
    found = defaultdict(list)
    for session in oracle_engagement.sessions(EVENTS, VIDEOS):
        if session.view.counts:
            found[session.video_id].append(session)
    return found


def test_there_are_ten_questions_and_each_has_an_answer(answers: dict[int, list[dict[str, Any]]]) -> None:
    assert list(answers) == list(range(1, 11))
    for number, rows in answers.items():
        assert rows, f"question {number} has no answer"


def test_the_answers_are_the_oracles(
    answers: dict[int, list[dict[str, Any]]], sessions: dict[str, list[oracle_engagement.Session]]
) -> None:
    figures = {video_id: oracle_engagement.engagement(found) for video_id, found in sessions.items()}
    most = sorted(figures, key=lambda video_id: -figures[video_id]["watch_time_s"])
    assert [row["title"] for row in answers[1]] == [f"About {video_id}" for video_id in most]
    completion = [float(figures[video_id]["completion_rate"]) for video_id in most]
    assert [row["completion"] for row in answers[1]] == pytest.approx(completion, abs=0.0006)

    curve = oracle.curve([s.view for s in sessions["talk"]], 75_500)
    assert [row["watching_views"] for row in answers[2]] == [row["watching_views"] for row in curve]

    dropoffs = oracle.marts(EVENTS, VIDEOS).dropoff_points
    assert len(answers[3]) == len(dropoffs) and {row["title"] for row in answers[3]} == {"About cliff"}
    assert answers[3][0]["at"] == "01:00"

    assert {row["kind"] for row in answers[4]} <= {"spike", "dip", "top_moment"}
    assert {row["video_id"]: row["views"] for row in answers[5]} == {v: len(s) for v, s in sessions.items()}

    weeks: Counter[int] = Counter(s.day.isocalendar().week for found in sessions.values() for s in found)
    assert {row["week"].isocalendar().week: row["views"] for row in answers[6]} == dict(weeks)

    devices = Counter(s.said("device_type") for s in sessions["talk"])
    assert {row["value"]: row["views"] for row in answers[7]} == dict(devices)

    kinds = Counter(
        s.viewer_type for s in sessions["talk"] if PARAMETERS["first_day"] <= s.day <= PARAMETERS["last_day"]
    )
    assert {row["viewer_type"]: row["views"] for row in answers[8]} == dict(kinds) and len(kinds) == 2

    viewers: Counter[int] = Counter(t for found in sessions.values() for s in found for t in s.view.instants())
    assert answers[9][0]["peak"] == max(viewers.values())

    assert {row["figure"]: row["found"] for row in answers[10]}["invalid_intervals"] == 0


def test_who_asks_can_only_read_the_marts(bi: Client) -> None:
    for forbidden in ("select * from staging.int_views limit 1", "create table marts.x (a Int8) engine = Memory"):
        with pytest.raises(DatabaseError):
            bi.command(forbidden)
