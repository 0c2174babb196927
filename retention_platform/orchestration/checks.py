"""The asset checks that are not dbt tests: wiring around `completeness` and `agreement`."""

from __future__ import annotations

from datetime import timedelta

import dagster as dg

from retention_platform.orchestration import agreement, completeness
from retention_platform.orchestration.failures import told_in_one_line
from retention_platform.orchestration.resources import Warehouse

#: How long an event may wait, to be stored and to be in the marts, before somebody should look. A refresh that
#: failed once and was tried again stays below it.
PATIENCE = timedelta(minutes=5)

RAW_EVENTS = dg.AssetKey(["raw", "playback_events"])
SUMMARY = dg.AssetKey(["marts", "engagement_summary"])


@dg.asset_check(
    asset=RAW_EVENTS,
    name="complete",
    description="Every message that the broker has, up to what ingest committed, is stored; none waits for long.",
)
def raw_is_complete(warehouse: Warehouse) -> dg.AssetCheckResult:
    """See `completeness`."""
    with told_in_one_line(), warehouse.client() as client:
        coverages, oldest_waiting = completeness.survey(client, warehouse.settings())
    verdict = completeness.judge(coverages, oldest_waiting, PATIENCE.total_seconds())
    partitions = {
        f"{c.topic}/{c.partition}": f"{c.first} to {c.committed} of {c.end}: {c.stored} stored, {c.holes} holes, "
        f"{len(c.missing)} missing" + (f": {c.told()}" if c.missing else "")
        for c in coverages
    }
    return dg.AssetCheckResult(passed=verdict.passed, description=verdict.reason, metadata={"partitions": partitions})


@dg.asset_check(
    asset=SUMMARY,
    name="fresh",
    description=f"No stored event waits longer than {PATIENCE.total_seconds():.0f} s to be in the marts.",
)
def marts_are_fresh(warehouse: Warehouse) -> dg.AssetCheckResult:
    """Compare when the marts were computed with when events were stored."""
    with told_in_one_line(), warehouse.client() as client:
        found = agreement.read_freshness(client)
    waited = f", the oldest for {found.waiting.total_seconds():.0f} s" if found.waiting is not None else ""
    return dg.AssetCheckResult(
        passed=found.waiting is None or found.waiting <= PATIENCE,
        severity=dg.AssetCheckSeverity.WARN,
        description=f"{found.events_after} events were stored after the marts were computed{waited}",
        metadata={"computed_at": found.computed.isoformat(), "events_after": found.events_after},
    )


@dg.asset_check(
    asset=SUMMARY,
    name="agrees_with_raw",
    description="Sessions and views a video equal those counted from raw by another way, as far as the marts know raw.",
)
def marts_agree_with_raw(warehouse: Warehouse) -> dg.AssetCheckResult:
    """See `agreement`."""
    with told_in_one_line(), warehouse.client() as client:
        raw, marts = agreement.read_counts(client)
    found = agreement.differences(raw, marts)
    return dg.AssetCheckResult(
        passed=not found,
        description=f"{len(found)} of {len(raw)} videos differ; {found[0]}" if found else f"{len(raw)} videos agree",
        metadata={"differences": found[:20]},
    )
