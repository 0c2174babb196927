"""Who is still watching: of one video, of its segments, of several beside each other."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from retention_platform.api.models.base import Answer, Chosen, Count, OneVideo, Reason, Seconds, Share, VideoIdField

#: What views can be split by (METRICS 9).
Dimension = Literal["device_type", "country", "traffic_source", "viewer_type"]


class CurvePoint(Answer):
    """One second of the curve: the instant ``second`` of content."""

    second: Count = Field(description="seconds of content", examples=[30])
    views: Count = Field(description="the curve's views, which the ratios are of", examples=[1_820])
    watching_views: Count = Field(description="views that played this instant", examples=[1_301])
    segment_plays: Count = Field(description="times it was played, rewatches counted", examples=[1_377])
    retention_rate: Share = Field(description="watching_views / views", examples=[0.7148])
    audience_watch_ratio: float = Field(
        ge=0, description="segment_plays / views, above 1 where people rewatch", examples=[0.7566]
    )
    reach_ratio: Share = Field(description="share of views whose furthest position is beyond", examples=[0.7302])
    rewatch_ratio: float | None = Field(description="segment_plays / watching_views - 1", examples=[0.0584])
    skip_rate: Share | None = Field(description="1 - watching / reached", examples=[0.0211])
    started_watching: Count = Field(description="views that began in this second", examples=[3])
    stopped_watching: Count = Field(description="views that ended in this second", examples=[9])
    at_risk: Count = Field(description="views that had come and not yet gone", examples=[1_340])
    exit_hazard: Share | None = Field(description="stopped_watching / at_risk", examples=[0.0067])
    ci_low: Share = Field(description="lower bound of retention_rate, Wilson 95 %", examples=[0.6936])
    ci_high: Share = Field(description="upper bound of retention_rate, Wilson 95 %", examples=[0.7351])


class RankedPoint(CurvePoint):
    """One second of the curve of all views of a video, with its place among others."""

    relative_retention_performance: Share | None = Field(
        description="place among videos of similar length, 0.5 is the median; null where fewer than 10 are similar, "
        "and for some of the views",
        examples=[0.62],
    )


class CurveHead(OneVideo):
    """What a curve is of."""

    source: Literal["batch"] = Field("batch", description="the marts, as of their last refresh")
    chosen: Chosen = Field(description="which views it is of")
    reason: Reason | None = Field(description="why there are no points; null when there are")


class RetentionCurve(CurveHead):
    """The curve: a point for every second from 0 to the end, also where nobody watched; no points without views."""

    points: list[RankedPoint] = Field(description="one per second without gaps, or as many as asked for")


class LivePoint(Answer):
    """One second of the live curve."""

    second: Count = Field(description="seconds of content", examples=[30])
    views: Count = Field(description="sessions that reported playing in the last hour", examples=[19])
    watching_views: Count = Field(description="of these sessions, those that played it", examples=[14])
    retention_rate: Share = Field(description="watching_views / views", examples=[0.7368])


class LiveCurveHead(Answer):
    """What a live curve is of."""

    video_id: VideoIdField
    title: str | None = Field(description="null when the catalogue does not know the video; untrusted text")
    duration_s: Seconds | None = Field(description="seconds of content; null when nobody told", examples=[754.0])
    views: Count = Field(description="sessions that reported playing in the last hour", examples=[19])
    is_sufficient: bool = Field(description="whether there are at least 30 of them")
    source: Literal["live"] = Field("live", description="the stream's last hour, before any refresh")
    reason: Reason | None = Field(description="why there are no points; null when there are")


class LiveRetentionCurve(LiveCurveHead):
    """Of the sessions of the last hour, how many played each second in it; up to the furthest second played."""

    points: list[LivePoint] = Field(description="one per second without gaps, or as many as asked for")


class SegmentPoint(CurvePoint):
    """One second of the curve of one segment."""

    value: str = Field(description="the segment; empty where the player did not say", examples=["mobile"])


class SegmentCurvesHead(OneVideo):
    """What the curves of segments are of."""

    dimension: Dimension = Field(description="what splits the views", examples=["device_type"])
    reason: Reason | None = Field(description="why there are no points; null when there are")


class SegmentCurves(SegmentCurvesHead):
    """A curve for each segment that has views, one after the other in the order of their names."""

    points: list[SegmentPoint] = Field(description="by segment, then one per second without gaps")


class Compared(Answer):
    """One of the videos that are compared."""

    video_id: VideoIdField
    title: str | None = Field(description="null when the catalogue does not know the video; untrusted text")
    duration_s: Seconds | None = Field(description="seconds of content; null when nobody told", examples=[754.0])
    views: Count = Field(description="the V that its ratios are of", examples=[1_820])
    is_sufficient: bool = Field(description="whether there are at least 30 views")


class ComparedPoint(Answer):
    """One video at one part of its length."""

    video_id: VideoIdField
    percent: float = Field(ge=0, le=100, description="of the video's length", examples=[25.0])
    second: Count = Field(description="the second of content that this is; the last one at 100", examples=[188])
    watching_views: Count = Field(description="views that played this instant", examples=[1_101])
    retention_rate: Share = Field(description="watching_views / views", examples=[0.605])
    audience_watch_ratio: float = Field(ge=0, description="segment_plays / views", examples=[0.66])
    ci_low: Share = Field(description="lower bound of retention_rate, Wilson 95 %", examples=[0.582])
    ci_high: Share = Field(description="upper bound of retention_rate, Wilson 95 %", examples=[0.627])


class ComparisonHead(Answer):
    """What is compared."""

    videos: list[Compared] = Field(description="in the order asked for")


class Comparison(ComparisonHead):
    """The curves of several videos on one axis, the part of their length; no points of a video without views."""

    points: list[ComparedPoint] = Field(description="video by video in the order asked for, then by percent")
