"""The SQL of curves: of one video whole or of some of its views, of the last hour, of several videos on one axis."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from retention_platform.api.choice import CALL, Choice
from retention_platform.api.models.curves import (
    ComparedPoint,
    CurvePoint,
    Dimension,
    LivePoint,
    RankedPoint,
    SegmentPoint,
)
from retention_platform.api.queries import Table
from retention_platform.api.warehouse import Parameters, Warehouse

_OF_VIDEO = "where video_id = {video_id:String}"
_FIGURES = ", ".join(CurvePoint.model_fields)

CURVE = f"select {', '.join(RankedPoint.model_fields)} from marts.retention_curve {_OF_VIDEO}"
_CHOSEN = f"""
select {_FIGURES}, cast(null, 'Nullable(Float64)') as relative_retention_performance
from marts.retention_curve_of{CALL}
"""
_LIVE = f"""
select second, views, watching_views, watching_views / views as retention_rate
from live.retention_curve
{_OF_VIDEO}
"""

# Of seconds 0 to L the N that lie nearest to 0, L / (N - 1), 2 L / (N - 1) ... L; halves are rounded up. A second is
# one of them when it is the nearest to the place of that number that is nearest to it.
_THINNED = """
select * except (last_second, place)
from (
    select
        *,
        max(second) over () as last_second,
        intDiv(2 * second * ({points:UInt32} - 1) + last_second, greatest(2 * last_second, 1)) as place
    from (%s)
)
where
    last_second < {points:UInt32}
    or second = intDiv(2 * place * last_second + {points:UInt32} - 1, 2 * ({points:UInt32} - 1))
"""

BY_SEGMENT = f"""
select {", ".join(SegmentPoint.model_fields)}
from marts.retention_curve_by_segment
{_OF_VIDEO} and dimension = {{dimension:String}}
order by value, second
"""

COMPARISON = f"""
with
    curves as (select * from marts.retention_curve where video_id in {{video_ids:Array(String)}}),
    lengths as (select video_id, max(second) + 1 as seconds from curves group by video_id),
    grid as (
        select
            video_id,
            arrayJoin(range({{points:UInt32}})) as place,
            100 * place / ({{points:UInt32}} - 1) as percent,
            toUInt32(least(intDiv(place * seconds, {{points:UInt32}} - 1), seconds - 1)) as second
        from lengths
    )
select {", ".join(ComparedPoint.model_fields)}
from grid
inner join curves using (video_id, second)
order by indexOf({{video_ids:Array(String)}}, video_id), percent
"""

# The marts are replaced one after the other: the curves' own V is the one their ratios are of.
COMPARED = """
select
    videos.video_id as video_id,
    videos.title as title,
    videos.duration_s as duration_s,
    ifNull(curves.views, 0) as views
from marts.videos as videos
left join (
    select video_id, any(retention_curve.views) as views
    from marts.retention_curve
    where video_id in {video_ids:Array(String)}
    group by video_id
) as curves on videos.video_id = curves.video_id
where videos.video_id in {video_ids:Array(String)}
"""


class Curve:
    """The curve of one video's views, of all or of some, or of the sessions of the last hour."""

    def __init__(self, video_id: str, choice: Choice, *, live: bool) -> None:
        self._video_id = video_id
        self._sql = _LIVE if live else CURVE if choice.is_all else _CHOSEN
        self._parameters: Parameters = choice.parameters(video_id)
        self._columns = LivePoint if live else RankedPoint

    def points(self, points: int | None) -> Table:
        """A row a second, or ``points`` of them evenly spread from the first to the last; none without views."""
        sql, parameters = self._sql, self._parameters
        if points is not None:
            columns = ", ".join(self._columns.model_fields)
            sql, parameters = f"select {columns} from ({_THINNED % sql})", {**parameters, "points": points}
        sql = f"{sql} order by second"
        return Table(sql, parameters, f"{self._video_id}-retention-curve")


def by_segment(video_id: str, dimension: Dimension) -> Table:
    """A curve for each segment of a dimension that has views, one after the other."""
    return Table(BY_SEGMENT, {"video_id": video_id, "dimension": dimension}, f"{video_id}-curves-by-{dimension}")


def comparison(video_ids: Sequence[str], points: int) -> Table:
    """The curves of these videos at ``points`` parts of their length, in the order of the ids."""
    return Table(COMPARISON, {"video_ids": video_ids, "points": points}, "comparison")


async def compared(warehouse: Warehouse, video_ids: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Title, seconds and views of those of these videos that there are."""
    found = await warehouse.rows(COMPARED, {"video_ids": video_ids})
    return {str(row["video_id"]): row for row in found}
