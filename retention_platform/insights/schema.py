"""The shapes: `Facts` is what an analysis may rest on, `Analysis` what it says. One schema, whoever writes it.

Every field is required and nothing else is allowed, which is also what structured outputs of language models ask for.
Units: seconds are content seconds, ``*_percent`` are 0 to 100, points are percent of all views.
Fields named ``title``, ``chapter``, ``category`` and ``value`` are text that somebody else wrote.
"""

from __future__ import annotations

import hashlib
from datetime import datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict

#: Another whenever the same marts give other facts.
FACTS_VERSION = "1"

#: Moments that an analysis tells: of those that cost views, and of those that viewers like.
MAX_PROBLEMS, MAX_LIKED = 6, 3

Grade = Literal["good", "average", "poor", "insufficient_data"]
Basis = Literal["catalogue", "benchmark", "none"]
Confidence = Literal["high", "medium", "low"]
Effort = Literal["low", "medium", "high"]
Kind = Literal["dropoff", "chapter", "intro", "outro", "spike", "dip", "top_moment"]
Dimension = Literal["device_type", "country", "traffic_source", "viewer_type"]
Cause = Literal[
    "long_intro",
    "weak_hook",
    "chapter_content",
    "confusing",
    "skipped_content",
    "pace",
    "end_screen",
    "device",
    "audience",
    "buffering",
    "playback_errors",
    "content",
]


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Assessment(_Strict):
    """How the video does, and against what."""

    grade: Grade
    basis: Basis
    #: Percent of the catalogue's comparable videos that fewer viewers finish.
    percentile: float | None
    #: Percent of views that finish, here and where it is compared with a published figure, there.
    completion_percent: float | None
    benchmark_percent: float | None
    sample_size: int
    confidence: Confidence


class CriticalMoment(_Strict):
    """A moment worth knowing; all but the evidence is as in the facts."""

    moment_id: str
    type: Kind
    start_second: int
    end_second: int
    chapter: str | None
    #: In points, with its 95 % interval where the facts have one.
    magnitude: float
    magnitude_low: float | None
    magnitude_high: float | None
    views_lost: int
    evidence: str


class Hypothesis(_Strict):
    """Why it may be so: never certain, always to be tested."""

    moment_id: str
    cause: Cause
    statement: str
    evidence_for: str
    evidence_against: str
    confidence: Confidence
    how_to_test: str


class Recommendation(_Strict):
    """What to change. ``max_views_recoverable`` is an upper bound of the past, never a forecast."""

    priority: int
    action: str
    moment_id: str | None
    effort: Effort
    max_views_recoverable: int | None
    success_metric: str


class SegmentDifference(_Strict):
    """A segment that finishes significantly more or less often than the other views."""

    segment_id: str
    difference_points: float
    statement: str


class QualityWarning(_Strict):
    """What to know about the data before relying on it."""

    code: str
    text: str


class Analysis(_Strict):
    """What is said about one video."""

    assessment: Assessment
    headline: str
    summary: str
    critical_moments: list[CriticalMoment]
    hypotheses: list[Hypothesis]
    recommendations: list[Recommendation]
    segment_differences: list[SegmentDifference]
    data_quality_warnings: list[QualityWarning]


class Figures(_Strict):
    """The headline figures."""

    average_view_percent: float | None
    completion_percent: float | None
    hook_3s_percent: float | None
    intro_30s_percent: float | None
    #: Median of comparable videos' intro_30s_percent.
    typical_intro_30s_percent: float | None
    rewatching_percent: float | None
    #: Views that played faster than recorded, by a tenth or more.
    faster_percent: float | None
    seeks_per_view: float | None


class ChapterFacts(_Strict):
    """One chapter: how many leave in it, and how fast beside the rest of what surrounds it."""

    chapter: str
    start_second: int
    end_second: int
    views_lost: int
    lost_per_minute_percent: float | None
    around_lost_per_minute_percent: float | None


class TechnicalFacts(_Strict):
    """Stalls or errors right before views ended: here, and before views that ended elsewhere in the video."""

    views_lost_after_it: int
    lost_here_percent: float
    lost_elsewhere_percent: float
    is_significant: bool


class MomentSegment(_Strict):
    """A segment that a loss is concentrated in."""

    segment_id: str
    dimension: Dimension
    value: str
    lost_percent: float
    others_lost_percent: float
    #: Share of the loss beyond what is usual that is this segment's.
    excess_share_percent: float


class MomentFacts(_Strict):
    """One moment, with what is known around it."""

    moment_id: str
    kind: Kind
    #: Whether it costs views or attention: what is to be explained.
    is_problem: bool
    start_second: int
    end_second: int
    chapter: str | None
    #: Seconds from the start of a chapter to this moment, where one starts about here.
    after_chapter_start_seconds: int | None
    magnitude: float
    magnitude_low: float | None
    magnitude_high: float | None
    views_lost: int
    at_risk: int
    lost_percent: float
    #: Of those who came here, how many would have been lost at the rate around it.
    usual_lost_percent: float | None
    #: Of those who came past it, how many jumped over it, in the mean of its seconds.
    skipped_percent: float | None
    max_views_recoverable: int | None
    #: Views each of two versions needs to show that half of what is unusual is gone.
    views_to_test: int | None
    confidence: Confidence
    stalls: TechnicalFacts | None
    errors: TechnicalFacts | None
    segments: list[MomentSegment]
    spike_before_id: str | None
    dip_here_id: str | None
    #: What the evidence speaks for, the likeliest first.
    causes: list[Cause]


class SegmentFacts(_Strict):
    """A segment that finishes significantly more or less often than the others."""

    segment_id: str
    dimension: Dimension
    value: str
    views: int
    completion_percent: float
    others_completion_percent: float
    difference_points: float


class Facts(_Strict):
    """All that an analysis may rest on."""

    facts_version: str
    title: str
    category: str
    duration_seconds: int | None
    views: int
    unique_viewers: int
    assessment: Assessment
    figures: Figures
    chapters: list[ChapterFacts]
    #: Problems first, by their cost.
    moments: list[MomentFacts]
    segments: list[SegmentFacts]
    warnings: list[QualityWarning]

    @property
    def hash(self) -> str:
        """32 hexadecimal characters that differ when any fact does."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()[:32]

    @property
    def problems(self) -> list[MomentFacts]:
        """The moments that are to be explained, the costliest first."""
        return [moment for moment in self.moments if moment.is_problem]

    @property
    def critical(self) -> list[MomentFacts]:
        """The moments that every analysis tells, in this order: the problems, then what viewers like most."""
        liked = [moment for moment in self.moments if moment.kind in ("spike", "top_moment")]
        return [*self.problems[:MAX_PROBLEMS], *liked[:MAX_LIKED]]


class Usage(_Strict):
    """What a language model took: answers asked for, and tokens as its server counts them."""

    calls: int = 0
    input_tokens: int = 0
    output_tokens: int = 0

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            calls=self.calls + other.calls,
            input_tokens=self.input_tokens + other.input_tokens,
            output_tokens=self.output_tokens + other.output_tokens,
        )

    def __sub__(self, other: Usage) -> Usage:
        return self + Usage(calls=-other.calls, input_tokens=-other.input_tokens, output_tokens=-other.output_tokens)


class Insights(_Strict):
    """An analysis with who made it, when, and from what."""

    video_id: str
    made_at: datetime
    mode: Literal["demo", "openai"]
    #: The rules' or the language model's name.
    model: str
    prompt_version: str
    #: Why it is not what was asked for; empty when it is.
    note: str
    usage: Usage
    facts: Facts
    analysis: Analysis
