"""The videos and what is known of each."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

from fastapi import APIRouter, Query

from retention_platform.api import queries, reasons
from retention_platform.api.dependencies import TheWarehouse, VideoId
from retention_platform.api.errors import responses, unknown_video
from retention_platform.api.models import (
    EngagementSummary,
    RetentionCurve,
    SignificantDropoffs,
    VideoList,
)

router = APIRouter(tags=["videos"])

#: ClickHouse reads an offset of 32 bits; no catalogue is longer.
MAX_OFFSET = 2**32 - 1


@router.get("/videos", summary="All videos with their headline figures", responses=responses(422, 503))
async def videos(
    warehouse: TheWarehouse,
    limit: Annotated[int, Query(ge=1, le=1000, description="videos on a page")] = 100,
    offset: Annotated[int, Query(ge=0, le=MAX_OFFSET, description="videos before the page")] = 0,
) -> VideoList:
    """The most viewed first. Described videos that nobody watched are listed with 0 views."""
    total, page = await asyncio.gather(queries.video_count(warehouse), queries.video_page(warehouse, limit, offset))
    return VideoList.model_validate({"total": total, "limit": limit, "offset": offset, "videos": page})


@router.get(
    "/video/{video_id:video_id}/retention_curve",
    summary="Who is still watching, second by second",
    responses=responses(404, 422, 503),
)
async def retention_curve(warehouse: TheWarehouse, video_id: VideoId) -> RetentionCurve:
    """A point for every second of the video. A video without views has no points, and a reason."""
    video, rows = await asyncio.gather(queries.video(warehouse, video_id), queries.curve(warehouse, video_id))
    known = _known(video, video_id)
    if rows:
        # The marts are replaced one by one: the curve's own V is the one its ratios are of.
        known["views"] = rows[0]["views"]
    reason = None if rows else reasons.without_views(0)
    return RetentionCurve.model_validate({**known, "reason": reason, "points": rows})


@router.get(
    "/video/{video_id:video_id}/significant_dropoffs",
    summary="Where significantly more people leave than around it",
    responses=responses(404, 422, 503),
)
async def significant_dropoffs(warehouse: TheWarehouse, video_id: VideoId) -> SignificantDropoffs:
    """The significant dropoffs in the order of the video; when there are none, the reason."""
    video, rows = await asyncio.gather(queries.video(warehouse, video_id), queries.dropoffs(warehouse, video_id))
    known = _known(video, video_id)
    reason = None if rows else reasons.without_dropoffs(known["views"], known["duration_s"])
    return SignificantDropoffs.model_validate({**known, "reason": reason, "dropoffs": rows})


@router.get(
    "/video/{video_id:video_id}/engagement_summary",
    summary="The engagement figures of one video",
    responses=responses(404, 422, 503),
)
async def engagement_summary(warehouse: TheWarehouse, video_id: VideoId) -> EngagementSummary:
    """All figures of one video. Without views the ratios are null, and the reason says so."""
    known = _known(await queries.video(warehouse, video_id), video_id)
    return EngagementSummary.model_validate({**known, "reason": reasons.without_views(known["views"])})


def _known(video: dict[str, Any] | None, video_id: str) -> dict[str, Any]:
    if video is None:
        raise unknown_video(video_id)
    return video
