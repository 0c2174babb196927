"""What is known of one video."""

from __future__ import annotations

import asyncio
from datetime import datetime, timezone
from functools import partial
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Response

from retention_platform.api import curves, queries
from retention_platform.api.answers import UNCHANGED, TheAnswers
from retention_platform.api.choice import CALL, Choice, TheChoice
from retention_platform.api.curves import Curve
from retention_platform.api.dependencies import TheVideos, TheWarehouse, VideoId
from retention_platform.api.errors import bad_parameter, responses, unknown_video
from retention_platform.api.known_videos import KnownVideos
from retention_platform.api.models.base import Reason
from retention_platform.api.models.curves import (
    CurveHead,
    Dimension,
    LiveCurveHead,
    LiveRetentionCurve,
    RetentionCurve,
    SegmentCurves,
    SegmentCurvesHead,
)
from retention_platform.api.models.moments import DropoffsHead, KeyMoments, MomentsHead, SignificantDropoffs
from retention_platform.api.models.videos import (
    DaysHead,
    Engagement,
    EngagementBySegment,
    EngagementDaily,
    EngagementSummary,
    SegmentsHead,
)
from retention_platform.api.tables import ALSO, Row, TheTables
from retention_platform.api.warehouse import MartsMissing, Warehouse
from retention_platform.errors import ServiceError
from retention_platform.report import make, reasons
from retention_platform.report import queries as report_queries

router = APIRouter(tags=["one video"], prefix="/video/{video_id:video_id}")

_TABLE: dict[int | str, Any] = {200: {"content": ALSO}, 304: UNCHANGED, **responses(404, 422, 503)}
_CHOSEN_FIGURES = f"select * from marts.engagement_of{CALL}"


@router.get(
    "/retention_curve",
    summary="Who is still watching, second by second",
    response_model=RetentionCurve | LiveRetentionCurve,
    responses=_TABLE,
)
async def retention_curve(
    tables: TheTables,
    videos: TheVideos,
    video_id: VideoId,
    choice: TheChoice,
    points: Annotated[
        int | None,
        Query(ge=2, le=100_000, description="at most so many seconds, evenly spread, each with its own figures"),
    ] = None,
    source: Annotated[
        Literal["batch", "live"],
        Query(description="batch: the marts; live: the stream's last hour, which knows no days and no segments"),
    ] = "batch",
) -> Response:
    """A point for every second of the video, or as many as asked for; without views no points, and a reason."""
    live = source == "live"
    if live and not choice.is_all:
        raise bad_parameter("query.source", "Input should be 'batch' for some days or segments")
    curve = Curve(video_id, choice, live=live)

    def head(video: Row, first: Row | None) -> CurveHead | LiveCurveHead:
        # The marts are replaced one after the other: the curve's own V is the one its ratios are of.
        views = 0 if first is None else int(first["views"])
        if live:
            return LiveCurveHead.model_validate({**_of_views(video, views), "reason": _nobody(views)})
        reason = _without_views(video["views"], views)
        return CurveHead.model_validate({**_of_views(video, views), "chosen": choice.described(), "reason": reason})

    return await tables.answer(curve.points(points), "points", partial(_known, videos, video_id), head, live=live)


@router.get(
    "/retention_curve_by_segment",
    summary="Who is still watching, device by device, country by country",
    response_model=SegmentCurves,
    responses=_TABLE,
)
async def retention_curve_by_segment(
    tables: TheTables,
    videos: TheVideos,
    video_id: VideoId,
    dimension: Annotated[Dimension, Query(description="what splits the views")],
) -> Response:
    """A curve for each segment that has views; shares are of the segment's own views."""
    table = curves.by_segment(video_id, dimension)

    def head(video: Row, first: Row | None) -> SegmentCurvesHead:
        told = {**video, "dimension": dimension, "reason": _without_rows(first)}
        return SegmentCurvesHead.model_validate(told)

    return await tables.answer(table, "points", partial(_known, videos, video_id), head)


@router.get(
    "/significant_dropoffs",
    summary="Where significantly more people leave than around it",
    response_model=SignificantDropoffs,
    responses=_TABLE,
)
async def significant_dropoffs(tables: TheTables, videos: TheVideos, video_id: VideoId) -> Response:
    """The significant dropoffs in the order of the video; when there are none, the reason."""
    table = queries.of_video(queries.DROPOFFS, video_id, "dropoffs")

    def head(video: Row, first: Row | None) -> DropoffsHead:
        reason = None if first else reasons.without_dropoffs(video["views"], video["duration_s"])
        return DropoffsHead.model_validate({**video, "reason": _told(reason)})

    return await tables.answer(table, "dropoffs", partial(_known, videos, video_id), head)


@router.get(
    "/key_moments",
    summary="Intro, outro, and what is rewatched, skipped or held",
    response_model=KeyMoments,
    responses=_TABLE,
)
async def key_moments(tables: TheTables, videos: TheVideos, video_id: VideoId) -> Response:
    """The key moments in the order of the video; when there are none, the reason."""
    table = queries.of_video(queries.MOMENTS, video_id, "key-moments")

    def head(video: Row, first: Row | None) -> MomentsHead:
        reason = None if first else reasons.without_moments(video["views"])
        return MomentsHead.model_validate({**video, "reason": _told(reason)})

    return await tables.answer(table, "moments", partial(_known, videos, video_id), head)


@router.get(
    "/engagement_summary",
    summary="The engagement figures",
    response_model=EngagementSummary,
    responses={304: UNCHANGED, **responses(404, 422, 503)},
)
async def engagement_summary(
    answers: TheAnswers, warehouse: TheWarehouse, videos: TheVideos, video_id: VideoId, choice: TheChoice
) -> Response:
    """All figures of one video, or of some days and segments. Without views ratios are null, and the reason says so."""

    async def made() -> EngagementSummary:
        video = await _known(videos, video_id)
        of_all = int(video["views"])
        if not choice.is_all:
            video = {**video, **await _chosen_figures(warehouse, video_id, choice)}
        reason = _without_views(of_all, video["views"])
        return EngagementSummary.model_validate({**video, "chosen": choice.described(), "reason": reason})

    return await answers.model(made)


@router.get(
    "/engagement_daily",
    summary="The engagement figures day by day",
    response_model=EngagementDaily,
    responses=_TABLE,
)
async def engagement_daily(tables: TheTables, videos: TheVideos, video_id: VideoId) -> Response:
    """A row a UTC day with sessions."""
    table = queries.of_video(queries.DAYS, video_id, "engagement-daily")

    def head(video: Row, first: Row | None) -> DaysHead:
        return DaysHead.model_validate({**video, "reason": _without_rows(first)})

    return await tables.answer(table, "days", partial(_known, videos, video_id), head)


@router.get(
    "/engagement_by_segment",
    summary="The engagement figures by device, country, source and kind of viewer",
    response_model=EngagementBySegment,
    responses=_TABLE,
)
async def engagement_by_segment(tables: TheTables, videos: TheVideos, video_id: VideoId) -> Response:
    """A row a segment with views; each dimension splits the same views."""
    table = queries.of_video(queries.SEGMENTS, video_id, "segments")

    def head(video: Row, first: Row | None) -> SegmentsHead:
        return SegmentsHead.model_validate({**video, "reason": _without_rows(first)})

    return await tables.answer(table, "segments", partial(_known, videos, video_id), head)


@router.get(
    "/report",
    summary="All of it as a document",
    response_class=Response,
    responses={
        200: {"content": {kind: {"schema": {"type": "string"}} for kind in make.MEDIA_TYPES.values()}},
        **responses(404, 422, 503),
    },
)
async def report(
    warehouse: TheWarehouse,
    video_id: VideoId,
    format: Annotated[
        make.Format, Query(description="md, html (one file that works offline) or svg (the picture alone)")
    ] = make.Format.MARKDOWN,
) -> Response:
    """Headline figures with what is typical, the curve, dropoffs and moments in words, segments, quality, method."""
    there = [row["name"] for row in await warehouse.rows(report_queries.TABLES)]
    try:
        wanted = report_queries.sections(there)
    except ServiceError as error:
        raise MartsMissing(str(error)) from None
    # Asked for by its id alone: the other queries give nothing for a video that is not there.
    found = await asyncio.gather(*(warehouse.rows(sql, {"video_id": video_id}) for sql in wanted.values()))
    rows = dict(zip(wanted, found, strict=True))
    if not rows["video"]:
        raise unknown_video(video_id)
    made_at = datetime.now(timezone.utc)
    text = make.report_for(rows, video_id, format, made_at=made_at, picture="report?format=svg")
    return Response(text, media_type=make.MEDIA_TYPES[format], headers={"Cache-Control": "no-cache"})


async def _known(videos: KnownVideos, video_id: str) -> Row:
    """What every answer about a video begins with; 404 when there is no such video."""
    video = await videos(video_id)
    return {**video, "sufficiency": reasons.sufficiency(int(video["views"]))}


async def _chosen_figures(warehouse: Warehouse, video_id: str, choice: Choice) -> dict[str, Any]:
    """The figures of some of a video's views, in place of those of all; what only all can tell is null."""
    found = await warehouse.rows(_CHOSEN_FIGURES, choice.parameters(video_id))
    nothing = {name: 0 if field.annotation is int else None for name, field in Engagement.model_fields.items()}
    zeros = {"watch_time_s": 0, "content_played_s": 0, "content_watched_s": 0, "first_event_at": None}
    figures = found[0] if found else {**nothing, **zeros, "last_event_at": None, "views": 0}
    of_all = {"sessions": None, "implausible_sessions": None, "invalid_intervals": None}
    return {**figures, **of_all, **_of_views({}, int(figures["views"]))}


def _of_views(video: dict[str, Any], views: int) -> dict[str, Any]:
    """A video as so many of its views show it."""
    sufficient = views >= reasons.SUFFICIENT_VIEWS
    return {**video, "views": views, "is_sufficient": sufficient, "sufficiency": reasons.sufficiency(views)}


def _without_views(of_all: int, views: int) -> Reason | None:
    """Why there are no figures: of the whole video, or of those of its views that were chosen."""
    if views == 0 and of_all > 0:
        return Reason(code="nobody", text=f"none of the video's {of_all} views is of these days and segments")
    return _told(reasons.without_views(views))


def _without_rows(first: Row | None) -> Reason | None:
    return _told(reasons.without_views(0)) if first is None else None


def _nobody(views: int) -> Reason | None:
    text = "nobody reported playing this video in the last hour"
    return Reason(code="nobody", text=text) if views == 0 else None


def _told(reason: reasons.Reason | None) -> Reason | None:
    return None if reason is None else Reason.model_validate(reason._asdict())
