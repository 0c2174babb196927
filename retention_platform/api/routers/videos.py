"""The catalogue, and several of its videos beside each other."""

from __future__ import annotations

from functools import partial
from typing import Annotated

from fastapi import APIRouter, Query, Response

from retention_platform.api import curves, queries
from retention_platform.api.answers import UNCHANGED
from retention_platform.api.dependencies import TheWarehouse
from retention_platform.api.errors import responses, unknown_video
from retention_platform.api.models.curves import Compared, Comparison, ComparisonHead
from retention_platform.api.models.videos import VideoList, VideoListHead, VideoTotals
from retention_platform.api.queries import Order, Sort
from retention_platform.api.tables import ALSO, Row, TheTables
from retention_platform.contract import MAX_ID_LENGTH
from retention_platform.report.reasons import SUFFICIENT_VIEWS

router = APIRouter(tags=["videos"])

#: ClickHouse reads an offset of 32 bits; no catalogue is longer.
MAX_OFFSET = 2**32 - 1
MAX_SEARCH = 200
MAX_COMPARED = 20


@router.get(
    "/videos",
    summary="All videos with their headline figures",
    response_model=VideoList,
    responses={200: {"content": ALSO}, 304: UNCHANGED, **responses(422, 503)},
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

    head = partial(list_head, limit, offset)
    page = queries.video_page(search, sort, order, limit, offset)
    return await tables.answer(page, "videos", partial(queries.video_totals, warehouse, search), head)


def list_head(limit: int, offset: int, found: Row, _first: Row | None) -> VideoListHead:
    """What a page of videos begins with: how many there are in all."""
    totals = VideoTotals.model_validate(found)
    return VideoListHead(total=totals.videos, totals=totals, limit=limit, offset=offset)


@router.get(
    "/compare",
    summary="The curves of several videos on one axis",
    response_model=Comparison,
    responses={200: {"content": ALSO}, 304: UNCHANGED, **responses(404, 422, 503)},
)
async def compare(
    tables: TheTables,
    warehouse: TheWarehouse,
    video_id: Annotated[
        list[Annotated[str, Query(max_length=MAX_ID_LENGTH)]],
        Query(min_length=1, max_length=MAX_COMPARED, description="give it several times"),
    ],
    points: Annotated[int, Query(ge=2, le=1001, description="points of each curve, from 0 % to 100 %")] = 101,
) -> Response:
    """Each curve at the same parts of its length, so that videos of different length lie on one another."""
    ids = list(dict.fromkeys(video_id))

    async def known() -> dict[str, Row]:
        found = await curves.compared(warehouse, ids)
        for one in ids:
            if one not in found:
                raise unknown_video(one)
        return found

    def head(found: dict[str, Row], _first: Row | None) -> ComparisonHead:
        told = [
            Compared.model_validate({**found[one], "is_sufficient": found[one]["views"] >= SUFFICIENT_VIEWS})
            for one in ids
        ]
        return ComparisonHead(videos=told)

    return await tables.answer(curves.comparison(ids, points), "points", known, head)
