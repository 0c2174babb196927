"""The newest runs of Dagster, asked of its webserver; that it is away is an answer and no failure."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Any

from retention_platform.api.models.base import Reason
from retention_platform.api.models.overview import Run, Runs
from retention_platform.errors import ServiceError
from retention_platform.orchestration.graphql import ask, connection
from retention_platform.settings import Settings

ASK_SECONDS = 3.0
_RUNS = """
query ($limit: Int!) {
  runsOrError(limit: $limit) {
    ... on Runs { results { runId jobName status creationTime startTime endTime } }
    ... on Error { message }
  }
}
"""


def newest_runs(settings: Settings, limit: int) -> Runs:
    """The newest runs, or the reason why there are none to tell of. Waits for the webserver, 3 s at most."""
    url = settings.dagster_url
    try:
        with connection(url) as client:
            client.timeout = ASK_SECONDS
            answer = ask(client, _RUNS, {"limit": limit})["runsOrError"]
    except ServiceError as error:
        return Runs(dagster_url=url, reason=Reason(code="away", text=str(error)), runs=[])
    if "results" not in answer:
        return Runs(dagster_url=url, reason=Reason(code="away", text=str(answer.get("message"))[:400]), runs=[])
    runs = [_run(row) for row in answer["results"]]
    reason = None if runs else Reason(code="no_runs", text="Dagster has run nothing yet")
    return Runs(dagster_url=url, reason=reason, runs=runs)


def _run(row: dict[str, Any]) -> Run:
    job = str(row["jobName"])
    return Run(
        run_id=row["runId"],
        # What Dagster names a run of assets that belongs to no job.
        job="assets" if job.startswith("__") else job,
        status=row["status"],
        created_at=_moment(row["creationTime"]) or datetime.fromtimestamp(0, timezone.utc),
        started_at=_moment(row["startTime"]),
        ended_at=_moment(row["endTime"]),
    )


def _moment(epoch: float | None) -> datetime | None:
    return None if epoch is None else datetime.fromtimestamp(epoch, timezone.utc)
