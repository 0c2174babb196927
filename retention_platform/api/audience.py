"""The SQL of who watches at the same time and who watches now, and of what is in no figure."""

from __future__ import annotations

from datetime import date
from typing import Any

from retention_platform.api.models.audience import QualityFigure
from retention_platform.api.queries import Table
from retention_platform.api.warehouse import Parameters, Warehouse

STEP_S = 10

_BATCH = "select at, concurrent_viewers from marts.%s where day = {day:Date}"
_LIVE = "select at, sum(viewers) as concurrent_viewers from live.concurrency where true %s group by at"
_OF_VIDEO = "and video_id = {video_id:String}"

# An instant at which nobody watches has no row; between the first and the last it is a measured zero.
_FILLED = "select at, concurrent_viewers from (%s) order by at with fill step 10"

# Nobody is watched long after the last event of any session; the bound spares reading the days before.
_NEWEST_DAY = """
select max(watched.day) as day, count() as found
from marts.concurrent_viewers as watched
where watched.day >= (select toDate(max(last_event_at)) - 1 from marts.engagement_summary where true %s) %s
"""

_FIGURES = "select max(concurrent_viewers) as peak, count() as instants, avg(concurrent_viewers) as average from (%s)"

_VIEWERS_NOW = """
select now.video_id as video_id, videos.title as title, now.viewers as viewers, now.last_event_at as last_event_at
from live.viewers_now as now
left join marts.videos as videos on now.video_id = videos.video_id
order by viewers desc, video_id
"""
_IN_ALL = "select now64(3, 'UTC') as at, (select sum(viewers) from live.viewers_now) as viewers"

_QUALITY = f"""
select {", ".join(QualityFigure.model_fields)}
from (
    select figure, field, reason, sum(data_quality.found) as found, sum(data_quality.out_of) as out_of
    from marts.data_quality
    where %s
    group by figure, field, reason
)
order by figure, found desc, field, reason
"""


class Concurrency:
    """How many watch at the same time: one video or all together, on a day or in the last hour (``day`` None)."""

    def __init__(self, video_id: str | None, day: date | None) -> None:
        one = _OF_VIDEO if video_id is not None else ""
        mart = "concurrent_viewers_total" if video_id is None else "concurrent_viewers"
        sql = _LIVE % one if day is None else f"{_BATCH % mart} {one}"
        self._sql = _FILLED % sql
        self._parameters: Parameters = {
            "video_id": video_id or "",
            "day": day or date(1970, 1, 1),
        }

    def instants(self) -> Table:
        """A row every 10 s from the first to the last instant at which anybody watches."""
        return Table(self._sql, self._parameters, "concurrent-viewers")

    async def figures(self, warehouse: Warehouse) -> dict[str, Any]:
        """The peak, the mean and how many of these rows."""
        return (await warehouse.rows(_FIGURES % self._sql, self._parameters))[0]


async def newest_day(warehouse: Warehouse, video_id: str | None) -> date | None:
    """The last UTC day on which anybody watched; None when nobody ever did."""
    one = _OF_VIDEO if video_id is not None else ""
    sql = _NEWEST_DAY % (one, one)
    row = (await warehouse.rows(sql, {"video_id": video_id or ""}))[0]
    return row["day"] if row["found"] else None


def viewers_now() -> Table:
    """The videos that are watched now, the most watched first."""
    return Table(_VIEWERS_NOW, {}, "viewers-now")


async def viewers_in_all(warehouse: Warehouse) -> dict[str, Any]:
    """How many watch anything now, and when that is."""
    return (await warehouse.rows(_IN_ALL))[0]


def quality(video_id: str | None) -> Table:
    """What is in no figure, or came twice or late: of a video, or of everything."""
    where = "video_id = {video_id:String}" if video_id is not None else "true"
    return Table(_QUALITY % where, {"video_id": video_id or ""}, "data-quality")
