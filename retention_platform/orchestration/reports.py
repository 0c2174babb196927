"""Reports as assets: one of every video each day, and a digest of all videos each week, in the state folder.

Owns when they are made and where they are put. What they say is `retention_platform.report`'s.
"""

# No `from __future__ import annotations`: Dagster looks at the annotations of decorated functions.

from datetime import date, datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING

import dagster as dg

from retention_platform.orchestration.failures import told_in_one_line
from retention_platform.orchestration.previews import table
from retention_platform.orchestration.resources import Warehouse
from retention_platform.orchestration.translator import OWNERS
from retention_platform.report import digest
from retention_platform.report.facts import facts_of
from retention_platform.report.files import file_name, write_all, write_script
from retention_platform.report.make import Format, written
from retention_platform.report.queries import Ask, Row, UnknownVideo, asking, marts_there, read, sections
from retention_platform.report.video import document

if TYPE_CHECKING:
    from retention_platform.report.model import Document

FOLDER = "reports"
#: Rows of the preview in Dagster's UI.
PREVIEWED = 20

_VIDEOS = """
select videos.video_id as video_id, views, average_view_percentage, completion_rate
from marts.videos as videos
left join marts.engagement_summary as summary on videos.video_id = summary.video_id
order by views desc, video_id
"""
_MARTS = [
    dg.AssetKey(["marts", mart])
    for mart in (
        "videos",
        "engagement_summary",
        "engagement_by_segment",
        "retention_curve",
        "dropoff_points",
        "key_moments",
        "data_quality",
    )
]


class Week(dg.Config):
    """Which week; in the launchpad."""

    day: str = ""


def write_reports(ask: Ask, folder: Path, made_at: datetime) -> tuple[list[Row], "Document | None"]:
    """Write every video's report and drop those of videos that are gone; the videos, most viewed first, and the first's
    report.
    """
    script = f"../{_ready(folder, 'videos')}"
    videos, first, names = list(ask(_VIDEOS, {})), None, set[str]()
    wanted = sections(marts_there(ask))
    for row in videos:
        video_id = str(row["video_id"])
        try:
            made = document(facts_of(read(ask, video_id, wanted), video_id), made_at)
        except UnknownVideo:
            # The marts were replaced since the list was read.
            continue
        first = first or made
        names.add(file_name(video_id))
        write_all(made, folder / "videos", file_name(video_id), script)
    for path in (folder / "videos").iterdir():
        if path.suffix in (".html", ".md", ".svg") and path.name.removesuffix(path.suffix) not in names:
            path.unlink()
    return videos, first


def write_digest(ask: Ask, folder: Path, monday: date, made_at: datetime) -> "Document":
    """Write the digest of the week that begins at ``monday``."""
    script = f"../{_ready(folder, 'digests')}"
    made = digest.document(digest.read(ask, monday), monday, made_at)
    write_all(made, folder / "digests", digest.week_name(monday), script)
    return made


def _ready(folder: Path, part: str) -> str:
    """Make the folders, and put plotly.js where both find it; its name."""
    (folder / part).mkdir(parents=True, exist_ok=True)
    return write_script(folder)


@dg.asset(
    key=["reports", "videos"],
    deps=_MARTS,
    group_name="reports",
    owners=OWNERS,
    kinds={"clickhouse", "markdown", "html"},
    description="A report of every video as Markdown, HTML and SVG, in reports/videos of the state folder.",
)
def video_reports(warehouse: Warehouse) -> dg.MaterializeResult:  # type: ignore[type-arg]
    """Write them all; previewed are the most viewed."""
    folder = warehouse.settings().retention_home / FOLDER
    with told_in_one_line(), warehouse.client() as client:
        videos, first = write_reports(asking(client), folder, datetime.now(timezone.utc))
    metadata: dict[str, dg.MetadataValue] = {
        "reports": dg.MetadataValue.int(len(videos)),
        "folder": dg.MetadataValue.path(folder / "videos"),
        "most viewed": table(videos[:PREVIEWED]),
    }
    if first is not None:
        metadata["report of the most viewed"] = dg.MetadataValue.md(written(first, Format.MARKDOWN))
    return dg.MaterializeResult(metadata=metadata)


@dg.asset(
    key=["reports", "weekly_digest"],
    deps=[
        dg.AssetKey(["marts", mart])
        for mart in ("videos", "sessions", "engagement_daily", "dropoff_points", "data_quality")
    ],
    group_name="reports",
    owners=OWNERS,
    kinds={"clickhouse", "markdown", "html"},
    description="All videos over one week, beside the week before, in reports/digests of the state folder.",
)
def weekly_digest(warehouse: Warehouse, config: Week) -> dg.MaterializeResult:  # type: ignore[type-arg]
    """Write the digest of the week of ``config.day``; without one, of the last week that is over."""
    folder, now = warehouse.settings().retention_home / FOLDER, datetime.now(timezone.utc)
    with told_in_one_line(), warehouse.client() as client:
        monday = digest.monday_of(digest.day_of(config.day)) if config.day else digest.last_week(now)
        made = write_digest(asking(client), folder, monday, now)
    return dg.MaterializeResult(
        metadata={
            "week": dg.MetadataValue.text(digest.week_name(monday)),
            "file": dg.MetadataValue.path(folder / "digests" / f"{digest.week_name(monday)}.html"),
            "digest": dg.MetadataValue.md(written(made, Format.MARKDOWN)),
        }
    )


reports = dg.define_asset_job(
    "reports",
    selection=dg.AssetSelection.assets(video_reports),
    description="Writes a report of every video.",
    executor_def=dg.in_process_executor,
)

digests = dg.define_asset_job(
    "digests",
    selection=dg.AssetSelection.assets(weekly_digest),
    description="Writes the digest of the last week.",
    executor_def=dg.in_process_executor,
)

# After the nightly reconciliation, and the digest in time for Monday morning.
daily_reports = dg.ScheduleDefinition(
    name="daily_reports",
    job=reports,
    cron_schedule="30 4 * * *",
    execution_timezone="UTC",
    default_status=dg.DefaultScheduleStatus.RUNNING,
)


@dg.schedule(
    job=digests,
    cron_schedule="0 5 * * 1",
    execution_timezone="UTC",
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="The digest of the week that ended on Sunday, once a week, however often the tick is evaluated.",
)
def weekly_digests(context: dg.ScheduleEvaluationContext) -> dg.RunRequest:
    """Name the week by when the tick was due, so that a late one makes the same digest."""
    monday = digest.last_week(context.scheduled_execution_time)
    config = dg.RunConfig(ops={weekly_digest.op.name: Week(day=monday.isoformat())})
    return dg.RunRequest(run_key=digest.week_name(monday), run_config=config)
