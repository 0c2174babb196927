"""marts.ai_insights: what was said about videos. Rows are added, never changed; the newest of a video counts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from pydantic import ValidationError

from retention_platform.errors import ServiceError
from retention_platform.insights.schema import Analysis, Facts, Insights, Usage
from retention_platform.report.words import utc

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client

TABLE = "marts.ai_insights"
#: The newest analysis of one video, for readers that ask by themselves.
NEWEST = f"select * from {TABLE} where video_id = {{video_id:String}} order by made_at desc limit 1"
_KEPT = f"""
select video_id, argMax((facts_hash, mode, model, prompt_version), made_at) as newest
from {TABLE}
group by video_id
"""
_COLUMNS = (
    "video_id",
    "made_at",
    "mode",
    "model",
    "prompt_version",
    "facts_version",
    "facts_hash",
    "grade",
    "headline",
    "note",
    "calls",
    "input_tokens",
    "output_tokens",
    "facts",
    "analysis",
)


class Kept(NamedTuple):
    """What the newest insights of a video were made from, and by whom."""

    facts_hash: str
    mode: str
    model: str
    prompt_version: str


def save(client: Client, made: Insights) -> None:
    """Add these insights."""
    client.insert(TABLE, [_row(made)], column_names=_COLUMNS)


def _row(made: Insights) -> list[Any]:
    return [
        made.video_id,
        made.made_at,
        made.mode,
        made.model,
        made.prompt_version,
        made.facts.facts_version,
        made.facts.hash,
        made.analysis.assessment.grade,
        made.analysis.headline,
        made.note,
        made.usage.calls,
        made.usage.input_tokens,
        made.usage.output_tokens,
        made.facts.model_dump_json(),
        made.analysis.model_dump_json(),
    ]


def kept(client: Client) -> dict[str, Kept]:
    """Of each video that has insights what the newest were made from."""
    return {str(video): Kept(*map(str, newest)) for video, newest in client.query(_KEPT).result_rows}


def insights_in(row: Mapping[str, Any]) -> Insights:
    """The insights of a row. Raises ServiceError when another version wrote what this one cannot read."""
    try:
        return Insights(
            video_id=str(row["video_id"]),
            made_at=utc(row["made_at"]),
            mode=row["mode"],
            model=str(row["model"]),
            prompt_version=str(row["prompt_version"]),
            note=str(row["note"]),
            usage=Usage(
                calls=int(row["calls"]),
                input_tokens=int(row["input_tokens"]),
                output_tokens=int(row["output_tokens"]),
            ),
            facts=Facts.model_validate_json(row["facts"]),
            analysis=Analysis.model_validate_json(row["analysis"]),
        )
    except ValidationError:
        raise ServiceError(
            "the stored insights of this video were made by another version: run `retention insights` for it again"
        ) from None
