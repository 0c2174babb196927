"""What Dagster's UI shows of a mart beside its row count: its first rows, and a chart where a chart says more.

Owns the choice of rows and chart. The chart is drawn in signs of plain text: the UI drops images that are not on some
web server.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date, datetime
from typing import TYPE_CHECKING, Any

import dagster as dg

from retention_platform.report.drawing import bars_chart, text_chart
from retention_platform.report.model import Bars, Curve
from retention_platform.report.untrusted import markdown, plain

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client

#: Rows of a preview, and characters of a value in it: a preview is kept with every materialization.
ROWS, CHARACTERS = 10, 80

# From what every mart is built of: other marts of the same run may not be there yet.
_MOST_VIEWED = """
    select video_id from staging.int_views where is_view group by video_id order by count() desc, video_id limit 1
"""
#: Mart to the query of its preview; a mart that is not here has none.
PREVIEWS: Mapping[str, str] = {
    "videos": f"select video_id, title, category, duration_s, duration_source from marts.videos limit {ROWS}",
    "engagement_summary": "select video_id, views, unique_viewers, watch_time_s, average_view_percentage, "
    f"completion_rate from marts.engagement_summary order by views desc, video_id limit {ROWS}",
    "retention_curve": "select second, watching_views, retention_rate, audience_watch_ratio, exit_hazard "
    f"from marts.retention_curve where video_id = ({_MOST_VIEWED}) order by second",
    "retention_curve_by_segment": "select dimension, value, second, views, retention_rate "
    f"from marts.retention_curve_by_segment where video_id = ({_MOST_VIEWED}) and second = 0 "
    f"order by dimension, views desc limit {ROWS}",
    "dropoff_points": "select video_id, start_second, end_second, severity, excess_points, q_value "
    f"from marts.dropoff_points order by excess_points desc, video_id, start_second limit {ROWS}",
    "key_moments": "select video_id, kind, start_second, end_second, magnitude, confidence, views_lost "
    f"from marts.key_moments order by video_id, start_second limit {ROWS}",
    "engagement_daily": "select day, sum(views) as views, sum(watch_time_s) as watch_time_s "
    "from marts.engagement_daily group by day order by day desc limit 28",
    "engagement_by_segment": "select dimension, value, views, share_of_views, completion_rate "
    f"from marts.engagement_by_segment where video_id = ({_MOST_VIEWED}) order by dimension, views desc limit {ROWS}",
}


def preview(client: Client, mart: str) -> dict[str, dg.MetadataValue]:
    """The metadata of a mart's preview; empty for marts without one."""
    sql = PREVIEWS.get(mart)
    if sql is None:
        return {}
    rows = [dict(row) for row in client.query(sql).named_results()]
    found: dict[str, dg.MetadataValue] = {"preview": table(rows[:ROWS])}
    chart = _chart(client, mart, rows)
    if chart:
        found["chart"] = dg.MetadataValue.md(chart)
    return found


def _chart(client: Client, mart: str, rows: Sequence[Mapping[str, Any]]) -> str:
    if not rows:
        return ""
    if mart == "retention_curve":
        video = client.query(_MOST_VIEWED).result_rows[0][0]
        curve = Curve([dict(row) for row in rows], len(rows))
        return f"Retention rate of {markdown(str(video))}, the most viewed\n\n```text\n{text_chart(curve)}\n```"
    if mart == "engagement_daily":
        days = list(reversed(rows))
        bars = Bars([str(row["day"]) for row in days], [int(row["views"]) for row in days], "Views a day")
        return f"{bars.name}\n\n```text\n{bars_chart(bars)}\n```"
    return ""


def table(rows: Sequence[Mapping[str, Any]]) -> dg.TableMetadataValue:
    """Rows as a table of Dagster's: values it cannot hold as text, texts harmless and short."""
    records = [dg.TableRecord({name: _value(value) for name, value in row.items()}) for row in rows]
    # A table without rows has no columns to tell; its schema cannot be left to be guessed.
    names = list(rows[0]) if rows else []
    schema = dg.TableSchema(columns=[dg.TableColumn(name, _type(rows, name)) for name in names])
    return dg.TableMetadataValue(records=records, schema=schema)


def _value(value: Any) -> str | int | float | bool | None:
    if isinstance(value, float):
        # Six digits are enough to look at; more make a table wider than the page.
        return float(f"{value:.6g}")
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, datetime | date):
        return value.isoformat()
    return plain(str(value), CHARACTERS)


def _type(rows: Sequence[Mapping[str, Any]], name: str) -> str:
    kinds = {type(_value(row[name])) for row in rows} - {type(None)}
    if kinds == {int}:
        return "int"
    if kinds in ({float}, {int, float}):
        return "float"
    return "bool" if kinds == {bool} else "string"
