"""When the marts are refreshed: the decision over made-up pasts, and the marks it compares."""

from __future__ import annotations

import itertools
from datetime import datetime, timedelta, timezone

import dagster as dg
import pytest
from dagster import DagsterRunStatus as Status

from retention_platform.orchestration.raw_mark import KnownMark, PartitionMark, RawMark
from retention_platform.orchestration.refresh import (
    FIRST_BACKOFF_SECONDS,
    MARK_TAG,
    MAX_BACKOFF_SECONDS,
    MAX_REST_SECONDS,
    REFRESH_TAG,
    PastRun,
    Refresh,
    Wait,
    backoff,
    decide,
    new_events,
    past_runs,
)
from retention_platform.orchestration.resources import Warehouse
from tests.api_support import free_port

NOON = datetime(2026, 5, 4, 12, tzinfo=timezone.utc)
NOW = NOON.timestamp()


def mark(offset: int, *, log: str = "log-1") -> RawMark:
    """A mark of two partitions, the second one at ``offset``."""
    return RawMark(
        NOON, (PartitionMark(log, "playback_events", 0, 7), PartitionMark(log, "playback_events", 1, offset))
    )


def run(status: Status, at: RawMark | None = None, *, ended: float = NOW - 3600, took: float = 10.0) -> PastRun:
    """A past run that started from a mark."""
    known = KnownMark(at.newest, at.digest) if at else None
    return PastRun("run-" + status.value, status, started=ended - took, ended=ended, mark=known)


def test_the_first_events_wake_the_marts() -> None:
    assert isinstance(decide(mark(1), [], NOW), Refresh)


def test_an_empty_warehouse_starts_no_run() -> None:
    assert decide(None, [], NOW) == Wait("nothing is stored yet")


def test_what_a_successful_run_started_from_is_no_news() -> None:
    decision = decide(mark(9), [run(Status.SUCCESS, mark(9))], NOW)
    assert isinstance(decision, Wait) and decision.reason.startswith("no news since 2026-05-04 12:00:00")


@pytest.mark.parametrize("news", [mark(10), mark(9, log="log-2")])
def test_a_further_offset_or_a_new_log_is_news(news: RawMark) -> None:
    assert isinstance(decide(news, [run(Status.SUCCESS, mark(9))], NOW), Refresh)


@pytest.mark.parametrize(
    "status", [Status.QUEUED, Status.NOT_STARTED, Status.STARTING, Status.STARTED, Status.CANCELING]
)
def test_no_second_run_is_asked_for_while_one_is_under_way(status: Status) -> None:
    decision = decide(mark(10), [run(status), run(Status.SUCCESS, mark(9))], NOW)
    assert isinstance(decision, Wait) and "under way" in decision.reason


def test_a_run_in_flight_counts_wherever_it_is_in_the_past() -> None:
    past = [run(Status.FAILURE), run(Status.QUEUED), run(Status.SUCCESS, mark(9))]
    assert isinstance(decide(mark(10), past, NOW), Wait)


@pytest.mark.parametrize("status", [Status.FAILURE, Status.CANCELED])
def test_a_failed_run_is_tried_again_only_after_its_backoff(status: Status) -> None:
    ended = NOW - FIRST_BACKOFF_SECONDS
    past = [run(status, mark(10), ended=ended), run(Status.SUCCESS, mark(9))]
    early = decide(mark(10), past, NOW - 0.5)
    assert isinstance(early, Wait) and "in a row; next try in" in early.reason
    assert isinstance(decide(mark(10), past, NOW), Refresh)


def test_the_backoff_doubles_with_every_failure_in_a_row_up_to_its_limit() -> None:
    waits = [backoff(failures) for failures in range(1, 12)]
    assert waits[0] == FIRST_BACKOFF_SECONDS
    assert all(later == min(2 * earlier, MAX_BACKOFF_SECONDS) for earlier, later in itertools.pairwise(waits))
    assert waits[-1] == MAX_BACKOFF_SECONDS
    failed_twice = [run(Status.FAILURE, ended=NOW), run(Status.FAILURE, ended=NOW - 60)]
    assert isinstance(decide(mark(1), failed_twice, NOW + waits[1] - 1), Wait)
    assert isinstance(decide(mark(1), failed_twice, NOW + waits[1]), Refresh)


def test_failures_before_the_last_success_are_forgotten() -> None:
    past = [run(Status.SUCCESS, mark(9)), *[run(Status.FAILURE, ended=NOW)] * 5]
    assert isinstance(decide(mark(10), past, NOW), Refresh)


def test_after_a_run_the_marts_rest_as_long_as_it_took() -> None:
    past = [run(Status.SUCCESS, mark(9), ended=NOW, took=12.0)]
    assert isinstance(decide(mark(10), past, NOW + 11), Wait)
    assert isinstance(decide(mark(10), past, NOW + 12), Refresh)


def test_the_rest_after_a_long_run_has_a_limit() -> None:
    past = [run(Status.SUCCESS, mark(9), ended=NOW, took=4000.0)]
    assert isinstance(decide(mark(10), past, NOW + MAX_REST_SECONDS), Refresh)


def test_two_looks_at_the_same_news_give_the_same_run_key_and_a_run_in_between_another() -> None:
    before = [run(Status.SUCCESS, mark(9))]
    first, again = decide(mark(10), before, NOW), decide(mark(10), before, NOW + 5)
    failed = PastRun("another", Status.FAILURE, ended=NOW - 3600)
    later = decide(mark(10), [failed, *before], NOW)
    assert isinstance(first, Refresh) and first == again
    assert isinstance(later, Refresh) and later != first


def test_a_mark_outlives_its_way_through_a_run_tag() -> None:
    known = KnownMark.decode(mark(10).encode())
    assert known == KnownMark(NOON, mark(10).digest)


@pytest.mark.parametrize("text", [None, "", "{}", "[]", '{"newest": "2026-05-04", "digest": "x"}', '{"newest": 3}'])
def test_a_tag_of_another_version_is_no_mark(text: str | None) -> None:
    assert KnownMark.decode(text) is None


def test_the_past_is_read_from_the_tags_of_the_runs_newest_first() -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        for number, status in enumerate([Status.SUCCESS, Status.FAILURE]):
            instance.add_run(
                dg.DagsterRun(
                    job_name="marts",
                    run_id=f"00000000-0000-4000-8000-00000000000{number}",
                    status=status,
                    tags={**REFRESH_TAG, MARK_TAG: mark(number).encode()},
                )
            )
        instance.add_run(dg.DagsterRun(job_name="watch", status=Status.SUCCESS))
        past = past_runs(instance)
    assert [(one.status, one.mark) for one in past] == [
        (Status.FAILURE, KnownMark(NOON, mark(1).digest)),
        (Status.SUCCESS, KnownMark(NOON, mark(0).digest)),
    ]


def test_without_clickhouse_the_sensor_says_where_it_looked_instead_of_failing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    port = free_port()
    monkeypatch.setenv("CLICKHOUSE_PORT", str(port))
    with dg.DagsterInstance.ephemeral() as instance:
        context = dg.build_sensor_context(instance=instance, resources={"warehouse": Warehouse()})
        answer = new_events(context)
    assert isinstance(answer, dg.SkipReason)
    assert f"127.0.0.1:{port}" in str(answer.skip_message) and "retention up" in str(answer.skip_message)


def test_only_offsets_tell_marks_apart() -> None:
    later = RawMark(NOON + timedelta(seconds=5), mark(10).partitions)
    assert later.digest == mark(10).digest
