"""Running a job through the Dagster webserver, so that it shows in the UI like any other run. Knows no job by name."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import httpx

from retention_platform.errors import RetentionError, ServiceError
from retention_platform.orchestration.graphql import ask, connection

#: Seconds between two looks at a run.
POLL_SECONDS = 0.5
#: Seconds that Dagster may take to load our code, from when it is asked for a job.
LOAD_SECONDS = 60.0
#: Seconds a run may stay queued before the daemon is asked after: one that has just started tells nothing yet.
DAEMON_PATIENCE_SECONDS = 45.0
#: Seconds the webserver may be silent, while it is busy, before the run is given up on.
SILENCE_SECONDS = 30.0

_FINISHED = {"SUCCESS", "FAILURE", "CANCELED"}

_WHERE = """
{
  workspaceOrError {
    ... on Workspace {
      locationEntries {
        name
        loadStatus
        locationOrLoadError {
          ... on RepositoryLocation { name repositories { name jobs { name } } }
          ... on PythonError { message }
        }
      }
    }
    ... on PythonError { message }
  }
}
"""
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
    """Where a run is: Dagster's status, and how many of its assets are made.

    Before there is a run, while Dagster loads our code, ``run_id`` is empty and the status ``LOADING``.
    """

    run_id: str
    status: str
    done: int
    total: int

    def __str__(self) -> str:
        made = f", {self.done} of {self.total} tables" if self.total else ""
        return f"{self.status.lower()}{made}"


def launch_job(base_url: str, job_name: str, on_progress: Callable[[Progress], None]) -> str:
    """Start a job and wait for its end; its status, ``SUCCESS``.

    A Dagster that has just started is given a minute to load our code. ``on_progress`` is called twice a second; what
    it raises ends the waiting, not the run. Raises ServiceError when Dagster does not answer, RetentionError when it
    refuses the job, cannot load our code, its daemon is not running, or the run fails.
    """
    with connection(base_url) as client:
        run_id = _launch(client, job_name, _find_loaded(client, job_name, on_progress))
        progress = _wait(client, run_id, on_progress)
        if progress.status != "SUCCESS":
            raise RetentionError(
                f"Dagster's run of {job_name} {'was canceled' if progress.status == 'CANCELED' else 'failed'}: "
                f"{_why(client, run_id)} [{base_url}/runs/{run_id}]"
            )
    return progress.status


def _launch(client: httpx.Client, job_name: str, selector: dict[str, str]) -> str:
    presets = ask(client, _PRESET, {"selector": selector})["pipelineOrError"].get("presets") or []
    answer = ask(
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


def _find_loaded(client: httpx.Client, job_name: str, on_progress: Callable[[Progress], None]) -> dict[str, str]:
    """Where the job is, as soon as Dagster has loaded it."""
    deadline = time.monotonic() + LOAD_SECONDS
    while True:
        found = find_job(ask(client, _WHERE, {})["workspaceOrError"], job_name)
        if not isinstance(found, NotLoaded):
            return found
        if not found.may_come or time.monotonic() > deadline:
            raise RetentionError(f"Dagster at {client.base_url} has no job {job_name}: {found.reason}")
        on_progress(Progress("", "LOADING", 0, 0))
        time.sleep(POLL_SECONDS)


@dataclass(frozen=True)
class NotLoaded:
    """Why a job is not there, and whether waiting may help."""

    reason: str
    may_come: bool


def find_job(workspace: dict[str, Any], job_name: str) -> dict[str, str] | NotLoaded:
    """The GraphQL selector of a job in Dagster's workspace.

    A code location that failed may be one whose server is still starting, which Dagster looks at again by itself.
    """
    troubles = [workspace["message"]] if "message" in workspace else []
    for entry in workspace.get("locationEntries", ()):
        loaded = entry["locationOrLoadError"] or {"message": "is being loaded"}
        for repository in loaded.get("repositories", ()):
            if any(job["name"] == job_name for job in repository["jobs"]):
                return {
                    "repositoryLocationName": entry["name"],
                    "repositoryName": repository["name"],
                    "pipelineName": job_name,
                }
        if "message" in loaded:
            troubles.append(f"{entry['name']} {one_line(loaded['message'])}")
        elif entry["loadStatus"] == "LOADING":
            troubles.append(f"{entry['name']} is being loaded")
    if troubles:
        return NotLoaded(f"{'; '.join(troubles)} (more on its Deployment page)", may_come=True)
    return NotLoaded("its code was loaded and does not define it", may_come=False)


def one_line(text: str) -> str:
    """The first lines of a message as one, cut to 300 characters."""
    return " ".join(text.split())[:300]


def _wait(client: httpx.Client, run_id: str, on_progress: Callable[[Progress], None]) -> Progress:
    launched = answered = time.monotonic()
    while True:
        try:
            run = ask(client, _LOOK, {"id": run_id})["runOrError"]
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
    status = ask(client, _DAEMON, {})["instance"]["daemonHealth"]["daemonStatus"]
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
        logs = ask(client, _WHY, {"id": run_id, "after": cursor})["logsForRun"]
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
