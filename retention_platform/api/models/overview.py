"""What a dashboard shows beside the figures: shapes, changes, what is typical, what ran."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from retention_platform.api.models.base import Answer, Count, Reason, Share, Utc, VideoIdField
from retention_platform.api.models.videos import VideoListHead, VideoListItem


class OverviewItem(VideoListItem):
    """One video with its headline figures, the shape of its curve and the change since last week."""

    sparkline: list[Share] = Field(
        description="retention_rate at 25 seconds evenly spread from the first to the last; empty without views",
        examples=[[1.0, 0.8, 0.7]],
    )
    views_week: Count = Field(description="views of the last 7 whole days of the marts (UTC)", examples=[240])
    views_week_before: Count = Field(description="views of the 7 days before these", examples=[212])
    average_view_percentage_week: float | None = Field(
        ge=0, le=100, description="of the views of the last 7 whole days", examples=[47.3]
    )
    average_view_percentage_week_before: float | None = Field(
        ge=0, le=100, description="of the views of the 7 days before these", examples=[45.8]
    )


class Overview(VideoListHead):
    """A page of the videos, in the order asked for."""

    videos: list[OverviewItem] = Field(description="in the order asked for")


class Typical(Answer):
    """The medians of other videos with at least 30 views: of similar length where there are enough, else of all."""

    video_id: VideoIdField
    peers: Literal["similar", "all"] | None = Field(
        description="similar: their length differs by at most 25 %; null when fewer than 5 videos can be compared with"
    )
    videos: Count = Field(description="how many the medians are of", examples=[11])
    views: float | None = Field(description="median", examples=[1_204.5])
    average_view_duration_s: float | None = Field(description="median, seconds", examples=[241.3])
    average_view_percentage: float | None = Field(description="median, percent", examples=[44.0])
    completion_rate: Share | None = Field(description="median", examples=[0.29])
    hook_retention_3s: Share | None = Field(description="median", examples=[0.94])
    intro_retention_30s: Share | None = Field(description="median", examples=[0.7])
    rewatch_rate: Share | None = Field(description="median", examples=[0.16])
    seeks_per_view: float | None = Field(description="median", examples=[1.3])


class Run(Answer):
    """One run of Dagster."""

    run_id: str = Field(description="Dagster's id of it", examples=["7b1c1f0e-8d1a-4a53-9a65-0b8d8c4c5d6e"])
    job: str = Field(description="what ran", examples=["marts"])
    status: str = Field(description="as Dagster says: QUEUED, STARTED, SUCCESS, FAILURE, ...", examples=["SUCCESS"])
    created_at: Utc = Field(description="when it was asked for")
    started_at: Utc | None = Field(description="null while it waits")
    ended_at: Utc | None = Field(description="null while it runs")


class Runs(Answer):
    """The newest runs of Dagster, which refreshes the marts."""

    dagster_url: str = Field(description="where Dagster's pages are", examples=["http://127.0.0.1:3000"])
    reason: Reason | None = Field(description="why no runs are listed; null when there are some")
    runs: list[Run] = Field(description="the newest first")
