"""Running a job through the Dagster webserver, so that it shows in the UI like any other run. Knows no job by name."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import httpx

from retention_platform.errors import RetentionError, ServiceError

#: Seconds between two looks at a run.
POLL_SECONDS = 0.5
#: Seconds a run may stay queued before the daemon is asked after.
DAEMON_PATIENCE_SECONDS = 20.0
#: Seconds the webserver may be silent, while it is busy, before the run is given up on.
SILENCE_SECONDS = 30.0

_FINISHED = {"SUCCESS", "FAILURE", "CANCELED"}

_WHERE = "{ repositoriesOrError { ... on RepositoryConnection { nodes { name location { name } jobs { name } } } } }"
_PRESET = """
query ($selector: PipelineSelector!) {
  pipelineOrError(params: $selector) { ... on Pipeline { presets { runConfigYaml } } }
}
"""
_LAUNCH = """
mutation ($params: ExecutionParams!) {
  launchRun(executionParams: $params) {
    __typename
    ... on LaunchRunSuccess { run { runId } }
    ... on Error { message }
    ... on RunConfigValidationInvalid { errors { message } }
  }
}
"""
_LOOK = """
query ($id: ID!) {
  runOrError(runId: $id) {
    __typename
    ... on Run { status assetSelection { path } assets { key { path } } assetMaterializations { assetKey { path } } }
  }
}
"""
_WHY = """
query ($id: ID!, $after: String) {
  logsForRun(runId: $id, afterCursor: $after) {
    ... on EventConnection {
      cursor
      hasMore
      events {
        __typename
        ... on ExecutionStepFailureEvent { failureMetadata { description } error { message cause { message } } }
        ... on RunFailureEvent { message error { message } }
      }
    }
  }
}
"""
_DAEMON = '{ instance { daemonHealth { daemonStatus(daemonType: "QUEUED_RUN_COORDINATOR") { healthy } } } }'


@dataclass(frozen=True)
class Progress:
    """Where a run is: Dagster's status, and how many of its assets are made."""

    run_id: str
    status: str
    done: int
    total: int

    def __str__(self) -> str:
        made = f", {self.done} of {self.total} tables" if self.total else ""
        return f"{self.status.lower()}{made}"


def launch_job(base_url: str, job_name: str, on_progress: Callable[[Progress], None]) -> str:
    """Start a job and wait for its end; its status, ``SUCCESS``.

    ``on_progress`` is called twice a second; what it raises ends the waiting, not the run. Raises ServiceError when
    Dagster does not answer, RetentionError when it refuses the job, its daemon is not running, or the run fails.
    """
    with httpx.Client(base_url=base_url, timeout=10.0, trust_env=False) as client:
        run_id = _launch(client, job_name)
        progress = _wait(client, run_id, on_progress)
        if progress.status != "SUCCESS":
            raise RetentionError(
                f"Dagster's run of {job_name} {'was canceled' if progress.status == 'CANCELED' else 'failed'}: "
                f"{_why(client, run_id)} [{base_url}/runs/{run_id}]"
            )
    return progress.status


def _launch(client: httpx.Client, job_name: str) -> str:
    selector = _find(client, job_name)
    presets = _ask(client, _PRESET, {"selector": selector})["pipelineOrError"].get("presets") or []
    answer = _ask(
        client,
        _LAUNCH,
        {
            "params": {
                "selector": selector,
                "runConfigData": presets[0]["runConfigYaml"] if presets else "{}",
            }
        },
    )["launchRun"]
    if answer["__typename"] != "LaunchRunSuccess":
        reasons = [answer.get("message"), *(error["message"] for error in answer.get("errors", ()))]
        raise RetentionError(f"Dagster refuses to run {job_name}: {' '.join(filter(None, reasons))[:400]}")
    return str(answer["run"]["runId"])


def _find(client: httpx.Client, job_name: str) -> dict[str, str]:
    for repository in _ask(client, _WHERE, {})["repositoriesOrError"].get("nodes", ()):
        if any(job["name"] == job_name for job in repository["jobs"]):
            return {
                "repositoryLocationName": repository["location"]["name"],
                "repositoryName": repository["name"],
                "pipelineName": job_name,
            }
    raise RetentionError(
        f"Dagster at {client.base_url} has no job {job_name}: see its Deployment page for what is wrong"
    )


def _wait(client: httpx.Client, run_id: str, on_progress: Callable[[Progress], None]) -> Progress:
    launched = answered = time.monotonic()
    while True:
        try:
            run = _ask(client, _LOOK, {"id": run_id})["runOrError"]
            answered = time.monotonic()
        except ServiceError:
            # Busy for a moment is not gone; a part that died is for on_progress to notice.
            if time.monotonic() - answered > SILENCE_SECONDS:
                raise
            run = None
        if run is not None:
            if run["__typename"] != "Run":
                raise RetentionError(f"Dagster at {client.base_url} does not know run {run_id} any more")
            progress = _progress(run_id, run)
            on_progress(progress)
            if progress.status in _FINISHED:
                return progress
            if progress.status == "QUEUED" and time.monotonic() - launched > DAEMON_PATIENCE_SECONDS:
                _check_daemon(client)
        time.sleep(POLL_SECONDS)


def _progress(run_id: str, run: dict[str, Any]) -> Progress:
    done = {tuple(made["assetKey"]["path"]) for made in run["assetMaterializations"] if made["assetKey"]}
    planned = {tuple(asset["key"]["path"]) for asset in run["assets"]} | {
        tuple(key["path"]) for key in run["assetSelection"] or ()
    }
    return Progress(run_id, run["status"], len(done), len(planned | done))


def _check_daemon(client: httpx.Client) -> None:
    status = _ask(client, _DAEMON, {})["instance"]["daemonHealth"]["daemonStatus"]
    if not status["healthy"]:
        raise RetentionError(
            "the run waits in Dagster's queue and Dagster's daemon is not running: start it with `retention up`, "
            "or `dagster-daemon run`"
        )


def _why(client: httpx.Client, run_id: str) -> str:
    """The first step's reason, else the run's."""
    from retention_platform.orchestration.failures import first_sentence

    cursor, reasons = None, list[str]()
    while True:
        logs = _ask(client, _WHY, {"id": run_id, "after": cursor})["logsForRun"]
        for event in logs.get("events", ()):
            if event["__typename"] == "ExecutionStepFailureEvent":
                described = (event.get("failureMetadata") or {}).get("description")
                error = event.get("error") or {}
                return (
                    first_sentence(described or (error.get("cause") or error).get("message") or "") or "no reason given"
                )
            if event["__typename"] == "RunFailureEvent":
                reasons.append(event["message"])
        if not logs.get("hasMore"):
            return first_sentence(reasons[0]) if reasons else "no reason was recorded"
        cursor = logs["cursor"]


def _ask(client: httpx.Client, query: str, variables: dict[str, Any]) -> dict[str, Any]:
    """A GraphQL query's data. Raises ServiceError."""
    try:
        answer = client.post("/graphql", json={"query": query, "variables": variables})
        value = answer.raise_for_status().json()
    except (httpx.HTTPError, ValueError) as error:
        raise ServiceError(
            f"Dagster at {client.base_url} does not answer ({type(error).__name__}): start it with `retention up`"
        ) from None
    if value.get("errors"):
        raise ServiceError(f"Dagster at {client.base_url}: {value['errors'][0]['message'][:400]}")
    data: dict[str, Any] = value["data"]
    return data
