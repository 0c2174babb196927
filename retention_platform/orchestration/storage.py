"""Dagster's own tables, made before its processes start: of two that find none at once one would fail to make them."""

from __future__ import annotations

from pathlib import Path


def prepare_storage(folder: Path) -> None:
    """Make what is not there yet of the storage that ``folder``'s dagster.yaml configures."""
    # Half a second, which only who starts a stack has to wait for.
    from dagster import DagsterInstance

    with DagsterInstance.from_config(str(folder)) as instance:
        # Each is made when it is asked for.
        for kind in ("run_storage", "event_log_storage", "schedule_storage"):
            getattr(instance, kind)
