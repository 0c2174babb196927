"""What somebody should be told at once: a new high dropoff, or fewer who finish than in the week before.

Owns the SQL, the judgement and the words; when it looks and what it remembers is the sensor's. Pure but for `read` and
`post`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import httpx

from retention_platform.errors import ServiceError
from retention_platform.insights import stats
from retention_platform.report.untrusted import plain
from retention_platform.report.words import position

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client

#: A fall of completion is told when both weeks have so many views, it is so many points, and so unlikely by chance,
#: over all videos that are looked at (Benjamini and Hochberg).
MIN_VIEWS, MIN_POINTS, MAX_Q = 100, 5.0, 0.01
#: Dropoffs that begin so near are the same, in seconds or in hundredths of the video.
SAME_SECONDS, SAME_PARTS = 2, 0.02
#: What was not found for so long is new when it comes again.
FORGET = timedelta(days=14)
#: Alerts told one by one in a message.
MAX_TOLD = 20
POST_SECONDS = 10.0

_DROPOFFS = """
select dropoffs.video_id as video_id, videos.title as title, videos.duration_s as duration_s, start_second, end_second,
    views_lost, at_risk, excess_points
from marts.dropoff_points as dropoffs
left join marts.videos as videos on dropoffs.video_id = videos.video_id
where severity = 'high' and not tentative
order by excess_points desc, video_id, start_second
"""
# Whole days (UTC) only, so that the hour of the day changes nothing.
_WEEKS = """
select weeks.*, videos.title as title
from (
    select
        video_id,
        sumIf(daily.views, day >= toDate({today:String}) - 7) as views,
        sumIf(daily.views, day < toDate({today:String}) - 7) as views_before,
        sumIf(round(ifNull(completion_rate, 0) * daily.views), day >= toDate({today:String}) - 7) as finished,
        sumIf(round(ifNull(completion_rate, 0) * daily.views), day < toDate({today:String}) - 7) as finished_before
    from marts.engagement_daily as daily
    where day >= toDate({today:String}) - 14 and day < toDate({today:String})
    group by video_id
) as weeks
left join marts.videos as videos on weeks.video_id = videos.video_id
order by video_id
"""

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Alert:
    """One thing to tell; ``text`` is one line in which nothing can be acted upon."""

    kind: str
    video_id: str
    text: str
    #: What makes it the same one when it is found again: a place in the video with how far that is known, or a week.
    place: str
    second: int = 0
    reach: float = 0.0

    @property
    def key(self) -> str:
        """Kind, place and video in one text."""
        return json.dumps([self.kind, self.place, self.video_id])


def read(client: Client, today: date) -> list[Alert]:
    """Everything that is so now, new or not."""
    dropoffs = [dict(row) for row in client.query(_DROPOFFS).named_results()]
    weeks = client.query(_WEEKS, parameters={"today": today.isoformat()}).named_results()
    return [*dropoff_alerts(dropoffs), *completion_alerts([dict(row) for row in weeks], today)]


def dropoff_alerts(rows: Sequence[Row]) -> list[Alert]:
    """One of each high dropoff."""
    return [
        Alert(
            "dropoff",
            str(row["video_id"]),
            f"{_named(row)}: {row['views_lost']} of {row['at_risk']} views end at {position(row['start_second'])} to "
            f"{position(row['end_second'])}, {row['excess_points']:.1f} points of all views more than expected",
            str(row["start_second"]),
            int(row["start_second"]),
            max(SAME_SECONDS, SAME_PARTS * float(row["duration_s"] or 0)),
        )
        for row in rows
    ]


def completion_alerts(rows: Sequence[Row], today: date) -> list[Alert]:
    """One of each video that significantly fewer views finish than in the seven days before (two-proportion test)."""
    tested = [row for row in rows if min(int(row["views"]), int(row["views_before"])) >= MIN_VIEWS]
    p_values = [
        stats.two_proportions(
            int(row["finished_before"]), int(row["views_before"]), int(row["finished"]), int(row["views"])
        )
        for row in tested
    ]
    year, week, _ = (today - timedelta(days=1)).isocalendar()
    found = []
    for row, q in zip(tested, stats.adjusted(p_values), strict=True):
        before, now = (100 * int(row[f"finished{when}"]) / int(row[f"views{when}"]) for when in ("_before", ""))
        if q <= MAX_Q and before - now >= MIN_POINTS:
            text = (
                f"{_named(row)}: {now:.1f} % of {int(row['views'])} views came to the end in the last seven days, "
                f"{before:.1f} % of {int(row['views_before'])} in the seven before"
            )
            found.append(Alert("completion", str(row["video_id"]), text, f"{year}-W{week:02}"))
    return found


def _named(row: Row) -> str:
    """The title without any sign that a chat program would act upon."""
    text = plain(str(row["title"] or row["video_id"]), 80)
    harmless = re.sub(r"[^\w ,;()'!?-]|_", " ", text, flags=re.UNICODE)
    return f"“{' '.join(harmless.split())}”"


class Memory:
    """What was told, and when it was last so. Kept as JSON between two looks."""

    def __init__(self, text: str | None) -> None:
        self._seen: dict[str, str] = {}
        #: Whether nothing was ever looked at: what is there then is learnt, not told.
        self.is_empty = True
        try:
            value = json.loads(text or "")
            self._seen = {str(key): date.fromisoformat(day).isoformat() for key, day in value["seen"].items()}
            self.is_empty = False
        except (ValueError, TypeError, KeyError, AttributeError):
            # Never looked, or written by another version.
            pass

    def new(self, found: Iterable[Alert]) -> list[Alert]:
        """Those that were not so before."""
        return [alert for alert in found if not self._knows(alert)]

    def _knows(self, alert: Alert) -> bool:
        if alert.key in self._seen:
            return True
        if alert.kind != "dropoff":
            return False
        for key in self._seen:
            kind, place, video_id = json.loads(key)
            if (kind, video_id) == (alert.kind, alert.video_id) and abs(int(place) - alert.second) <= alert.reach:
                return True
        return False

    def after(self, found: Iterable[Alert], today: date) -> str:
        """The memory once these are known, as text."""
        kept = {key: day for key, day in self._seen.items() if date.fromisoformat(day) + FORGET >= today}
        kept |= {alert.key: today.isoformat() for alert in found}
        return json.dumps({"seen": kept}, sort_keys=True)


def message(alerts: Sequence[Alert]) -> dict[str, Any]:
    """What is posted: one text for chat programs, and the alerts for programs."""
    lines = [alert.text for alert in alerts[:MAX_TOLD]]
    if len(alerts) > MAX_TOLD:
        lines.append(f"and {len(alerts) - MAX_TOLD} more")
    listed = [{"kind": alert.kind, "video_id": alert.video_id, "text": alert.text} for alert in alerts]
    return {"text": "\n".join(lines), "alerts": listed}


def post(url: str, alerts: Sequence[Alert]) -> None:
    """Post alerts to a webhook. Raises ServiceError, without what may be secret in the address."""
    host = urlsplit(url).hostname or "the webhook"
    try:
        answer = httpx.post(url, json=message(alerts), timeout=POST_SECONDS)
    except (httpx.HTTPError, httpx.InvalidURL, ValueError):
        raise ServiceError(f"{host} does not take alerts: check ALERT_WEBHOOK_URL") from None
    if not answer.is_success:
        raise ServiceError(f"{host} refuses alerts with status {answer.status_code}: check ALERT_WEBHOOK_URL")
