"""The SQL of the overview: a page of the catalogue with the shape of each curve and what changed since last week."""

from __future__ import annotations

from retention_platform.api.models.overview import OverviewItem
from retention_platform.api.models.videos import VideoListItem
from retention_platform.api.queries import Order, Sort, Table, ordered, video_page

#: Points of a sparkline, from the first second to the last.
SPARKLINE_POINTS = 25

# The weeks are counted back from the newest day of the marts and not from today, so that an answer depends on the marts
# alone. That day is left out: it is not over yet.
_NEWEST_DAY = "(select toDate(max(last_event_at)) from marts.engagement_summary)"

_SHAPES = f"""
select
    video_id as shape_of,
    arraySort(groupArray((second, retention_rate))) as seconds,
    arrayMap(
        place -> seconds[1 + intDiv(place * (length(seconds) - 1), {SPARKLINE_POINTS - 1})].2, range({SPARKLINE_POINTS})
    ) as sparkline
from marts.retention_curve
where video_id in (select video_id from page)
group by video_id
"""

_WEEKS = f"""
select
    video_id as weeks_of,
    sumIf(views, is_last) as views_week,
    sumIf(views, not is_last) as views_week_before,
    sumIf(average_view_percentage * views, is_last) / nullIf(views_week, 0) as average_view_percentage_week,
    sumIf(average_view_percentage * views, not is_last)
        / nullIf(views_week_before, 0) as average_view_percentage_week_before
from (
    select video_id, views, average_view_percentage, day >= {_NEWEST_DAY} - 7 as is_last
    from marts.engagement_daily
    where day >= {_NEWEST_DAY} - 14 and day < {_NEWEST_DAY} and video_id in (select video_id from page)
)
group by video_id
"""

_ADDED = [name for name in OverviewItem.model_fields if name not in VideoListItem.model_fields]


def overview(search: str, sort: Sort, order: Order | None, limit: int, offset: int) -> Table:
    """A page of the videos as `queries.video_page` has it, with what the overview adds."""
    page = video_page(search, sort, order, limit, offset)
    sql = f"""
with page as ({page.sql})
select page.*, {", ".join(_ADDED)}
from page
left join ({_SHAPES}) as shapes on page.video_id = shape_of
left join ({_WEEKS}) as weeks on page.video_id = weeks_of
order by {ordered(sort, order)}
"""
    return Table(sql, page.parameters, "overview")
