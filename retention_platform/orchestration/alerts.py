"""The sensor that tells of what is new and bad. What that is, `retention_platform.insights.alerts` says."""

# No `from __future__ import annotations`: Dagster looks at the annotations of decorated functions.

import logging
from datetime import date, datetime, timezone

import dagster as dg

from retention_platform.errors import RetentionError
from retention_platform.insights import alerts
from retention_platform.orchestration.raw_mark import unreadable
from retention_platform.orchestration.resources import Warehouse

log = logging.getLogger("retention.dagster")

POLL_SECONDS = 60


def look(memory: alerts.Memory, found: list[alerts.Alert], webhook: str, today: date) -> tuple[str, str]:
    """Tell what is new: the memory afterwards, and what was done in one line.

    The first look only learns what is there. Raises ServiceError when the webhook does not take it; it is new then at
    the next look as well.
    """
    new = [] if memory.is_empty else memory.new(found)
    for alert in new:
        log.warning(alert.text)
    if new and webhook:
        alerts.post(webhook, new)
    learnt = f"{len(found)} known before the first look; " if memory.is_empty else ""
    return memory.after(found, today), f"{learnt}{len(new)} new alerts of {len(found)}"


@dg.sensor(
    name="alerts",
    description="Tells of new high dropoffs, and of videos that fewer finish than in the week before: here, in the "
    "code server's log, and to ALERT_WEBHOOK_URL.",
    minimum_interval_seconds=POLL_SECONDS,
    default_status=dg.DefaultSensorStatus.RUNNING,
)
def alert_sensor(context: dg.SensorEvaluationContext, warehouse: Warehouse) -> dg.SkipReason:
    """See `look`."""
    today = datetime.now(timezone.utc).date()
    try:
        with warehouse.client() as client:
            try:
                found = alerts.read(client, today)
            except Exception as error:
                raise unreadable(error) from None
        memory = alerts.Memory(context.cursor)
        webhook = warehouse.settings().alert_webhook_url.get_secret_value()
        after, done = look(memory, found, webhook, today)
    except RetentionError as error:
        return dg.SkipReason(str(error))
    context.update_cursor(after)
    return dg.SkipReason(done)
