"""What handlers are given: what the application holds, and the id in the path."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Path, Request
from starlette.convertors import Convertor, register_url_convertor

from retention_platform.api.health import HealthCheck
from retention_platform.api.kept import Kept
from retention_platform.api.known_videos import KnownVideos
from retention_platform.api.metrics import Metrics
from retention_platform.api.version import MartsVersion
from retention_platform.api.warehouse import Warehouse
from retention_platform.contract import MAX_ID_LENGTH
from retention_platform.settings import Settings


class _VideoIdConvertor(Convertor[str]):
    """Any text: ids may hold slashes and line ends, which arrive here already percent-decoded."""

    regex = r"[\s\S]+"

    def convert(self, value: str) -> str:
        return value

    def to_string(self, value: str) -> str:
        return value


register_url_convertor("video_id", _VideoIdConvertor())


def _warehouse(request: Request) -> Warehouse:
    warehouse: Warehouse = request.app.state.warehouse
    return warehouse


def _health(request: Request) -> HealthCheck:
    check: HealthCheck = request.app.state.health
    return check


def _version(request: Request) -> MartsVersion:
    version: MartsVersion = request.app.state.version
    return version


def _kept(request: Request) -> Kept[bytes]:
    answers: Kept[bytes] = request.app.state.answers
    return answers


def _videos(request: Request) -> KnownVideos:
    videos: KnownVideos = request.app.state.videos
    return videos


def _metrics(request: Request) -> Metrics:
    metrics: Metrics = request.app.state.metrics
    return metrics


def _settings(request: Request) -> Settings:
    settings: Settings = request.app.state.settings
    return settings


TheSettings = Annotated[Settings, Depends(_settings)]
TheWarehouse = Annotated[Warehouse, Depends(_warehouse)]
TheHealthCheck = Annotated[HealthCheck, Depends(_health)]
TheVersion = Annotated[MartsVersion, Depends(_version)]
TheKeptAnswers = Annotated[Kept[bytes], Depends(_kept)]
TheVideos = Annotated[KnownVideos, Depends(_videos)]
TheMetrics = Annotated[Metrics, Depends(_metrics)]
VideoId = Annotated[
    str,
    Path(
        max_length=MAX_ID_LENGTH,
        description="the video's id, percent-encoded (a slash is %2F)",
        examples=["intro-to-sql"],
    ),
]
