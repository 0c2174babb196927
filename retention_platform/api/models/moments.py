"""Where people leave, come back and skip."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from retention_platform.api.models.base import Answer, Count, OneVideo, Reason, Share


class Dropoff(Answer):
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


class DropoffsHead(OneVideo):
    """What dropoffs are of."""

    reason: Reason | None = Field(description="why nothing is reported; null when something is")


class SignificantDropoffs(DropoffsHead):
    """The significant dropoffs in the order of the video, or the reason why there are none."""

    dropoffs: list[Dropoff] = Field(description="in the order of the video")


class KeyMoment(Answer):
    """A stretch of the video that its viewers treat unlike the rest."""

    moment_id: str = Field(description="its name within the video", examples=["spike-120"])
    kind: Literal["intro", "outro", "spike", "dip", "top_moment"] = Field(
        description="intro: the beginning; outro: from the completion point on; spike: rewatched; dip: skipped; "
        "top_moment: hardly anybody leaves"
    )
    start_second: Count = Field(description="first second", examples=[120])
    end_second: Count = Field(description="one past the last second", examples=[132])
    peak_second: Count | None = Field(description="first second of the highest part of a spike or dip", examples=[124])
    magnitude: float = Field(
        description="in points: lost in an intro or outro; above its sides in a spike or dip; kept in a top moment",
        examples=[7.4],
    )
    magnitude_low: float = Field(description="lower bound of magnitude, 95 %", examples=[4.9])
    magnitude_high: float = Field(description="upper bound of magnitude, 95 %", examples=[9.8])
    level: float | None = Field(
        description="share watching at 30 s (intro) or in the end (outro), rewatch ratio (spike), skip rate (dip), "
        "exit hazard (top_moment)",
        examples=[0.31],
    )
    baseline: float | None = Field(description="what level is compared with; null for intro and outro", examples=[0.08])
    prominence: float | None = Field(description="points above the surroundings, of spikes and dips", examples=[11.2])
    confidence: Share | None = Field(description="share of resamples that show a spike or dip too", examples=[0.998])
    at_risk: Count = Field(description="views at risk in any second of it", examples=[980])
    views_lost: Count = Field(description="views that ended in it", examples=[31])
    retention_rate: Share = Field(description="share watching, mean over its seconds", examples=[0.58])
    chapter: str | None = Field(description="the chapter it is in; untrusted text", examples=["Joins"])
    tentative: bool = Field(description="fewer than 300 views: likely, not certain")


class MomentsHead(OneVideo):
    """What key moments are of."""

    reason: Reason | None = Field(description="why nothing is reported; null when something is")


class KeyMoments(MomentsHead):
    """The key moments in the order of the video, or the reason why there are none."""

    moments: list[KeyMoment] = Field(description="in the order of the video")
