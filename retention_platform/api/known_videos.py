"""What is known of each video: asked for once a version of the marts, since every answer about one begins with it."""

from __future__ import annotations

from functools import partial
from typing import Any

from retention_platform.api.errors import unknown_video
from retention_platform.api.kept import Kept
from retention_platform.api.queries import ONE_VIDEO
from retention_platform.api.version import MartsVersion
from retention_platform.api.warehouse import Warehouse

#: Videos that are kept, those that were asked for and are not there among them.
MAX_VIDEOS = 20_000


class KnownVideos:
    """Description and summary of single videos. One per application; belongs to one event loop."""

    def __init__(self, warehouse: Warehouse, version: MartsVersion) -> None:
        self._warehouse = warehouse
        self._version = version
        self._kept: Kept[dict[str, Any] | None] = Kept(MAX_VIDEOS, lambda _: 1)

    async def __call__(self, video_id: str) -> dict[str, Any]:
        """The video's row of `queries.ONE_VIDEO`; 404 when there is no such video. Raises as `Warehouse.rows` does."""
        video = await self._kept(await self._version(), video_id, partial(self._ask, video_id))
        if video is None:
            raise unknown_video(video_id)
        return video

    async def _ask(self, video_id: str) -> dict[str, Any] | None:
        found = await self._warehouse.rows(ONE_VIDEO, {"video_id": video_id})
        return found[0] if found else None
