"""Dagster's default run launcher, able to tell whether a run's process is still there.

Without it a run whose code server was killed (a power cut, `kill -9`) stays "started" for ever: it holds the pool that
keeps two dbt runs apart, and no refresh follows it. Dagster's run monitoring asks, and marks such runs as failed.
"""

from __future__ import annotations

import grpc  # type: ignore[import-untyped]
from dagster._core.errors import DagsterUserCodeUnreachableError
from dagster._core.launcher.base import CheckRunHealthResult, WorkerStatus
from dagster._core.launcher.default_run_launcher import DefaultRunLauncher
from dagster._core.storage.dagster_run import DagsterRun
from dagster._grpc.types import GetCurrentRunsResult
from dagster._serdes import deserialize_value


class WatchedRunLauncher(DefaultRunLauncher):
    """Launches runs in the code server, and asks it which of them it still runs."""

    @property
    def supports_check_run_worker_health(self) -> bool:
        """Run monitoring may ask."""
        return True

    def check_run_worker_health(self, run: DagsterRun) -> CheckRunHealthResult:
        """RUNNING while the code server that started the run still has its process; else NOT_FOUND."""
        client = self._get_grpc_client_for_termination(run.run_id)  # type: ignore[no-untyped-call]
        if client is None:
            return CheckRunHealthResult(WorkerStatus.UNKNOWN, "the run was not launched in a code server")
        try:
            current = deserialize_value(client.get_current_runs(), GetCurrentRunsResult)
        except DagsterUserCodeUnreachableError as error:
            if is_gone(error):
                return CheckRunHealthResult(WorkerStatus.NOT_FOUND, "the code server that ran it is gone")
            return CheckRunHealthResult(WorkerStatus.RUNNING, "the code server did not say: taken to be running")
        if run.run_id in current.current_runs:
            return CheckRunHealthResult(WorkerStatus.RUNNING)
        return CheckRunHealthResult(WorkerStatus.NOT_FOUND, "its process is gone")


def is_gone(error: DagsterUserCodeUnreachableError) -> bool:
    """Whether nobody listens where the code server was.

    One that is busy, or the proxy that `dagster dev` puts before it and that does not know this question, is there.
    """
    cause = error.__cause__
    return isinstance(cause, grpc.RpcError) and cause.code() == grpc.StatusCode.UNAVAILABLE
