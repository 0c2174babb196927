"""Jobs launched through a real Dagster webserver, and the runs that a stopped stack left behind."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import dagster as dg
import httpx
import pytest

from retention_platform.errors import RetentionError, ServiceError
from retention_platform.orchestration.launch import Progress, launch_job
from retention_platform.orchestration.lost_runs import cancel_lost_runs
from retention_platform.settings import PROJECT_ROOT
from tests.api_support import answers, free_port, wait_until

#: Small jobs that load quickly; the real ones are run end to end elsewhere.
JOBS = """
import time
import dagster as dg

@dg.asset
def table(): pass

@dg.op(pool="dbt")
def builds():
    time.sleep(1)

@dg.job(executor_def=dg.in_process_executor)
def pooled():
    builds()

@dg.op
def breaks():
    raise dg.Failure(description="ClickHouse at 127.0.0.1:1 does not answer: start it")

@dg.job(executor_def=dg.in_process_executor)
def broken():
    breaks()

good = dg.define_asset_job("good", executor_def=dg.in_process_executor)
defs = dg.Definitions(assets=[table], jobs=[good, broken, pooled])
"""


@dataclass(frozen=True)
class Dagster:
    """A webserver and a daemon, with where they are and their instance's folder."""

    url: str
    home: Path


@pytest.fixture(scope="module")
def dagster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dagster]:
    """Started in the order of `retention up`, and used before any of it has loaded the code."""
    home = tmp_path_factory.mktemp("dagster")
    shutil.copy(PROJECT_ROOT / "dagster.yaml", home)
    (home / "small_jobs.py").write_text(JOBS, encoding="utf-8")
    port, code_port = free_port(), free_port()
    (home / "workspace.yaml").write_text(
        f"load_from:\n  - grpc_server: {{host: 127.0.0.1, port: {code_port}, location_name: small}}\n", encoding="utf-8"
    )
    code_address = ("--host", "127.0.0.1", "--port", str(code_port))
    workspace = ("-w", str(home / "workspace.yaml"))
    commands = {
        "webserver": ("dagster_webserver", *workspace, "--host", "127.0.0.1", "--port", str(port)),
        "code": ("dagster", "api", "grpc", "-f", str(home / "small_jobs.py"), *code_address),
        "daemon": ("dagster._daemon", "run", *workspace),
    }
    environment = {**os.environ, "DAGSTER_HOME": str(home), "PYTHONPATH": str(PROJECT_ROOT)}
    processes = []
    try:
        for name, command in commands.items():
            with (home / f"{name}.log").open("wb") as log:
                processes.append(
                    subprocess.Popen(
                        [sys.executable, "-m", *command],
                        env=environment,
                        stdout=log,
                        stderr=subprocess.STDOUT,
                        start_new_session=True,
                    )
                )
            if name == "webserver":
                wait_until(lambda: answers(f"http://127.0.0.1:{port}/server_info"), 60)
        yield Dagster(f"http://127.0.0.1:{port}", home)
    finally:
        for process in processes:
            os.killpg(process.pid, signal.SIGTERM)
        for process in processes:
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


def test_a_job_launched_while_dagster_still_loads_runs_to_its_end(dagster: Dagster) -> None:
    seen: list[Progress] = []
    assert launch_job(dagster.url, "good", seen.append) == "SUCCESS"
    assert seen[0].status == "LOADING"
    assert (seen[-1].status, seen[-1].done, seen[-1].total) == ("SUCCESS", 1, 1)


def test_a_run_that_fails_is_told_by_its_own_reason_in_one_line(dagster: Dagster) -> None:
    with pytest.raises(RetentionError) as caught:
        launch_job(dagster.url, "broken", lambda _: None)
    text = str(caught.value)
    assert text.startswith("Dagster's run of broken failed: ClickHouse at 127.0.0.1:1 does not answer: start it")
    assert f"{dagster.url}/runs/" in text and "\n" not in text


def test_a_job_that_does_not_exist_is_refused_at_once(dagster: Dagster) -> None:
    with pytest.raises(RetentionError, match="has no job missing"):
        launch_job(dagster.url, "missing", lambda _: None)


def test_what_the_progress_callback_raises_ends_the_waiting(dagster: Dagster) -> None:
    def part_died(_: Progress) -> None:
        raise RetentionError("a part died")

    with pytest.raises(RetentionError, match="a part died"):
        launch_job(dagster.url, "good", part_died)


def test_two_runs_of_one_pool_never_overlap(dagster: Dagster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DAGSTER_HOME", str(dagster.home))
    with ThreadPoolExecutor() as threads:
        launched = [threads.submit(launch_job, dagster.url, "pooled", lambda _: None) for _ in range(2)]
        assert [one.result(120) for one in launched] == ["SUCCESS", "SUCCESS"]
    with dg.DagsterInstance.get() as instance:
        first, second = sorted(
            (record.start_time or 0.0, record.end_time or 0.0)
            for record in instance.get_run_records(dg.RunsFilter(job_name="pooled"))
        )
    assert 0 < first[0] < first[1] <= second[0]


def test_unfinished_runs_of_a_stopped_stack_are_canceled_and_finished_ones_kept(
    dagster: Dagster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DAGSTER_HOME", str(dagster.home))
    with dg.DagsterInstance.get() as instance:
        wait_until(lambda: all(run.is_finished for run in instance.get_runs()), 60)
        before = {run.run_id: run.status for run in instance.get_runs()}
        # Launched by no process: tagged with nothing, as a run whose stack was killed right then.
        lost = [
            instance.add_run(dg.DagsterRun(job_name="good", status=status)).run_id
            for status in (dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.CANCELING)
        ]
        assert cancel_lost_runs(dagster.url) == 2
        after = {run.run_id: run.status for run in instance.get_runs()}
    assert {after.pop(run_id) for run_id in lost} == {dg.DagsterRunStatus.CANCELED}
    assert after == before
    assert cancel_lost_runs(dagster.url) == 0


def test_no_webserver_is_told_with_its_address() -> None:
    url = f"http://127.0.0.1:{free_port()}"
    with pytest.raises(ServiceError, match=f"Dagster at {url} does not answer"):
        launch_job(url, "good", lambda _: None)


def test_the_webserver_is_reached_whatever_proxy_the_environment_names(
    dagster: Dagster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{free_port()}")
    monkeypatch.setenv("ALL_PROXY", f"http://127.0.0.1:{free_port()}")
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{dagster.url}/server_info")
    assert cancel_lost_runs(dagster.url) == 0
