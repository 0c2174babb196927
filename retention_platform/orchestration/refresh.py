"""When to refresh the marts: a pure decision over the raw mark and the last runs, and the sensor around it.

What the marts know is written on the runs themselves: a run that refreshes them notes the raw mark it started from
(`MARK_TAG`). So it does not matter who started a run (sensor, schedule, `retention refresh`, the UI), nothing
is recomputed because a cursor was lost, and nothing is forgotten because a run failed.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import dagster as dg

from retention_platform.errors import RetentionError
from retention_platform.orchestration.raw_mark import KnownMark, RawMark, read_mark
from retention_platform.orchestration.resources import Warehouse

#: On every run that refreshes all marts.
REFRESH_TAG = {"retention/refreshes": "marts"}
#: The raw mark a run started from.
MARK_TAG = "retention/raw_mark"

#: Least seconds between two looks at the raw tables. Dagster's daemon loops over its sensors every 5 s; with 5 here,
#: every other look would come a moment too early and wait for the next loop.
POLL_SECONDS = 4
#: After a run the marts rest as long as it took, but no longer than this: under a steady stream of events, refreshing
#: takes at most half of the machine's time.
MAX_REST_SECONDS = 60.0
#: After the first failure, doubling with each further one.
FIRST_BACKOFF_SECONDS = 30.0
MAX_BACKOFF_SECONDS = 1800.0
#: How many runs back failures are counted; the backoff has reached its limit long before.
RUNS_LOOKED_AT = 12


@dataclass(frozen=True)
class PastRun:
    """A run that refreshed the marts, or is about to; times in epoch seconds."""

    run_id: str
    status: dg.DagsterRunStatus
    started: float = 0.0
    ended: float = 0.0
    mark: KnownMark | None = None

    @property
    def in_flight(self) -> bool:
        """Whether it is queued, starting, running or being cancelled."""
        return self.status not in (
            dg.DagsterRunStatus.SUCCESS,
            dg.DagsterRunStatus.FAILURE,
            dg.DagsterRunStatus.CANCELED,
        )

    @property
    def succeeded(self) -> bool:
        """Whether the marts know everything up to its mark."""
        return self.status == dg.DagsterRunStatus.SUCCESS


@dataclass(frozen=True)
class Refresh:
    """Start a run; its key is the mark's, and new after every run, so that no news is taken for old."""

    run_key: str


@dataclass(frozen=True)
class Wait:
    """Do nothing now, because…"""

    reason: str


def decide(mark: RawMark | None, past: Sequence[PastRun], now: float) -> Refresh | Wait:
    """Whether to refresh the marts. ``past`` is newest first; ``now`` in epoch seconds."""
    if mark is None:
        return Wait("nothing is stored yet")
    flying = [run for run in past if run.in_flight]
    if flying:
        return Wait(f"run {flying[-1].run_id[:8]} is under way")
    finished = next((number for number, run in enumerate(past) if run.succeeded), None)
    last_success = past[finished] if finished is not None else None
    if last_success and last_success.mark and last_success.mark.digest == mark.digest:
        return Wait(f"no news since {mark.newest:%Y-%m-%d %H:%M:%S} UTC")
    failures = past[:finished]
    if failures:
        left = failures[0].ended + backoff(len(failures)) - now
        if left > 0:
            return Wait(f"failed {len(failures)} times in a row; next try in {left:.0f} s")
    elif last_success:
        left = last_success.ended + min(last_success.ended - last_success.started, MAX_REST_SECONDS) - now
        if left > 0:
            return Wait(f"there is news; resting {left:.0f} s more after run {last_success.run_id[:8]}")
    return Refresh(f"{mark.digest}/{past[0].run_id[:8] if past else 'first'}")


def backoff(failures: int) -> float:
    """Seconds to wait after so many failures in a row."""
    return min(FIRST_BACKOFF_SECONDS * 2.0 ** (failures - 1), MAX_BACKOFF_SECONDS)


def last_known_mark(past: Sequence[PastRun]) -> KnownMark | None:
    """The newest mark any run noted; where to look for news from."""
    return next((run.mark for run in past if run.mark), None)


def past_runs(
    instance: dg.DagsterInstance, limit: int = RUNS_LOOKED_AT, of: dg.RunsFilter | None = None
) -> list[PastRun]:
    """The last runs that refresh the marts, or that ``of`` finds, newest first."""
    records = instance.get_run_records(of or dg.RunsFilter(tags=REFRESH_TAG), limit=limit)
    return [
        PastRun(
            run_id=record.dagster_run.run_id,
            status=record.dagster_run.status,
            started=record.start_time or record.create_timestamp.timestamp(),
            ended=record.end_time or record.create_timestamp.timestamp(),
            mark=KnownMark.decode(record.dagster_run.tags.get(MARK_TAG)),
        )
        for record in records
    ]


@dg.sensor(
    name="new_events",
    job_name="marts",
    description="Looks every few seconds whether the raw tables have news, and refreshes the marts when they have.",
    minimum_interval_seconds=POLL_SECONDS,
    default_status=dg.DefaultSensorStatus.RUNNING,
)
def new_events(context: dg.SensorEvaluationContext, warehouse: Warehouse) -> dg.RunRequest | dg.SkipReason:
    """See `decide`."""
    past = past_runs(context.instance)
    known = last_known_mark(past)
    try:
        with warehouse.client() as client:
            mark = read_mark(client, since=known.newest if known else None)
    except RetentionError as error:
        return dg.SkipReason(str(error))
    decision = decide(mark, past, time.time())
    if isinstance(decision, Wait):
        return dg.SkipReason(decision.reason)
    return dg.RunRequest(run_key=decision.run_key)
