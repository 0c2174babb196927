"""What a report reads, and how: SQL over the marts, one query a section. Values travel as server-side parameters.

Who reads may be asynchronous or not, so this module opens no connection: `read` is given a function that asks
(`asking` makes one of a client), and `sections` is for readers that ask by themselves. A mart that is not there leaves
its section out of the report.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from retention_platform.errors import RetentionError, ServiceError
from retention_platform.insights.store import NEWEST
from retention_platform.report.reasons import SIMILAR_LENGTH_PERCENT

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client

Row = dict[str, Any]
#: The rows of each section by its name; a section whose mart is not there is missing.
Rows = Mapping[str, Sequence[Row]]
#: Gives the rows of a query whose ``{name:Type}`` places are filled from the mapping.
Ask = Callable[[str, Mapping[str, str]], Sequence[Row]]

TABLES = "select name from system.tables where database = 'marts'"

# What the catalogue's other videos have: those of similar length (as relative_retention_performance compares), and all.
# Videos with few views are left out, since their shares are chance.
_TYPICAL = f"""
with
    (select any(duration_ms) from marts.videos where video_id = {{video_id:String}}) as own_ms,

    others as (
        select
            summary.* except (video_id),
            ifNull(abs(videos.duration_ms - own_ms) * 100 <= own_ms * {SIMILAR_LENGTH_PERCENT}, false) as is_similar
        from marts.engagement_summary as summary
        inner join marts.videos as videos on summary.video_id = videos.video_id
        where summary.video_id != {{video_id:String}} and summary.is_sufficient
    )

select
    peers,
    count() as videos,
    quantileExactInclusive(0.5)(views) as views,
    quantileExactInclusive(0.5)(average_view_duration_s) as average_view_duration_s,
    quantileExactInclusive(0.5)(average_view_percentage) as average_view_percentage,
    quantileExactInclusive(0.5)(completion_rate) as completion_rate,
    quantileExactInclusive(0.5)(hook_retention_3s) as hook_retention_3s,
    quantileExactInclusive(0.5)(intro_retention_30s) as intro_retention_30s,
    quantileExactInclusive(0.5)(rewatch_rate) as rewatch_rate,
    quantileExactInclusive(0.5)(seeks_per_view) as seeks_per_view
from others
array join if(is_similar, ['similar', 'all'], ['all']) as peers
group by peers
"""

_OF_VIDEO = "where video_id = {video_id:String}"


@dataclass(frozen=True)
class Section:
    """A query about one video, the marts it needs, and whether there is no report without them."""

    sql: str
    marts: frozenset[str]
    required: bool = False


def _section(mart: str, order_by: str, *, required: bool = False) -> Section:
    # All columns: what is new in a mart is there for the report without being asked for by name.
    return Section(f"select * from marts.{mart} {_OF_VIDEO} order by {order_by}", frozenset({mart}), required)


SECTIONS: Mapping[str, Section] = {
    "video": _section("videos", "video_id", required=True),
    "summary": _section("engagement_summary", "video_id", required=True),
    "curve": _section("retention_curve", "second", required=True),
    "dropoffs": _section("dropoff_points", "start_second", required=True),
    "typical": Section(_TYPICAL, frozenset({"videos", "engagement_summary"}), required=True),
    "moments": _section("key_moments", "start_second, kind"),
    "segments": _section("engagement_by_segment", "dimension, views desc, value"),
    "quality": Section(
        f"select figure, sum(found) as found, sum(out_of) as out_of from marts.data_quality {_OF_VIDEO} "
        "group by figure order by figure",
        frozenset({"data_quality"}),
    ),
    "insights": Section(NEWEST, frozenset({"ai_insights"})),
}


def sections(marts: Iterable[str]) -> dict[str, str]:
    """The queries about a video that these marts can answer, by section; each has the parameter ``video_id``.

    Raises ServiceError when there is no report without a mart that is missing.
    """
    there = frozenset(marts)
    require(there, *(mart for section in SECTIONS.values() if section.required for mart in section.marts))
    return {name: section.sql for name, section in SECTIONS.items() if section.marts <= there}


def asking(client: Client) -> Ask:
    """A function that asks this client. Texts go as bytes, so that the driver escapes every one of them."""

    def ask(sql: str, parameters: Mapping[str, str]) -> Sequence[Row]:
        values = {name: value.encode(errors="surrogateescape") for name, value in parameters.items()}
        return [dict(row) for row in client.query(sql, parameters=values).named_results()]

    return ask


def require(there: Iterable[str], *marts: str) -> None:
    """Raise ServiceError, in one line, when a mart is not there."""
    missing = sorted({*marts} - {*there})
    if missing:
        raise ServiceError(
            f"the marts are not built, marts.{missing[0]} is missing: run `retention refresh`, or wait for Dagster"
        )


def marts_there(ask: Ask) -> frozenset[str]:
    """The marts that are built."""
    return frozenset(str(row["name"]) for row in ask(TABLES, {}))


def read(ask: Ask, video_id: str, wanted: Mapping[str, str] | None = None) -> Rows:
    """The rows of every section about a video; `UnknownVideo` when there is no such video.

    Who reads many videos looks once which sections there are, and gives them as ``wanted``.
    """
    found: dict[str, Sequence[Row]] = {}
    for name, sql in (wanted or sections(marts_there(ask))).items():
        found[name] = ask(sql, {"video_id": video_id})
        if name == "video" and not found[name]:
            raise UnknownVideo(video_id)
    return found


class UnknownVideo(RetentionError):
    """No video of this id was described or played."""

    def __init__(self, video_id: str) -> None:
        super().__init__(
            f"no video {video_id[:256]!r} was described or played: "
            'see `retention sql "select video_id, title from marts.videos"`'
        )
