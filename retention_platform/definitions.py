"""Everything Dagster knows, listed once: the architecture at a glance.

broker ─► ingest ─► raw_tables (observed) ─► dbt_models: staging ─► intermediate ─► marts ─► API
                         │                        ▲                              ├──► reports, weekly digest
                         │                        │                              ├──► ai_insights
                         │                        │                              └──► alerts (sensor)
                         └─ new_events (sensor) ──┘ wakes the marts when there is news
"""

from __future__ import annotations

import dagster as dg

from retention_platform.orchestration import insights, jobs, reports
from retention_platform.orchestration.alerts import alert_sensor
from retention_platform.orchestration.checks import marts_agree_with_raw, marts_are_fresh, raw_is_complete
from retention_platform.orchestration.failures import run_failures
from retention_platform.orchestration.housekeeping import prune_old_runs
from retention_platform.orchestration.models import dbt_models
from retention_platform.orchestration.raw_tables import raw_tables
from retention_platform.orchestration.refresh import new_events
from retention_platform.orchestration.resources import Warehouse

defs = dg.Definitions(
    assets=[raw_tables, dbt_models, reports.video_reports, reports.weekly_digest, insights.ai_insights],
    asset_checks=[raw_is_complete, marts_are_fresh, marts_agree_with_raw],
    jobs=[
        jobs.marts,
        jobs.reconcile,
        jobs.watch,
        jobs.observe,
        reports.reports,
        reports.digests,
        insights.insights,
        prune_old_runs,
    ],
    sensors=[new_events, run_failures, insights.insights_due, alert_sensor],
    schedules=[
        jobs.nightly,
        jobs.every_quarter_hour,
        jobs.housekeeping,
        reports.daily_reports,
        reports.weekly_digests,
    ],
    resources={"warehouse": Warehouse()},
    executor=dg.in_process_executor,
)
