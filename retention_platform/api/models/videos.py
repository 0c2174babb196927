"""The catalogue, and the figures of one video."""

from __future__ import annotations

from datetime import date

from pydantic import Field

from retention_platform.api.models.base import (
    Answer,
    Chosen,
    Count,
    OneVideo,
    Reason,
    Seconds,
    Share,
    Utc,
    VideoIdField,
)


class Chapter(Answer):
    """Where a chapter starts."""

    start_ms: Count = Field(description="ms of content", examples=[90_000])
    title: str = Field(description="untrusted text of whoever described the video", examples=["Joins"])


class VideoListItem(Answer):
    """One video with its headline figures."""

    video_id: VideoIdField
    title: str | None = Field(
        description="null when the catalogue does not know the video; untrusted text", examples=["SQL, from scratch"]
    )
    category: str | None = Field(description="as the catalogue says", examples=["tutorial"])
    published_at: Utc | None = Field(description="as the catalogue says")
    duration_s: Seconds | None = Field(description="seconds of content; null when nobody told", examples=[754.0])
    duration_source: str = Field(
        description="catalogue, reported (by players), inferred (from the furthest position) or unknown",
        examples=["catalogue"],
    )
    views: Count = Field(description="sessions with at least one valid played interval", examples=[1_820])
    unique_viewers: Count = Field(description="distinct viewers of the views", examples=[1_411])
    watch_time_s: Seconds = Field(description="seconds of wall time", examples=[512_340.5])
    average_view_percentage: float | None = Field(
        ge=0, le=100, description="percent of the video's length seen by the average view", examples=[46.1]
    )
    completion_rate: Share | None = Field(description="share of views", examples=[0.31])
    is_sufficient: bool = Field(description="whether there are at least 30 views")
    last_event_at: Utc | None = Field(description="of any session of the video")


class VideoTotals(Answer):
    """All videos that match together; viewers are not, since one viewer may watch several."""

    videos: Count = Field(description="that match", examples=[12])
    views: Count = Field(description="of all that match", examples=[18_204])
    watch_time_s: Seconds = Field(description="of all that match, seconds of wall time", examples=[3_512_340.5])


class VideoListHead(Answer):
    """What a list of videos is of."""

    total: Count = Field(description="videos that match, on all pages", examples=[12])
    totals: VideoTotals = Field(description="over all pages")
    limit: int = Field(description="videos on a page", examples=[100])
    offset: Count = Field(description="videos before this page", examples=[0])


class VideoList(VideoListHead):
    """A page of the videos, in the order asked for."""

    videos: list[VideoListItem] = Field(description="in the order asked for")


class Engagement(Answer):
    """How some views watched."""

    unique_viewers: Count = Field(description="distinct viewers of the views", examples=[1_411])
    engaged_views: Count = Field(description="views with at least 3 s of content watched", examples=[1_702])
    watch_time_s: Seconds = Field(description="seconds of wall time, rewatches counted", examples=[512_340.5])
    content_played_s: Seconds = Field(description="seconds of content, rewatches counted", examples=[540_112.0])
    content_watched_s: Seconds = Field(description="seconds of content, each once a view", examples=[498_020.2])
    average_view_duration_s: Seconds | None = Field(description="watch_time_s / views", examples=[281.5])
    average_view_percentage: float | None = Field(
        ge=0, le=100, description="percent of the video's length seen by the average view", examples=[46.1]
    )
    completion_rate: Share | None = Field(description="share of views that came to the end", examples=[0.31])
    hook_retention_3s: Share | None = Field(description="retention_rate at 3 s", examples=[0.93])
    intro_retention_30s: Share | None = Field(description="retention_rate at 30 s", examples=[0.71])
    rewatch_rate: Share | None = Field(description="share of views that played an instant twice", examples=[0.18])
    seeks_per_view: float | None = Field(ge=0, description="seek events / views", examples=[1.4])
    peak_concurrent_viewers: Count = Field(description="most sessions at once, sampled every 10 s", examples=[37])


class EngagementSummary(OneVideo, Engagement):
    """The engagement figures of one video, or of some of its views."""

    chosen: Chosen = Field(description="which views they are of")
    reason: Reason | None = Field(description="why the ratios are null; null when there are views")
    category: str | None = Field(description="as the catalogue says", examples=["tutorial"])
    published_at: Utc | None = Field(description="as the catalogue says")
    duration_source: str = Field(description="catalogue, reported, inferred or unknown", examples=["catalogue"])
    chapters: list[Chapter] = Field(description="in the order of the video")
    first_event_at: Utc | None = Field(description="of any session of the video")
    last_event_at: Utc | None = Field(description="of any session of the video")
    sessions: Count | None = Field(
        description="sessions of any kind, views or not; this and the next two are null for some of the views",
        examples=[1_845],
    )
    implausible_sessions: Count | None = Field(description="left out: played faster than any player can", examples=[0])
    invalid_intervals: Count | None = Field(description="intervals left out: impossible for this video", examples=[2])
    computed_at: Utc | None = Field(description="when these figures were computed")


class Day(Engagement):
    """How the views of one day watched."""

    day: date = Field(description="UTC day of a view's first event", examples=["2026-03-14"])
    views: Count = Field(description="views of the day", examples=[120])
    is_sufficient: bool = Field(description="whether there are at least 30 views")


class DaysHead(OneVideo):
    """What the days are of."""

    reason: Reason | None = Field(description="why there are no days; null when there are")


class EngagementDaily(DaysHead):
    """A video day by day; a day without sessions has no row."""

    days: list[Day] = Field(description="in their order")


class Segment(Engagement):
    """How the views of one segment watched."""

    dimension: str = Field(
        description="what splits the views: device_type, country, traffic_source, viewer_type", examples=["device_type"]
    )
    value: str = Field(description="the segment; empty where the player did not say", examples=["mobile"])
    views: Count = Field(description="the segment's views", examples=[412])
    share_of_views: Share = Field(description="of the video's views; adds up to 1 in a dimension", examples=[0.226])
    is_sufficient: bool = Field(description="whether there are at least 30 views")


class SegmentsHead(OneVideo):
    """What the segments are of."""

    reason: Reason | None = Field(description="why there are no segments; null when there are")


class EngagementBySegment(SegmentsHead):
    """The segments of a video's views, each dimension by itself."""

    segments: list[Segment] = Field(description="by dimension, the most viewed first")
