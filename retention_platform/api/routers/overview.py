"""The catalogue at a glance, what is typical for a video's length, and what ran."""

from __future__ import annotations

from functools import partial
from typing import Annotated

from fastapi import APIRouter, Query, Response
from starlette.concurrency import run_in_threadpool

from retention_platform.api import overview as at_a_glance
from retention_platform.api import queries
from retention_platform.api.answers import UNCHANGED, TheAnswers
from retention_platform.api.dependencies import TheSettings, TheVideos, TheWarehouse, VideoId
from retention_platform.api.errors import responses
from retention_platform.api.models.overview import Overview, Runs, Typical
from retention_platform.api.queries import Order, Sort
from retention_platform.api.routers.videos import MAX_OFFSET, MAX_SEARCH, list_head
from retention_platform.api.runs import newest_runs
from retention_platform.api.tables import ALSO, TheTables
from retention_platform.report.facts import typical_of
from retention_platform.report.queries import SECTIONS

router = APIRouter()


@router.get(
    "/overview",
    tags=["videos"],
    summary="The catalogue at a glance: figures, shapes of the curves, changes since last week",
    response_model=Overview,
    responses={200: {"content": ALSO}, 304: UNCHANGED, **responses(422, 503)},
)
async def overview(
    tables: TheTables,
    warehouse: TheWarehouse,
    search: Annotated[
        str, Query(max_length=MAX_SEARCH, description="part of a title or an id, in capitals or not")
    ] = "",
    sort: Annotated[Sort, Query(description="what they are in the order of")] = "views",
    order: Annotated[
        Order | None, Query(description="without it: titles from A to Z, figures from the greatest down")
    ] = None,
    limit: Annotated[int, Query(ge=1, le=100, description="videos on a page")] = 25,
    offset: Annotated[int, Query(ge=0, le=MAX_OFFSET, description="videos before the page")] = 0,
) -> Response:
    """As /videos, with 25 points of each curve and the last 7 whole days beside the 7 before them."""

    head = partial(list_head, limit, offset)
    page = at_a_glance.overview(search, sort, order, limit, offset)
    return await tables.answer(page, "videos", partial(queries.video_totals, warehouse, search), head)


@router.get(
    "/video/{video_id:video_id}/typical",
    tags=["one video"],
    summary="What is typical for videos of this length",
    response_model=Typical,
    responses={304: UNCHANGED, **responses(404, 422, 503)},
)
async def typical(answers: TheAnswers, warehouse: TheWarehouse, videos: TheVideos, video_id: VideoId) -> Response:
    """Medians of other videos of similar length, or of all when there are too few of these."""

    async def made() -> Typical:
        await videos(video_id)
        found = typical_of(await warehouse.rows(SECTIONS["typical"].sql, {"video_id": video_id}))
        known = dict.fromkeys(Typical.model_fields) | {"video_id": video_id, "videos": 0}
        if found is not None:
            peers = "similar" if found.of_similar_length else "all"
            known |= {**found.medians, "peers": peers, "videos": found.videos}
        return Typical.model_validate(known)

    return await answers.model(made)


@router.get("/runs", tags=["service"], summary="The newest runs of Dagster", responses=responses(422))
async def runs(
    settings: TheSettings,
    response: Response,
    limit: Annotated[int, Query(ge=1, le=100, description="runs at most")] = 10,
) -> Runs:
    """What refreshed the marts and when, the newest first; why none are listed when Dagster is away."""
    response.headers["Cache-Control"] = "no-store"
    return await run_in_threadpool(newest_runs, settings, limit)
