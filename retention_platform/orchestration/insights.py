"""Insights as an asset: made of the marts after these were refreshed and checked, only of videos whose facts changed.

Owns when they are made and within what budget. What they say is `retention_platform.insights`' business.
"""

# No `from __future__ import annotations`: Dagster looks at the annotations of decorated functions.

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import dagster as dg
from dagster._core.storage.asset_check_execution_record import AssetCheckExecutionRecordStatus

from retention_platform.insights import queries, store
from retention_platform.insights.analyse import Analyst, cost_of, is_news, read_facts
from retention_platform.insights.schema import Insights
from retention_platform.orchestration.failures import told_in_one_line
from retention_platform.orchestration.previews import table
from retention_platform.orchestration.refresh import PastRun, Refresh, Wait, backoff, past_runs
from retention_platform.orchestration.resources import Warehouse
from retention_platform.orchestration.translator import OWNERS
from retention_platform.report.insights import document
from retention_platform.report.make import Format, written
from retention_platform.report.queries import UnknownVideo, asking

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client

    from retention_platform.settings import Settings

KEY = dg.AssetKey(["marts", "ai_insights"])
JOB = "insights"
#: Under a steady stream of events facts change all the time; insights of the last hour are new enough.
REST_SECONDS = 3600.0
POLL_SECONDS = 60
#: Insights shown as Markdown in Dagster's UI, and rows of the table there.
SHOWN, PREVIEWED = 5, 20

_MARTS = [dg.AssetKey(["marts", mart]) for mart in queries.MARTS]


@dataclass
class Made:
    """What a run made: insights that were kept, and how many videos needed none or only had a fallback again."""

    kept: list[Insights] = field(default_factory=list)
    unchanged: int = 0
    not_kept: int = 0
    notes: set[str] = field(default_factory=set)


def make_insights(client: "Client", one: Analyst) -> Made:
    """Make and keep insights of every video whose facts changed, the most viewed first; each is kept at once."""
    ask, made, before = asking(client), Made(), store.kept(client)
    for video_id in queries.videos_of(client):
        try:
            facts = read_facts(ask, video_id)
        except UnknownVideo:
            # The marts were replaced since the list was read.
            continue
        kept = before.get(video_id)
        if kept is not None and one.is_current(kept, facts):
            made.unchanged += 1
            continue
        found = one.insights(video_id, facts)
        if found.note:
            made.notes.add(found.note)
        if is_news(found, kept):
            store.save(client, found)
            made.kept.append(found)
        else:
            made.not_kept += 1
    return made


@dg.asset(
    key=KEY,
    deps=_MARTS,
    group_name="insights",
    owners=OWNERS,
    kinds={"clickhouse", "openai"},
    description="What happens in each video, where and why people leave, what to change; history is kept.",
)
def ai_insights(context: dg.AssetExecutionContext, warehouse: Warehouse) -> dg.MaterializeResult:  # type: ignore[type-arg]
    """See `make_insights`."""
    settings = warehouse.settings()
    with told_in_one_line(), warehouse.client() as client:
        one = Analyst(settings)
        made = make_insights(client, one)
        for note in sorted(made.notes):
            context.log.warning(note)
        return dg.MaterializeResult(metadata=metadata_of(made, one, settings))


def metadata_of(made: Made, one: Analyst, settings: "Settings") -> dict[str, dg.MetadataValue]:
    """What Dagster's UI shows of a run: counts, tokens and their cost, and the insights as a document."""
    usage, cost = one.usage, cost_of(one.usage, settings)
    rows = [
        {
            "video_id": each.video_id,
            "grade": each.analysis.assessment.grade,
            "headline": each.analysis.headline,
            "mode": each.mode,
            "model": each.model,
        }
        for each in made.kept[:PREVIEWED]
    ]
    found: dict[str, dg.MetadataValue] = {
        "made": dg.MetadataValue.int(len(made.kept)),
        "unchanged": dg.MetadataValue.int(made.unchanged),
        "by rules again, not kept": dg.MetadataValue.int(made.not_kept),
        "by a language model": dg.MetadataValue.int(sum(each.mode == "openai" for each in made.kept)),
        "calls": dg.MetadataValue.int(usage.calls),
        "input tokens": dg.MetadataValue.int(usage.input_tokens),
        "output tokens": dg.MetadataValue.int(usage.output_tokens),
        "newest": table(rows),
    }
    if cost is not None:
        found["cost"] = dg.MetadataValue.float(cost)
    if made.notes:
        found["notes"] = dg.MetadataValue.text("; ".join(sorted(made.notes)))
    if made.kept:
        shown = [written(document(each), Format.MARKDOWN) for each in made.kept[:SHOWN]]
        found["insights"] = dg.MetadataValue.md("\n\n".join(shown))
    return found


insights = dg.define_asset_job(
    JOB,
    selection=dg.AssetSelection.assets(ai_insights).without_checks(),
    description="Makes insights of videos whose facts changed.",
    executor_def=dg.in_process_executor,
)


def decide(
    refreshes: Sequence[PastRun], past: Sequence[PastRun], failed_checks: Callable[[], Iterable[str]], now: float
) -> Refresh | Wait:
    """Whether to make insights; runs newest first, ``now`` in epoch seconds.

    Only after a refresh of the marts that succeeded, with no check of them failed, and an hour after the last time.
    """
    finished = [run for run in refreshes if not run.in_flight]
    if not finished:
        return Wait("the marts were never refreshed")
    if not finished[0].succeeded:
        return Wait(f"the last refresh of the marts failed, run {finished[0].run_id[:8]}")
    if any(run.in_flight for run in past):
        return Wait("insights are being made")
    failures = next((number for number, run in enumerate(past) if run.succeeded), len(past))
    if failures:
        left = past[0].ended + backoff(failures) - now
        if left > 0:
            return Wait(f"failed {failures} times in a row; next try in {left:.0f} s")
    elif past:
        if past[0].started >= finished[0].ended:
            return Wait("no refresh since insights were made")
        if (left := past[0].started + REST_SECONDS - now) > 0:
            return Wait(f"insights of the last hour are new enough; next in {left:.0f} s")
    if failed := sorted(failed_checks()):
        return Wait(f"a check of the marts failed: {failed[0]}")
    return Refresh(f"{finished[0].run_id}/{past[0].run_id[:8] if past else 'first'}")


def failed_checks(context: dg.SensorEvaluationContext) -> list[str]:
    """Checks of the marts whose newest outcome is a failure; warnings are none."""
    graph = context.repository_def.asset_graph if context.repository_def else None
    keys = [key for key in graph.asset_check_keys if key.asset_key in _MARTS] if graph else []
    newest = context.instance.event_log_storage.get_latest_asset_check_execution_by_key(keys)
    failed = []
    for key, record in newest.items():
        evaluation = record.evaluation if record.status == AssetCheckExecutionRecordStatus.FAILED else None
        if evaluation is not None and evaluation.severity == dg.AssetCheckSeverity.ERROR:
            failed.append(f"{key.name} of {key.asset_key.to_user_string()}")
    return failed


@dg.sensor(
    name="insights_due",
    job_name=JOB,
    description="Has insights made after the marts were refreshed and checked, once an hour at most.",
    minimum_interval_seconds=POLL_SECONDS,
    default_status=dg.DefaultSensorStatus.RUNNING,
)
def insights_due(context: dg.SensorEvaluationContext) -> dg.RunRequest | dg.SkipReason:
    """See `decide`."""
    past = past_runs(context.instance, of=dg.RunsFilter(job_name=JOB))
    decision = decide(past_runs(context.instance), past, lambda: failed_checks(context), time.time())
    if isinstance(decision, Wait):
        return dg.SkipReason(decision.reason)
    return dg.RunRequest(run_key=decision.run_key)
