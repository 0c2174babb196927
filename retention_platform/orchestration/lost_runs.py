"""Runs that a stopped stack left behind: canceled when the next one starts, before its daemon looks at them.

Run monitoring finds them as well, after ten seconds to a minute; until then they hold the pool that keeps two dbt runs
apart, and the start would wait. Only who owns the state folder may do this: nobody else can know that nothing runs.
"""

from __future__ import annotations

from retention_platform.orchestration.graphql import ask, connection

_UNFINISHED = """
query ($filter: RunsFilter!) { runsOrError(filter: $filter) { ... on Runs { results { runId } } } }
"""
_CANCEL = """
mutation ($ids: [String!]!) {
  terminateRuns(runIds: $ids, terminatePolicy: MARK_AS_CANCELED_IMMEDIATELY) { __typename }
}
"""
#: Queued ones too: what they wanted is done by the refresh that follows a start.
_STATUSES = ["QUEUED", "NOT_STARTED", "STARTING", "STARTED", "CANCELING"]


def cancel_lost_runs(base_url: str) -> int:
    """Mark every unfinished run as canceled; how many. Raises ServiceError when Dagster does not answer."""
    with connection(base_url) as client:
        answer = ask(client, _UNFINISHED, {"filter": {"statuses": _STATUSES}})["runsOrError"]
        ids = [run["runId"] for run in answer.get("results", ())]
        if ids:
            ask(client, _CANCEL, {"ids": ids})
    return len(ids)
