"""What is told at once, and when insights are due: decisions over made-up marts and pasts, and a webhook for real."""

from __future__ import annotations

import json
import logging
from datetime import date, timedelta
from typing import Any

import dagster as dg
import pytest
from dagster import DagsterRunStatus as Status
from scipy import stats as scipy_stats

from retention_platform.errors import ServiceError
from retention_platform.insights import alerts
from retention_platform.insights.alerts import MAX_TOLD, Memory, completion_alerts, dropoff_alerts, message, post
from retention_platform.orchestration.alerts import look
from retention_platform.orchestration.insights import REST_SECONDS, decide
from retention_platform.orchestration.refresh import FIRST_BACKOFF_SECONDS, PastRun, Refresh, Wait
from tests.api_support import free_port
from tests.insights_support import Reply, serving_model

TODAY = date(2026, 3, 16)
NOW = 1_000_000.0


def drop(start: int = 120, video_id: str = "a", **more: Any) -> dict[str, Any]:
    row = {"video_id": video_id, "title": "A title", "duration_s": 600.0, "start_second": start}
    return {**row, "end_second": start + 6, "views_lost": 90, "at_risk": 500, "excess_points": 11.25, **more}


def week(before: tuple[int, int], now: tuple[int, int], video_id: str = "a", **more: Any) -> dict[str, Any]:
    """Finished and views, in the seven days before and in the last seven."""
    row = {"video_id": video_id, "title": "A title", "finished_before": before[0], "views_before": before[1]}
    return {**row, "finished": now[0], "views": now[1], **more}


# -- what is told


def test_a_significant_fall_of_completion_is_told_with_both_weeks_figures() -> None:
    (alert,) = completion_alerts([week((200, 400), (120, 400))], TODAY)
    assert alert.text == (
        "“A title”: 30.0 % of 400 views came to the end in the last seven days, 50.0 % of 400 in the seven before"
    )
    assert scipy_stats.chi2_contingency([[200, 200], [120, 280]], correction=False).pvalue / 2 < alerts.MAX_Q


@pytest.mark.parametrize(
    "row",
    [
        week((200, 400), (200, 400)),
        week((120, 400), (200, 400)),
        week((50, 99), (20, 99)),
        week((50, 100), (42, 100)),
        week((20_000, 40_000), (19_000, 40_000)),
        week((0, 0), (0, 0)),
    ],
    ids=["the same", "risen", "too few views", "may be chance", "less than five points", "nobody"],
)
def test_what_is_no_significant_fall_is_not_told(row: dict[str, Any]) -> None:
    assert completion_alerts([row], TODAY) == []


def test_among_many_videos_a_fall_must_be_less_likely_by_chance() -> None:
    fallen = week((200, 400), (165, 400), "fallen")
    calm = [week((200, 400), (200, 400), f"calm {number}") for number in range(50)]
    assert [alert.video_id for alert in completion_alerts([fallen], TODAY)] == ["fallen"]
    assert completion_alerts([*calm, fallen], TODAY) == []


def test_a_hostile_title_is_text_in_an_alert() -> None:
    (alert,) = dropoff_alerts([drop(title="<!channel> @all [x](http://evil.test) *b* _i_ `c`\n\u202enew")])
    assert not {*"<>@*_`[\n\u202e:/"} & {*alert.text.split(": ")[0]}
    assert alert.text.endswith("90 of 500 views end at 2:00 to 2:06, 11.2 points of all views more than expected")


# -- what is new


def test_the_first_look_learns_what_is_there_and_later_ones_tell_what_is_new(caplog: pytest.LogCaptureFixture) -> None:
    memory, done = look(Memory(None), dropoff_alerts([drop()]), "", TODAY)
    assert done == "1 known before the first look; 0 new alerts of 1"
    found = dropoff_alerts([drop(), drop(300)])
    with caplog.at_level(logging.WARNING, "retention.dagster"):
        memory, done = look(Memory(memory), found, "", TODAY)
    assert done == "1 new alerts of 2" and [record.message for record in caplog.records] == [found[1].text]
    assert look(Memory(memory), found, "", TODAY)[1] == "0 new alerts of 2"


def test_a_dropoff_that_moved_a_little_is_the_same_and_one_of_another_video_is_not() -> None:
    memory = Memory(Memory(None).after(dropoff_alerts([drop(120)]), TODAY))
    assert memory.new(dropoff_alerts([drop(131), drop(110)])) == []
    assert len(memory.new(dropoff_alerts([drop(133), drop(120, "b")]))) == 2


def test_a_fall_of_completion_is_told_once_a_week() -> None:
    rows = [week((200, 400), (120, 400))]
    memory = Memory(Memory(None).after(completion_alerts(rows, TODAY), TODAY))
    sunday, monday = TODAY, TODAY + timedelta(days=1)
    assert memory.new(completion_alerts(rows, sunday)) == []
    assert len(memory.new(completion_alerts(rows, monday))) == 1


def test_what_was_away_for_two_weeks_is_new_again_and_what_is_there_is_remembered() -> None:
    known = dropoff_alerts([drop()])
    text = Memory(None).after(known, TODAY)
    away = Memory(text).after([], TODAY + timedelta(days=14))
    assert Memory(away).new(known) == []
    assert len(Memory(Memory(away).after([], TODAY + timedelta(days=15))).new(known)) == 1
    stays = Memory(text).after(known, TODAY + timedelta(days=14))
    assert Memory(Memory(stays).after([], TODAY + timedelta(days=20))).new(known) == []


@pytest.mark.parametrize("text", ["", "nonsense", "[]", '{"seen": 3}', '{"seen": {"x": "y"}}'])
def test_a_memory_that_cannot_be_read_is_an_empty_one(text: str) -> None:
    assert Memory(text).is_empty


# -- the webhook


def test_new_alerts_are_posted_in_one_message_and_none_when_nothing_is_new() -> None:
    found = dropoff_alerts([drop(100 * number) for number in range(1, MAX_TOLD + 4)])
    with serving_model(Reply(204)) as server:
        memory, _ = look(Memory(Memory(None).after([], TODAY)), found, server.url, TODAY)
        look(Memory(memory), found, server.url, TODAY)
        (posted,) = server.requests
    assert posted == message(found) == json.loads(json.dumps(posted))
    assert posted["text"].count("\n") == MAX_TOLD and posted["text"].endswith("and 3 more")
    assert len(posted["alerts"]) == len(found)


def test_a_webhook_that_fails_is_told_without_its_address_and_the_alerts_stay_new() -> None:
    found = dropoff_alerts([drop()])
    with serving_model(Reply(500), Reply(200)) as server:
        with pytest.raises(ServiceError) as caught:
            look(Memory(Memory(None).after([], TODAY)), found, f"{server.url}/secret-token", TODAY)
        assert "secret-token" not in str(caught.value) and "status 500" in str(caught.value)
        assert look(Memory(Memory(None).after([], TODAY)), found, server.url, TODAY)[1] == "1 new alerts of 1"
    for url in (f"http://127.0.0.1:{free_port()}/secret-token", "no address secret-token"):
        with pytest.raises(ServiceError, match="ALERT_WEBHOOK_URL") as caught:
            post(url, found)
        assert "secret-token" not in str(caught.value)


# -- when insights are made


def run(status: Status, *, started: float, ended: float | None = None) -> PastRun:
    return PastRun(f"{status.value}-{started}", status, started=started, ended=started + 20 if ended is None else ended)


FRESH = [run(Status.SUCCESS, started=NOW - 60)]


def due(refreshes: list[PastRun], past: list[PastRun], failed: list[str] | None = None) -> Refresh | Wait:
    return decide(refreshes, past, lambda: failed or [], NOW)


def test_insights_are_due_after_the_first_refresh_and_an_hour_after_the_last_time() -> None:
    assert isinstance(due(FRESH, []), Refresh)
    assert isinstance(due(FRESH, [run(Status.SUCCESS, started=NOW - REST_SECONDS)]), Refresh)
    early = due(FRESH, [run(Status.SUCCESS, started=NOW - REST_SECONDS + 5)])
    assert early == Wait("insights of the last hour are new enough; next in 5 s")


def test_insights_wait_for_a_refresh_that_succeeded_and_for_checks_that_pass() -> None:
    assert due([], []) == Wait("the marts were never refreshed")
    failed = due([run(Status.FAILURE, started=NOW - 30), *FRESH], [])
    assert isinstance(failed, Wait) and "the last refresh of the marts failed" in failed.reason
    under_way = [run(Status.STARTED, started=NOW - 5, ended=NOW), *FRESH]
    assert isinstance(due(under_way, []), Refresh)
    assert due(FRESH, [], ["b of marts/x", "a of marts/x"]) == Wait("a check of the marts failed: a of marts/x")


def test_insights_are_not_made_twice_of_one_refresh_nor_two_at_a_time() -> None:
    old = [run(Status.SUCCESS, started=NOW - 3 * REST_SECONDS)]
    made = run(Status.SUCCESS, started=NOW - 2 * REST_SECONDS)
    assert due(old, [made]) == Wait("no refresh since insights were made")
    assert due(FRESH, [run(Status.QUEUED, started=NOW)]) == Wait("insights are being made")


def test_a_run_of_insights_that_failed_is_tried_again_after_a_backoff() -> None:
    failed = run(Status.FAILURE, started=NOW - 40, ended=NOW - FIRST_BACKOFF_SECONDS + 4)
    waits = due(FRESH, [failed])
    assert waits == Wait("failed 1 times in a row; next try in 4 s")
    older = run(Status.FAILURE, started=NOW - 80, ended=NOW - FIRST_BACKOFF_SECONDS)
    assert isinstance(due(FRESH, [older]), Refresh)


def test_the_sensors_are_of_this_repository() -> None:
    from retention_platform.definitions import defs

    sensors = {sensor.name: sensor for sensor in defs.get_repository_def().sensor_defs}
    assert sensors["insights_due"].job_name == "insights"
    assert defs.resolve_job_def("insights").asset_layer.executable_asset_keys == {dg.AssetKey(["marts", "ai_insights"])}
