"""What is said about one video: the insights that are kept, or fresh ones. Nothing is stored here."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request, Response

from retention_platform.api.dependencies import TheVideos, TheWarehouse, VideoId
from retention_platform.api.errors import responses, unknown_video
from retention_platform.api.insights import FreshInsights
from retention_platform.api.models.insights import VideoInsights, WithoutInsights
from retention_platform.errors import ServiceError
from retention_platform.insights.schema import Insights
from retention_platform.insights.store import NEWEST, insights_in
from retention_platform.report.queries import UnknownVideo

router = APIRouter(tags=["one video"], prefix="/video/{video_id:video_id}")


def _fresh(request: Request) -> FreshInsights:
    fresh: FreshInsights = request.app.state.insights
    return fresh


@router.get(
    "/insights",
    summary="What happens, where and why people leave, what to change",
    responses=responses(404, 422, 503),
)
async def insights(
    response: Response,
    warehouse: TheWarehouse,
    videos: TheVideos,
    video_id: VideoId,
    make: Annotated[FreshInsights, Depends(_fresh)],
    fresh: Annotated[
        bool, Query(description="made of the marts of now instead of the newest that are kept; may take a minute")
    ] = False,
) -> VideoInsights:
    """The newest insights that are kept, or fresh ones, which are kept nowhere."""
    response.headers["Cache-Control"] = "no-store" if fresh else "no-cache"
    if fresh:
        try:
            return _answer(await make(warehouse, video_id))
        except UnknownVideo:
            raise unknown_video(video_id) from None
    await videos(video_id)
    rows = await warehouse.rows(NEWEST, {"video_id": video_id})
    if not rows:
        why = WithoutInsights(code="not_made", text="none were made of this video yet: Dagster makes them once an hour")
        return VideoInsights(video_id=video_id, reason=why, insights=None)
    try:
        return _answer(insights_in(rows[0]))
    except ServiceError as error:
        why = WithoutInsights(code="other_version", text=str(error))
        return VideoInsights(video_id=video_id, reason=why, insights=None)


def _answer(made: Insights) -> VideoInsights:
    return VideoInsights(video_id=made.video_id, reason=None, insights=made)
