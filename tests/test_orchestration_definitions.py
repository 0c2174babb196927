"""What Dagster is told: assets, their groups and pools, jobs, what runs by default, the instance's configuration."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path

import dagster as dg
import pytest
import yaml
from dagster._core.launcher.base import WorkerStatus
from dagster._core.op_concurrency_limits_counter import GlobalOpConcurrencyLimitsCounter
from dagster._core.remote_origin import GrpcServerCodeLocationOrigin, RemoteJobOrigin, RemoteRepositoryOrigin
from dagster._core.run_coordinator import SubmitRunContext
from dagster._core.storage.dagster_run import RunOpConcurrency
from dagster._core.storage.tags import GRPC_INFO_TAG

from retention_platform.definitions import defs
from retention_platform.errors import RetentionError
from retention_platform.orchestration import dbt_project
from retention_platform.orchestration.housekeeping import KEEP_SUCCEEDED, prune
from retention_platform.orchestration.models import DBT_POOL
from retention_platform.orchestration.run_launcher import WatchedRunLauncher
from retention_platform.settings import DBT_PROJECT_DIR, PROJECT_ROOT
from tests.api_support import free_port

GROUPS = {
    "raw": {"raw/playback_events", "raw/videos", "raw/rejected_events"},
    "staging": {"staging/stg_playback_events", "staging/stg_videos"},
    "marts": {"marts/videos", "marts/retention_curve", "marts/engagement_summary", "marts/dropoff_points"},
}


@pytest.fixture
def instance(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dg.DagsterInstance]:
    """An instance configured by the repository's dagster.yaml, in a folder of its own."""
    shutil.copy(PROJECT_ROOT / "dagster.yaml", tmp_path)
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
    with dg.DagsterInstance.get() as instance:
        yield instance


def test_every_asset_has_its_group_an_owner_and_a_description() -> None:
    graph = defs.resolve_asset_graph()
    nodes = [graph.get(key) for key in graph.get_all_asset_keys()]
    for group, names in GROUPS.items():
        assert names <= {node.key.to_user_string() for node in nodes if node.group_name == group}
    assert all(node.owners and node.description and "clickhouse" in node.kinds for node in nodes)


def test_raw_tables_are_observed_and_upstream_of_every_mart() -> None:
    graph = defs.resolve_asset_graph()
    events = dg.AssetKey(["raw", "playback_events"])
    assert graph.get(events).is_observable and not graph.get(events).is_materializable
    for mart in ("retention_curve", "engagement_summary", "dropoff_points"):
        assert events in graph.get_ancestor_asset_keys(dg.AssetKey(["marts", mart]))


def test_every_asset_that_dbt_makes_is_in_the_pool_of_dbt_and_no_other_is() -> None:
    graph = defs.resolve_asset_graph()
    for key in graph.get_all_asset_keys():
        node = graph.get(key)
        by_dbt = node.is_materializable and node.group_name not in ("reports", "insights")
        assert node.pools == ({DBT_POOL} if by_dbt else set()), key


def test_every_data_test_is_a_check_and_its_model_the_one_it_is_attached_to() -> None:
    manifest = json.loads(dbt_project.prepare_manifest().read_bytes())
    tests = {node["name"]: node for node in manifest["nodes"].values() if node["resource_type"] == "test"}
    checks = {key.name: key.asset_key.path[-1] for key in defs.resolve_asset_graph().asset_check_keys}
    assert tests and checks.keys() - tests.keys() == {"complete", "fresh", "agrees_with_raw"}
    for name, test in tests.items():
        if test.get("attached_node"):
            assert checks[name] == test["attached_node"].rsplit(".", 1)[-1]
        else:
            assert checks[name] == test["config"]["meta"]["dagster"]["ref"]["name"]


def test_the_sensor_and_the_schedules_run_without_being_switched_on() -> None:
    repository = defs.get_repository_def()
    assert {sensor.name for sensor in repository.sensor_defs} == {
        "new_events",
        "run_failures",
        "insights_due",
        "alerts",
    }
    assert all(sensor.default_status == dg.DefaultSensorStatus.RUNNING for sensor in repository.sensor_defs)
    assert "nightly_reconciliation" in {schedule.name for schedule in repository.schedule_defs}
    assert all(schedule.default_status == dg.DefaultScheduleStatus.RUNNING for schedule in repository.schedule_defs)


def test_reconciliation_refreshes_fully_and_the_ordinary_job_does_not() -> None:
    def full(job: str) -> object:
        config = defs.resolve_job_def(job).run_config or {}
        return config.get("ops", {}).get("dbt_models", {}).get("config", {}).get("full_refresh", False)

    assert full("reconcile") is True and full("marts") is False


def test_the_instance_lets_one_run_at_a_time_use_a_pool(instance: dg.DagsterInstance) -> None:
    concurrency = instance.get_concurrency_config()
    assert concurrency.pool_config.default_pool_limit == 1
    assert concurrency.pool_config.pool_granularity is not None
    assert concurrency.pool_config.pool_granularity.value == "run"
    assert not instance.telemetry_enabled
    assert instance.run_monitoring_enabled


def test_in_a_new_storage_too_the_second_run_in_the_queue_waits_for_its_pool(instance: dg.DagsterInstance) -> None:
    """Judged as Dagster's daemon does when it first looks at the queue, with both runs in it."""
    pooled = RunOpConcurrency(root_key_counts={DBT_POOL: 1}, has_unconstrained_root_nodes=False, all_pools={DBT_POOL})
    where = RemoteRepositoryOrigin(GrpcServerCodeLocationOrigin("127.0.0.1", port=1), "__repository__")
    for job in ("marts", "reconcile"):
        origin = RemoteJobOrigin(where, job)
        run = instance.add_run(dg.DagsterRun(job_name=job, run_op_concurrency=pooled, remote_job_origin=origin))
        instance.run_coordinator.submit_run(SubmitRunContext(run, None))  # type: ignore[arg-type]
    queued = instance.get_runs(dg.RunsFilter(statuses=[dg.DagsterRunStatus.QUEUED]))
    limits = GlobalOpConcurrencyLimitsCounter(
        instance,
        queued,
        in_progress_run_records=[],
        concurrency_keys=instance.event_log_storage.get_concurrency_keys(),
        pool_limits=instance.event_log_storage.get_pool_limits(),
        pool_granularity=instance.get_concurrency_config().pool_config.pool_granularity,
    )
    waits = []
    for run in queued:
        waits.append(limits.is_blocked(run))
        limits.update_counters_with_launched_item(run)
    assert waits == [False, True]


def test_the_workspace_names_our_definitions() -> None:
    workspace = yaml.safe_load((PROJECT_ROOT / "workspace.yaml").read_text(encoding="utf-8"))
    assert workspace["load_from"][0]["python_module"]["module_name"] == "retention_platform.definitions"


def test_a_run_whose_code_server_is_gone_is_found_dead(instance: dg.DagsterInstance) -> None:
    launcher = instance.run_launcher
    assert isinstance(launcher, WatchedRunLauncher) and launcher.supports_check_run_worker_health
    where = json.dumps({"host": "127.0.0.1", "port": free_port()})
    run = instance.add_run(
        dg.DagsterRun(job_name="marts", status=dg.DagsterRunStatus.STARTED, tags={GRPC_INFO_TAG: where})
    )
    assert launcher.check_run_worker_health(run).status == WorkerStatus.NOT_FOUND


def test_old_successes_are_pruned_but_for_the_newest_of_each_job(instance: dg.DagsterInstance) -> None:
    for number in range(6):
        job = "marts" if number < 4 else "watch"
        instance.add_run(dg.DagsterRun(job_name=job, status=dg.DagsterRunStatus.SUCCESS))
    instance.add_run(dg.DagsterRun(job_name="marts", status=dg.DagsterRunStatus.FAILURE))
    now = datetime.now(timezone.utc)
    assert prune(instance, now) == 0
    assert prune(instance, now + KEEP_SUCCEEDED + timedelta(minutes=1)) == 4
    left = sorted((run.job_name, run.status.value) for run in instance.get_runs())
    assert left == [("marts", "FAILURE"), ("marts", "SUCCESS"), ("watch", "SUCCESS")]


def copied_project(folder: Path) -> Path:
    return Path(shutil.copytree(DBT_PROJECT_DIR, folder / "project", ignore=shutil.ignore_patterns("target", "logs")))


def test_processes_that_need_the_manifest_at_once_parse_the_project_once(tmp_path: Path) -> None:
    project = copied_project(tmp_path)
    code = (
        "import sys; from pathlib import Path; from retention_platform.orchestration import dbt_project as d\n"
        "parse = d._parse\n"
        "d._parse = lambda *a: (print('parsing'), parse(*a))\n"
        "print(d.prepare_manifest(Path(sys.argv[1])))"
    )
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(project)], stdout=subprocess.PIPE, text=True, cwd=PROJECT_ROOT
        )
        for _ in range(3)
    ]
    answers = [process.communicate(timeout=120)[0].split() for process in processes]
    manifest = project / dbt_project.TARGET / dbt_project.MANIFEST
    assert [answer[-1] for answer in answers] == [str(manifest)] * 3
    assert sum(answer.count("parsing") for answer in answers) == 1
    assert "model.retention.retention_curve" in json.loads(manifest.read_bytes())["nodes"]


def test_touching_a_model_parses_nothing_and_changing_it_does(tmp_path: Path) -> None:
    project = copied_project(tmp_path)
    model = next(project.rglob("stg_videos.sql"))
    before = dbt_project.fingerprint(project)
    os.utime(model, (time.time() + 60, time.time() + 60))
    assert dbt_project.fingerprint(project) == before
    model.write_text(model.read_text(encoding="utf-8") + "\n-- changed\n", encoding="utf-8")
    assert dbt_project.fingerprint(project) != before


def test_a_project_that_cannot_be_parsed_is_told_in_one_line(tmp_path: Path) -> None:
    project = copied_project(tmp_path)
    model = next(project.rglob("videos.sql"))
    model.write_text("select * from {{ ref('no_such_model') }}", encoding="utf-8")
    with pytest.raises(RetentionError) as caught:
        dbt_project.prepare_manifest(project)
    assert "no_such_model" in str(caught.value) and "\n" not in str(caught.value)
    assert not (project / dbt_project.TARGET / dbt_project.MANIFEST).exists()
