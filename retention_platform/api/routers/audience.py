"""Who watches at the same time, who watches now, and what of the stream is in no figure."""

from __future__ import annotations

from datetime import date
from functools import partial
from typing import Annotated, Literal

from fastapi import APIRouter, Query, Response

from retention_platform.api import audience
from retention_platform.api.answers import UNCHANGED
from retention_platform.api.dependencies import TheVideos, TheWarehouse
from retention_platform.api.errors import bad_parameter, responses
from retention_platform.api.known_videos import KnownVideos
from retention_platform.api.models.audience import (
    ConcurrencyHead,
    ConcurrentViewers,
    DataQuality,
    QualityHead,
    ViewersNow,
    ViewersNowHead,
)
from retention_platform.api.models.base import Reason
from retention_platform.api.tables import ALSO, Row, TheTables
from retention_platform.contract import MAX_ID_LENGTH

router = APIRouter(tags=["audience"])

_OneVideo = Annotated[
    str | None, Query(max_length=MAX_ID_LENGTH, description="of this video; without it of all together")
]


@router.get(
    "/concurrent_viewers",
    summary="How many watch at the same time",
    response_model=ConcurrentViewers,
    responses={200: {"content": ALSO}, 304: UNCHANGED, **responses(404, 422, 503)},
)
async def concurrent_viewers(
    tables: TheTables,
    warehouse: TheWarehouse,
    videos: TheVideos,
    video_id: _OneVideo = None,
    day: Annotated[
        date | None, Query(ge=date(1970, 1, 1), le=date(2149, 6, 6), description="UTC; without it the newest watched")
    ] = None,
    source: Annotated[
        Literal["batch", "live"], Query(description="batch: a day of the marts; live: the last hour of the stream")
    ] = "batch",
) -> Response:
    """Every 10 s from the first to the last instant at which anybody watches."""
    live = source == "live"
    if live and day is not None:
        raise bad_parameter("query.day", "Input should be left out for the live source, which is of the last hour")
    await _check(videos, video_id)
    watched = None if live else day or await audience.newest_day(warehouse, video_id)
    concurrency = audience.Concurrency(video_id, None if live else watched or date(1970, 1, 1))

    def head(figures: Row, _first: Row | None) -> ConcurrencyHead:
        return ConcurrencyHead(
            video_id=video_id,
            source=source,
            day=watched,
            step_s=audience.STEP_S,
            peak=figures["peak"],
            average=figures["average"] if figures["instants"] else None,
            reason=None if figures["instants"] else _nobody(live),
        )

    known = partial(concurrency.figures, warehouse)
    return await tables.answer(concurrency.instants(), "instants", known, head, live=live)


@router.get(
    "/viewers_now",
    summary="Who watches now",
    response_model=ViewersNow,
    responses={200: {"content": ALSO}, **responses(422, 503)},
)
async def viewers_now(tables: TheTables, warehouse: TheWarehouse) -> Response:
    """Sessions heard of in the last 30 s whose last word was not that they stopped, video by video."""

    def head(in_all: Row, _first: Row | None) -> ViewersNowHead:
        return ViewersNowHead.model_validate(in_all)

    known = partial(audience.viewers_in_all, warehouse)
    return await tables.answer(audience.viewers_now(), "videos", known, head, live=True)


@router.get(
    "/data_quality",
    summary="What of the stream is in no figure, and why",
    response_model=DataQuality,
    responses={200: {"content": ALSO}, **responses(404, 422, 503)},
)
async def data_quality(tables: TheTables, videos: TheVideos, video_id: _OneVideo = None) -> Response:
    """Implausible sessions, invalid intervals, late and repeated messages; rejected messages by field and reason."""

    def head(_known: None, _first: Row | None) -> QualityHead:
        return QualityHead(video_id=video_id)

    # Rejects are as new as the stream, so what is told of them is never kept.
    known = partial(_check, videos, video_id)
    return await tables.answer(audience.quality(video_id), "figures", known, head, live=True)


async def _check(videos: KnownVideos, video_id: str | None) -> None:
    if video_id is not None:
        await videos(video_id)


def _nobody(live: bool) -> Reason:
    return Reason(code="nobody", text=f"nobody watched {'in the last hour' if live else 'on this day'}")
