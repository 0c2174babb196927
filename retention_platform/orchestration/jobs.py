"""Jobs and when they run. One process a run: starting another for each step would take longer than the steps."""

from __future__ import annotations

import dagster as dg

from retention_platform.orchestration.checks import marts_agree_with_raw, marts_are_fresh, raw_is_complete
from retention_platform.orchestration.housekeeping import prune_old_runs
from retention_platform.orchestration.models import Build, dbt_models
from retention_platform.orchestration.raw_tables import raw_tables
from retention_platform.orchestration.refresh import REFRESH_TAG

_CHECKS = dg.AssetSelection.checks(raw_is_complete, marts_are_fresh, marts_agree_with_raw)
_MODELS = dg.AssetSelection.assets(dbt_models)

marts = dg.define_asset_job(
    "marts",
    selection=_MODELS - _CHECKS,
    description="Brings the marts up to date with what is stored, and runs dbt's data tests.",
    tags=REFRESH_TAG,
    executor_def=dg.in_process_executor,
)

reconcile = dg.define_asset_job(
    "reconcile",
    selection=_MODELS | _CHECKS,
    description="Recomputes everything from raw, whatever was computed before, and runs every check.",
    config=dg.RunConfig(ops={"dbt_models": Build(full_refresh=True)}),
    tags=REFRESH_TAG,
    executor_def=dg.in_process_executor,
)

watch = dg.define_asset_job(
    "watch",
    selection=_CHECKS,
    description="Runs the checks for completeness, freshness and agreement.",
    executor_def=dg.in_process_executor,
)

observe = dg.define_asset_job(
    "observe",
    selection=dg.AssetSelection.assets(raw_tables).without_checks(),
    description="Notes how far each raw table is stored.",
    executor_def=dg.in_process_executor,
)

nightly = dg.ScheduleDefinition(
    name="nightly_reconciliation",
    job=reconcile,
    cron_schedule="15 3 * * *",
    execution_timezone="UTC",
    default_status=dg.DefaultScheduleStatus.RUNNING,
)

every_quarter_hour = dg.ScheduleDefinition(
    name="checks_every_15_minutes",
    job=watch,
    cron_schedule="*/15 * * * *",
    execution_timezone="UTC",
    default_status=dg.DefaultScheduleStatus.RUNNING,
)

housekeeping = dg.ScheduleDefinition(
    name="hourly_housekeeping",
    job=prune_old_runs,
    cron_schedule="7 * * * *",
    execution_timezone="UTC",
    default_status=dg.DefaultScheduleStatus.RUNNING,
)
