"""The service itself: what it is, and whether it can be used."""

from __future__ import annotations

from fastapi import APIRouter, Response

from retention_platform import __version__
from retention_platform.api import queries
from retention_platform.api.dependencies import TheHealthCheck, TheMetrics, TheWarehouse
from retention_platform.api.metrics import CONTENT_TYPE_LATEST
from retention_platform.api.models.service import Health, Index

router = APIRouter(tags=["service"])


@router.get("/", summary="What this is")
async def index() -> Index:
    """Name, version and the paths there are."""
    return Index(
        name="retention",
        version=__version__,
        description="Video retention analytics: where people leave a video, right to the second. Read-only.",
        links={
            "documentation": "/docs",
            "openapi": "/openapi.json",
            "health": "/health",
            "videos": "/videos",
            "overview": "/overview",
            "retention_curve": "/video/{video_id}/retention_curve",
            "retention_curve_by_segment": "/video/{video_id}/retention_curve_by_segment?dimension=device_type",
            "significant_dropoffs": "/video/{video_id}/significant_dropoffs",
            "key_moments": "/video/{video_id}/key_moments",
            "engagement_summary": "/video/{video_id}/engagement_summary",
            "engagement_daily": "/video/{video_id}/engagement_daily",
            "engagement_by_segment": "/video/{video_id}/engagement_by_segment",
            "insights": "/video/{video_id}/insights",
            "report": "/video/{video_id}/report",
            "typical": "/video/{video_id}/typical",
            "compare": "/compare?video_id={video_id}",
            "concurrent_viewers": "/concurrent_viewers",
            "viewers_now": "/viewers_now",
            "data_quality": "/data_quality",
            "runs": "/runs",
            "metrics": "/metrics",
        },
    )


@router.get(
    "/health",
    summary="Whether it can be used, and how fresh the figures are",
    responses={503: {"model": Health, "description": "ClickHouse is away"}},
)
async def health(check: TheHealthCheck, response: Response) -> Health:
    """Each dependency and the freshness; 200 while the API can be used, 503 when ClickHouse is away."""
    found = await check()
    response.status_code = 503 if found.status == "unavailable" else 200
    response.headers["Cache-Control"] = "no-store"
    return found


@router.get(
    "/metrics",
    summary="Figures for Prometheus",
    response_class=Response,
    responses={200: {"content": {CONTENT_TYPE_LATEST: {"schema": {"type": "string"}}}}},
)
async def metrics(figures: TheMetrics, check: TheHealthCheck, warehouse: TheWarehouse) -> Response:
    """Requests and their duration, what is up, freshness, ingest lag, rejects; 200 also when parts are down."""
    rejected = await queries.rejected_messages(warehouse)
    return Response(figures.render(await check(), rejected), media_type=CONTENT_TYPE_LATEST)
