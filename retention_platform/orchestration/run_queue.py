"""Dagster's queue of runs, with the limits of their pools in place before the first run leaves it.

Dagster itself writes down a pool's default limit when it first meets the pool in the queue, and in that same pass takes
it for one without a limit: of two runs that wait when a storage is new, both start.
"""

from __future__ import annotations

from dagster._core.run_coordinator import QueuedRunCoordinator, SubmitRunContext
from dagster._core.storage.dagster_run import DagsterRun


class PooledRunCoordinator(QueuedRunCoordinator):
    """Queues runs; a pool is known before a run that uses it is."""

    def submit_run(self, context: SubmitRunContext) -> DagsterRun:
        """Put a run into the queue."""
        asked = context.dagster_run.run_op_concurrency
        pools = set(asked.all_pools or ()) if asked else set()
        storage = self._instance.event_log_storage
        for pool in pools - storage.get_concurrency_keys():
            storage.initialize_concurrency_limit_to_default(pool)
        return super().submit_run(context)
