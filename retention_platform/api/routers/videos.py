"""The videos and what is known of each."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

from fastapi import APIRouter, Query, Response

from retention_platform.api import queries, reasons
from retention_platform.api.dependencies import TheWarehouse, VideoId
from retention_platform.api.errors import responses, unknown_video
from retention_platform.api.models import (
    CurveHead,
    DropoffsHead,
    EngagementSummary,
    RetentionCurve,
    SignificantDropoffs,
    VideoList,
    VideoListHead,
    VideoTotals,
)
from retention_platform.api.queries import Order, Sort
from retention_platform.api.tables import ALSO, TheTables

_UNCHANGED = {"description": "The marts are those of the ETag in If-None-Match"}

router = APIRouter(tags=["videos"])

#: ClickHouse reads an offset of 32 bits; no catalogue is longer.
MAX_OFFSET = 2**32 - 1
MAX_SEARCH = 200


@router.get(
    "/videos",
    summary="All videos with their headline figures",
    response_model=VideoList,
    responses={200: {"content": ALSO}, 304: _UNCHANGED, **responses(422, 503)},
)
async def videos(
    tables: TheTables,
    warehouse: TheWarehouse,
    search: Annotated[
        str, Query(max_length=MAX_SEARCH, description="part of a title or an id, in capitals or not")
    ] = "",
    sort: Annotated[Sort, Query(description="what they are in the order of")] = "views",
    order: Annotated[
        Order | None, Query(description="without it: titles from A to Z, figures from the greatest down")
    ] = None,
    limit: Annotated[int, Query(ge=1, le=1000, description="videos on a page")] = 100,
    offset: Annotated[int, Query(ge=0, le=MAX_OFFSET, description="videos before the page")] = 0,
) -> Response:
    """The most viewed first. Described videos that nobody watched are listed with 0 views."""

    async def head() -> VideoListHead:
        totals = VideoTotals.model_validate(await queries.video_totals(warehouse, search))
        return VideoListHead(total=totals.videos, totals=totals, limit=limit, offset=offset)

    return await tables.answer(queries.video_page(search, sort, order, limit, offset), "videos", head)


@router.get(
    "/video/{video_id:video_id}/retention_curve",
    summary="Who is still watching, second by second",
    response_model=RetentionCurve,
    responses={200: {"content": ALSO}, 304: _UNCHANGED, **responses(404, 422, 503)},
)
async def retention_curve(tables: TheTables, warehouse: TheWarehouse, video_id: VideoId) -> Response:
    """A point for every second of the video. A video without views has no points, and a reason."""

    async def head() -> CurveHead:
        video, views = await asyncio.gather(
            queries.video(warehouse, video_id), queries.curve_views(warehouse, video_id)
        )
        known = {**_known(video, video_id), "views": views}
        return CurveHead.model_validate({**known, "reason": reasons.without_views(views)})

    return await tables.answer(queries.curve(video_id), "points", head)


@router.get(
    "/video/{video_id:video_id}/significant_dropoffs",
    summary="Where significantly more people leave than around it",
    response_model=SignificantDropoffs,
    responses={200: {"content": ALSO}, 304: _UNCHANGED, **responses(404, 422, 503)},
)
async def significant_dropoffs(tables: TheTables, warehouse: TheWarehouse, video_id: VideoId) -> Response:
    """The significant dropoffs in the order of the video; when there are none, the reason."""

    async def head() -> DropoffsHead:
        video, found = await asyncio.gather(
            queries.video(warehouse, video_id), queries.dropoff_count(warehouse, video_id)
        )
        known = _known(video, video_id)
        reason = None if found else reasons.without_dropoffs(known["views"], known["duration_s"])
        return DropoffsHead.model_validate({**known, "reason": reason})

    return await tables.answer(queries.dropoffs(video_id), "dropoffs", head)


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
