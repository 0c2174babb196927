"""The application put together: routers, problems, and what lives as long as it does."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI
from fastapi_offline import FastAPIOffline

from retention_platform import __version__
from retention_platform.api import errors, middleware
from retention_platform.api.health import HealthCheck
from retention_platform.api.insights import FreshInsights
from retention_platform.api.kept import Kept
from retention_platform.api.known_videos import KnownVideos
from retention_platform.api.metrics import Metrics
from retention_platform.api.routers import audience, insights, overview, service, video, videos
from retention_platform.api.version import MartsVersion
from retention_platform.api.warehouse import Warehouse
from retention_platform.settings import Settings

#: Bytes of answers that are kept in memory.
ANSWERS_BYTES = 64 * 2**20


def create_app(settings: Settings) -> FastAPI:
    """The API over the warehouse that ``settings`` name. Starts while ClickHouse is away, and finds it later."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        warehouse = Warehouse(settings)
        app.state.warehouse = warehouse
        app.state.health = HealthCheck(settings, warehouse)
        version = MartsVersion(warehouse)
        app.state.version = version
        app.state.answers = Kept(ANSWERS_BYTES, len)
        app.state.videos = KnownVideos(warehouse, version)
        app.state.insights = FreshInsights(settings)
        try:
            yield
        finally:
            await warehouse.close()

    # The documentation page brings its own scripts: it works without the internet, and asks nobody for them.
    app = FastAPIOffline(
        title="Retention",
        version=__version__,
        summary="Video retention analytics: where people leave a video, right to the second.",
        description="Read-only. `null` means nothing to say, `0` a measured zero, and `reason` why something is empty.",
        lifespan=lifespan,
    )
    app.state.settings = settings
    app.state.metrics = Metrics()
    errors.install(app)
    middleware.install(app, settings, app.state.metrics)
    app.include_router(service.router)
    app.include_router(videos.router)
    app.include_router(overview.router)
    app.include_router(video.router)
    app.include_router(audience.router)
    app.include_router(insights.router)
    return app
