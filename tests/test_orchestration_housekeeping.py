"""Forgetting a run frees its disk space: Dagster alone would leave an emptied file a run."""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
from datetime import datetime, timedelta, timezone
from pathlib import Path

import dagster as dg
from dagster._core.test_utils import instance_for_test

from retention_platform.orchestration.housekeeping import KEEP_OTHERS, KEEP_SUCCEEDED, prune
from retention_platform.orchestration.storage import prepare_storage
from retention_platform.settings import PROJECT_ROOT


@dg.op
def say_something() -> None:
    print("something")


@dg.job(executor_def=dg.in_process_executor)
def talk() -> None:
    say_something()


def test_a_forgotten_run_leaves_no_file_behind_and_the_kept_one_can_be_read(tmp_path: Path) -> None:
    with instance_for_test(temp_dir=str(tmp_path)) as instance:
        runs = [talk.execute_in_process(instance=instance).run_id for _ in range(3)]
        assert all(any(run in path.name for path in tmp_path.rglob("*")) for run in runs)

        assert prune(instance, datetime.now(timezone.utc) + KEEP_SUCCEEDED + timedelta(minutes=1)) == 2

        left = [run for run in runs if any(run in path.name for path in tmp_path.rglob("*"))]
        assert left == runs[-1:]
        assert instance.all_logs(runs[-1], of_type=dg.DagsterEventType.RUN_SUCCESS)


def test_what_was_materialized_is_still_known_when_its_older_runs_are_forgotten(tmp_path: Path) -> None:
    @dg.asset
    def figures() -> None:
        """Nothing."""

    with instance_for_test(temp_dir=str(tmp_path)) as instance:
        for _ in range(2):
            assert dg.materialize([figures], instance=instance).success
        prune(instance, datetime.now(timezone.utc) + KEEP_SUCCEEDED + timedelta(minutes=1))
        newest = instance.get_latest_materialization_event(dg.AssetKey("figures"))
        assert newest is not None and newest.run_id == instance.get_runs()[0].run_id


def test_failures_are_kept_for_weeks(tmp_path: Path) -> None:
    with instance_for_test(temp_dir=str(tmp_path)) as instance:
        for status in (dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED):
            instance.add_run(dg.DagsterRun(job_name="marts", status=status))
        now = datetime.now(timezone.utc)
        assert prune(instance, now + KEEP_OTHERS - timedelta(minutes=1)) == 0
        assert prune(instance, now + KEEP_OTHERS + timedelta(minutes=1)) == 2


def test_dagsters_storage_is_there_before_any_of_its_processes(tmp_path: Path) -> None:
    shutil.copy(PROJECT_ROOT / "dagster.yaml", tmp_path)

    def versions() -> dict[str, list[tuple[str]]]:
        found = {}
        for file in sorted(tmp_path.rglob("*.db")):
            with contextlib.closing(sqlite3.connect(file)) as database:
                found[file.name] = database.execute("select version_num from alembic_version").fetchall()
        return found

    prepare_storage(tmp_path)
    made = versions()
    assert set(made) == {"index.db", "runs.db", "schedules.db"} and all(len(rows) == 1 for rows in made.values())
    prepare_storage(tmp_path)
    assert versions() == made
