"""What the API answers: one model a path, with units and examples. Field names are the columns of docs/metrics.md.

``null`` means that there is nothing to say (no views, or a video too short for the figure); ``0`` is a measured zero.
Where something is missing as a whole, ``reason`` says why.
"""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field


def _as_utc(value: object) -> object:
    """The driver gives UTC without saying so."""
    return value.replace(tzinfo=timezone.utc) if isinstance(value, datetime) and value.tzinfo is None else value


Utc = Annotated[datetime, BeforeValidator(_as_utc)]
Share = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=0)]
Seconds = Annotated[float, Field(ge=0)]
VideoIdField = Annotated[str, Field(description="id of the video, as players report it", examples=["intro-to-sql"])]


class _Answer(BaseModel):
    model_config = ConfigDict(frozen=True)


class ProblemDetails(BaseModel):
    """A failure as RFC 9457 describes it. Problems of parameters carry ``errors`` as well."""

    model_config = ConfigDict(extra="allow")

    type: str = Field(description="the kind of problem, for programs", examples=["urn:retention:problem:unknown-video"])
    title: str = Field(description="the kind of problem, for people", examples=["No such video"])
    status: int = Field(description="the HTTP status", examples=[404])
    detail: str = Field(description="what is wrong this time, and what to do")
    instance: str = Field(description="the path asked for", examples=["/video/nope/retention_curve"])


class Reason(_Answer):
    """Why an answer is empty though the request was right."""

    code: Literal["no_views", "too_few_views", "video_too_short", "none_significant"] = Field(
        description="for programs", examples=["too_few_views"]
    )
    text: str = Field(description="for people", examples=["12 views: dropoffs are tested from 100 views on"])


class Index(_Answer):
    """What this service is and where to go from here."""

    name: str = Field(description="of this software", examples=["retention"])
    version: str = Field(description="of this software", examples=["0.1.0"])
    description: str = Field(description="what it is for")
    links: dict[str, str] = Field(description="paths, with {video_id} to be filled in and percent-encoded")


class Dependency(_Answer):
    """One part that the answers depend on."""

    status: Literal["up", "down", "unknown"] = Field(description="unknown: no address is configured, so nobody asked")
    required: bool = Field(description="whether the API is of no use without it")
    detail: str = Field(description="what it said, or what is wrong and what to do")


class Dependencies(_Answer):
    """Every part the answers depend on."""

    clickhouse: Dependency = Field(description="where everything is stored")
    marts: Dependency = Field(description="the tables that the answers come from")
    kafka: Dependency = Field(description="the broker that events come through")
    dagster: Dependency = Field(description="what refreshes the marts")


class Freshness(_Answer):
    """How old the figures are. All null while nothing was ingested or the marts were never built."""

    newest_ingested_at: Utc | None = Field(description="when the newest raw event was stored")
    marts_computed_at: Utc | None = Field(description="when the marts were last computed")
    marts_newest_ingested_at: Utc | None = Field(description="when the newest event that the marts contain was stored")
    marts_lag_s: Seconds | None = Field(
        description="seconds of stored events the marts do not contain yet: newest_ingested_at - "
        "marts_newest_ingested_at; 0 when they contain all",
        examples=[4.2],
    )
    ingest_lag_messages: Count | None = Field(
        description="messages in the topics not stored yet; null when no broker is known or it is away", examples=[0]
    )


class Health(_Answer):
    """Whether the API can be used, and how fresh its figures are."""

    status: Literal["ok", "degraded", "unavailable"] = Field(
        description="ok: everything is up; degraded: usable, but something is down; unavailable: ClickHouse is away"
    )
    version: str = Field(description="of this software", examples=["0.1.0"])
    checked_at: Utc = Field(description="when the parts were asked")
    dependencies: Dependencies = Field(description="every part the answers depend on")
    freshness: Freshness = Field(description="how old the figures are")


class Chapter(_Answer):
    """Where a chapter starts."""

    start_ms: Count = Field(description="ms of content", examples=[90_000])
    title: str = Field(description="untrusted text of whoever described the video", examples=["Joins"])


class VideoListItem(_Answer):
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


class VideoTotals(_Answer):
    """All videos that match together; viewers are not, since one viewer may watch several."""

    videos: Count = Field(description="that match", examples=[12])
    views: Count = Field(description="of all that match", examples=[18_204])
    watch_time_s: Seconds = Field(description="of all that match, seconds of wall time", examples=[3_512_340.5])


class VideoListHead(_Answer):
    """What a list of videos is of."""

    total: Count = Field(description="videos that match, on all pages", examples=[12])
    totals: VideoTotals = Field(description="over all pages")
    limit: int = Field(description="videos on a page", examples=[100])
    offset: Count = Field(description="videos before this page", examples=[0])


class VideoList(VideoListHead):
    """A page of the videos, in the order asked for."""

    videos: list[VideoListItem] = Field(description="in the order asked for")


class _OneVideo(_Answer):
    """What every answer about one video begins with."""

    video_id: VideoIdField
    title: str | None = Field(
        description="null when the catalogue does not know the video; untrusted text", examples=["SQL, from scratch"]
    )
    duration_s: Seconds | None = Field(description="seconds of content; null when nobody told", examples=[754.0])
    views: Count = Field(description="the V that all ratios are of", examples=[1_820])
    is_sufficient: bool = Field(description="whether there are at least 30 views")


class CurvePoint(_Answer):
    """One second of the curve: the instant ``second`` of content."""

    second: Count = Field(description="seconds of content", examples=[30])
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


class CurveHead(_OneVideo):
    """What a curve is of."""

    fresh_as_of: Utc | None = Field(description="when the newest event that the figures contain was stored")
    reason: Reason | None = Field(description="why there are no points; null when there are")


class RetentionCurve(CurveHead):
    """The curve: a point for every second from 0 to the end, also where nobody watched; no points without views."""

    points: list[CurvePoint] = Field(description="one per second, without gaps")


class Dropoff(_Answer):
    """A stretch of the video in which significantly more views end than its neighbourhood predicts."""

    start_second: Count = Field(description="first second", examples=[312])
    end_second: Count = Field(description="one past the last second", examples=[320])
    severity: Literal["low", "medium", "high"] = Field(description="by excess_points: from 2, from 5, from 10")
    views_lost: Count = Field(description="views that ended here", examples=[154])
    expected_views_lost: float = Field(ge=0, description="views the neighbours predict to end here", examples=[11.9])
    excess_points: float = Field(description="lost above expected, in percent of all views", examples=[7.8])
    at_risk: Count = Field(description="views that could have ended here", examples=[980])
    hazard: Share = Field(description="views_lost / at_risk", examples=[0.157])
    baseline_hazard: Share = Field(description="the neighbours' hazard", examples=[0.0121])
    p_value: Share = Field(description="chance of so many by the neighbours' hazard", examples=[1.4e-12])
    q_value: Share = Field(description="p_value corrected for all stretches tested", examples=[1.1e-10])
    chapter: str | None = Field(description="the chapter it is in; untrusted text", examples=["Joins"])
    tentative: bool = Field(description="fewer than 300 views: likely, not certain")


class DropoffsHead(_OneVideo):
    """What dropoffs are of."""

    fresh_as_of: Utc | None = Field(description="when the newest event that the figures contain was stored")
    reason: Reason | None = Field(description="why nothing is reported; null when something is")


class SignificantDropoffs(DropoffsHead):
    """The significant dropoffs in the order of the video, or the reason why there are none."""

    dropoffs: list[Dropoff] = Field(description="in the order of the video")


class EngagementSummary(_OneVideo):
    """The engagement figures of one video."""

    reason: Reason | None = Field(description="why the ratios are null; null when there are views")
    category: str | None = Field(description="as the catalogue says", examples=["tutorial"])
    published_at: Utc | None = Field(description="as the catalogue says")
    duration_source: str = Field(description="catalogue, reported, inferred or unknown", examples=["catalogue"])
    chapters: list[Chapter] = Field(description="in the order of the video")
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
    first_event_at: Utc | None = Field(description="of any session of the video")
    last_event_at: Utc | None = Field(description="of any session of the video")
    sessions: Count = Field(description="sessions of any kind, views or not", examples=[1_845])
    implausible_sessions: Count = Field(description="left out: played faster than any player can", examples=[0])
    invalid_intervals: Count = Field(description="played intervals left out: impossible for this video", examples=[2])
    computed_at: Utc | None = Field(description="when these figures were computed")
