"""What went wrong, in one line, and whether trying again can help. No Dagster here, but for the sensor's wiring."""

from __future__ import annotations

import contextlib
import logging
import re
from collections.abc import Iterator

import dagster as dg

from retention_platform.errors import RetentionError

log = logging.getLogger("retention.dagster")

#: ClickHouse's codes for what passes: load, timeouts, network, a keeper or disk that is away for a moment.
TRANSIENT_CODES = {
    159: "TIMEOUT_EXCEEDED",
    202: "TOO_MANY_SIMULTANEOUS_QUERIES",
    203: "NO_FREE_CONNECTION",
    209: "SOCKET_TIMEOUT",
    210: "NETWORK_ERROR",
    241: "MEMORY_LIMIT_EXCEEDED",
    242: "TABLE_IS_READ_ONLY",
    252: "TOO_MANY_PARTS",
    279: "ALL_CONNECTION_TRIES_FAILED",
    394: "QUERY_WAS_CANCELLED",
    425: "SYSTEM_ERROR",
    439: "CANNOT_SCHEDULE_TASK",
    999: "KEEPER_EXCEPTION",
}
_CODE = re.compile(r"\bcode:?\s*(\d+)", re.IGNORECASE)
#: How Python's network libraries word a server that is away, for errors that never reached ClickHouse.
_AWAY = re.compile(
    r"connection (refused|reset|aborted)|timed out|remote end closed|max retries exceeded|does not answer",
    re.IGNORECASE,
)


def is_transient(message: str) -> bool:
    """Whether an error's text speaks of something that passes: one of the codes, or a server that is away.

    A code decides where there is one: "Code: 60 … timed out" is a missing table, and stays one.
    """
    codes = {int(code) for code in _CODE.findall(message)}
    return bool(codes & TRANSIENT_CODES.keys()) if codes else bool(_AWAY.search(message))


@contextlib.contextmanager
def told_in_one_line() -> Iterator[None]:
    """Turn an error for the user's eyes into Dagster's, without a traceback and without retries."""
    try:
        yield
    except RetentionError as error:
        raise dg.Failure(description=str(error), allow_retries=False) from None


def failure_line(job: str, run_id: str, reasons: list[str]) -> str:
    """The line for a failed run: which, and why, the steps' reasons before the run's own."""
    why = next((line for reason in reasons if (line := first_sentence(reason))), "no reason was recorded")
    return f"run {run_id[:8]} of {job} failed: {why}"


def first_sentence(text: str) -> str:
    """An error's text in one line: without the exception's class, and cut to 500 characters."""
    lines = [line.strip() for line in text.strip().splitlines() if line.strip()]
    if not lines:
        return ""
    line = re.sub(r"^(\w+\.)*(Failure|\w*Error|RetryRequested): ", "", lines[0])
    return line[:500]


@dg.run_failure_sensor(
    name="run_failures",
    description="Tells of every failed run in one line, here and in the code server's log.",
    minimum_interval_seconds=10,
    default_status=dg.DefaultSensorStatus.RUNNING,
)
def run_failures(context: dg.RunFailureSensorContext) -> None:
    """Log one line a failed run; add other channels (mail, chat) here."""
    events = [*context.get_step_failure_events(), context.failure_event]
    reasons = [reason for event in events for reason in _reasons(event)]
    line = failure_line(context.dagster_run.job_name, context.dagster_run.run_id, reasons)
    log.error(line)
    context.log.error(line)


def _reasons(event: dg.DagsterEvent) -> list[str]:
    """The texts in which a failure event says why, the most telling first."""
    data = event.event_specific_data
    user_data = getattr(data, "user_failure_data", None)
    described = getattr(user_data, "description", None)
    error = getattr(data, "error", None)
    cause = getattr(error, "cause", None)
    texts = [described, getattr(cause, "message", None), getattr(error, "message", None), event.message]
    return [text for text in texts if text]
