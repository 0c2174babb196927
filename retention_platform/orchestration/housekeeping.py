"""Forgetting old runs: a chain that refreshes all day makes thousands, and Dagster keeps each for ever.

On SQLite a run is a file of a third of a megabyte, which Dagster empties when it deletes the run, and leaves.
"""

# No `from __future__ import annotations`: Dagster looks at the annotations of decorated functions.

from datetime import datetime, timedelta, timezone
from pathlib import Path

import dagster as dg
from dagster._core.storage.event_log import SqliteEventLogStorage

#: How long runs are kept. A steady stream of events makes 150 runs an hour, so these few hours are some 150 MB; runs
#: that failed are rare, and what people look up.
KEEP_SUCCEEDED = timedelta(hours=3)
KEEP_OTHERS = timedelta(days=30)
#: Runs removed in one go, so that the job's time is bounded.
AT_MOST = 5000

_FINISHED_OTHERWISE = [dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED]


def too_old(now: datetime) -> list[dg.RunsFilter]:
    """Filters for the runs that nobody will look at any more."""
    return [
        dg.RunsFilter(statuses=[dg.DagsterRunStatus.SUCCESS], updated_before=now - KEEP_SUCCEEDED),
        dg.RunsFilter(statuses=_FINISHED_OTHERWISE, updated_before=now - KEEP_OTHERS),
    ]


def prune(instance: dg.DagsterInstance, now: datetime) -> int:
    """Delete old runs with their events; how many. The newest success of each job stays, whatever its age."""
    keep = set[str]()
    removed = 0
    for runs in too_old(now):
        for record in instance.get_run_records(runs, limit=AT_MOST):
            run = record.dagster_run
            if run.job_name not in keep and _is_newest_success(instance, run):
                keep.add(run.job_name)
                continue
            forget(instance, run.run_id)
            removed += 1
    return removed


def forget(instance: dg.DagsterInstance, run_id: str) -> None:
    """Delete a run, its events and what its process printed."""
    instance.delete_run(run_id)
    instance.compute_log_manager.delete_logs(prefix=[run_id])
    storage = instance.event_log_storage
    if isinstance(storage, SqliteEventLogStorage):
        for path in Path(storage.path_for_shard(run_id)).parent.glob(f"{run_id}.db*"):
            path.unlink(missing_ok=True)


def _is_newest_success(instance: dg.DagsterInstance, run: dg.DagsterRun) -> bool:
    newest = instance.get_runs(dg.RunsFilter(job_name=run.job_name, statuses=[dg.DagsterRunStatus.SUCCESS]), limit=1)
    return bool(newest) and newest[0].run_id == run.run_id


@dg.op(description="Deletes old runs with their events.")
def delete_old_runs(context: dg.OpExecutionContext) -> None:
    """See `prune`."""
    removed = prune(context.instance, datetime.now(timezone.utc))
    context.log.info(f"{removed} old runs deleted")


@dg.job(executor_def=dg.in_process_executor, description="Forgets runs that nobody will look at any more.")
def prune_old_runs() -> None:
    """One step."""
    delete_old_runs()
