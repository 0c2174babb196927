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
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, use_attribute_docstrings=True)


class Assessment(_Strict):
    """How the video does, and against what."""

    grade: Grade
    """How it does; `insufficient_data` with too few views to say."""
    basis: Basis
    """What it is compared with: the catalogue's videos of similar length, a published figure, or nothing."""
    percentile: float | None
    """Percent of the catalogue's comparable videos that fewer viewers finish."""
    completion_percent: float | None
    """Percent of views that finish."""
    benchmark_percent: float | None
    """What is published for videos of this length, where that is what it is compared with."""
    sample_size: int
    """Views it rests on."""
    confidence: Confidence
    """How sure the grade is."""


class CriticalMoment(_Strict):
    """A moment worth knowing; all but the evidence is as in the facts."""

    moment_id: str
    """As in the facts."""
    type: Kind
    """What kind of moment it is."""
    start_second: int
    """Second of content where it begins."""
    end_second: int
    """Second of content where it ends."""
    chapter: str | None
    """The chapter it is in; untrusted text."""
    magnitude: float
    """In points of all views, or of skipping or rewatching."""
    magnitude_low: float | None
    """Lower end of its 95 % interval, where the facts have one."""
    magnitude_high: float | None
    """Upper end of its 95 % interval."""
    views_lost: int
    """Views that ended in it."""
    evidence: str
    """What the figures say of it."""


class Hypothesis(_Strict):
    """Why it may be so: never certain, always to be tested."""

    moment_id: str
    """The moment it is about."""
    cause: Cause
    """Kind of cause."""
    statement: str
    """What may be the reason."""
    evidence_for: str
    """What speaks for it."""
    evidence_against: str
    """What speaks against it, or is not known."""
    confidence: Confidence
    """How likely it is."""
    how_to_test: str
    """How to find out."""


class Recommendation(_Strict):
    """What to change. ``max_views_recoverable`` is an upper bound of the past, never a forecast."""

    priority: int
    """1 is the first thing to do."""
    action: str
    """What to do."""
    moment_id: str | None
    """The moment it is for; null when for the whole video."""
    effort: Effort
    """How much work it is."""
    max_views_recoverable: int | None
    """At most so many of the past views were lost to it: a bound, no forecast."""
    success_metric: str
    """What tells that it helped."""


class SegmentDifference(_Strict):
    """A segment that finishes significantly more or less often than the other views."""

    segment_id: str
    """As in the facts."""
    difference_points: float
    """Share of views that finish, in points above the other views."""
    statement: str
    """The difference in words."""


class QualityWarning(_Strict):
    """What to know about the data before relying on it."""

    code: str
    """For programs."""
    text: str
    """For people."""


class Analysis(_Strict):
    """What is said about one video."""

    assessment: Assessment
    """How the video does."""
    headline: str
    """The most important in one line."""
    summary: str
    """What happens in the video, in a few sentences."""
    critical_moments: list[CriticalMoment]
    """Where views or attention are lost, the costliest first; then what viewers like."""
    hypotheses: list[Hypothesis]
    """Why that may be, the likeliest first."""
    recommendations: list[Recommendation]
    """What to change, by priority."""
    segment_differences: list[SegmentDifference]
    """Who watches differently."""
    data_quality_warnings: list[QualityWarning]
    """What to know of the data."""


class Figures(_Strict):
    """The headline figures."""

    average_view_percent: float | None
    """Mean share of the video that a view played."""
    completion_percent: float | None
    """Views that finish."""
    hook_3s_percent: float | None
    """Views that are there after 3 s."""
    intro_30s_percent: float | None
    """Views that are there after 30 s."""
    typical_intro_30s_percent: float | None
    """Median of comparable videos' intro_30s_percent."""
    rewatching_percent: float | None
    """Views that play something again."""
    faster_percent: float | None
    """Views that played faster than recorded, by a tenth or more."""
    seeks_per_view: float | None
    """Jumps a view makes, in the mean."""


class ChapterFacts(_Strict):
    """One chapter: how many leave in it, and how fast beside the rest of what surrounds it."""

    chapter: str
    """Its title; untrusted text."""
    start_second: int
    """Second of content where it begins."""
    end_second: int
    """Second of content where it ends."""
    views_lost: int
    """Views that ended in it."""
    lost_per_minute_percent: float | None
    """Of those watching, how many end in a minute of it."""
    around_lost_per_minute_percent: float | None
    """The same of what surrounds it."""


class TechnicalFacts(_Strict):
    """Stalls or errors right before views ended: here, and before views that ended elsewhere in the video."""

    views_lost_after_it: int
    """Views that ended here right after it."""
    lost_here_percent: float
    """Their share of the views that ended here."""
    lost_elsewhere_percent: float
    """The same share elsewhere in the video."""
    is_significant: bool
    """Whether chance alone would hardly make such a difference."""


class MomentSegment(_Strict):
    """A segment that a loss is concentrated in."""

    segment_id: str
    """Names the segment in these facts."""
    dimension: Dimension
    """What splits the views."""
    value: str
    """The segment; untrusted text."""
    lost_percent: float
    """Of its views that came here, how many ended."""
    others_lost_percent: float
    """The same of all other views."""
    excess_share_percent: float
    """Share of the loss beyond what is usual that is this segment's."""


class MomentFacts(_Strict):
    """One moment, with what is known around it."""

    moment_id: str
    """Names the moment in these facts."""
    kind: Kind
    """What kind of moment it is."""
    is_problem: bool
    """Whether it costs views or attention: what is to be explained."""
    start_second: int
    """Second of content where it begins."""
    end_second: int
    """Second of content where it ends."""
    chapter: str | None
    """The chapter it is in; untrusted text."""
    after_chapter_start_seconds: int | None
    """Seconds from the start of a chapter to this moment, where one starts about here."""
    magnitude: float
    """In points of all views, or of skipping or rewatching."""
    magnitude_low: float | None
    """Lower end of its 95 % interval."""
    magnitude_high: float | None
    """Upper end of its 95 % interval."""
    views_lost: int
    """Views that ended in it."""
    at_risk: int
    """Views that were there when it began."""
    lost_percent: float
    """Of those, how many ended."""
    usual_lost_percent: float | None
    """Of those who came here, how many would have been lost at the rate around it."""
    skipped_percent: float | None
    """Of those who came past it, how many jumped over it, in the mean of its seconds."""
    max_views_recoverable: int | None
    """Views lost beyond what is usual: an upper bound of what can be won back."""
    views_to_test: int | None
    """Views each of two versions needs to show that half of what is unusual is gone."""
    confidence: Confidence
    """How sure it is that the moment is there."""
    stalls: TechnicalFacts | None
    """Buffering before views ended."""
    errors: TechnicalFacts | None
    """Errors of the player before views ended."""
    segments: list[MomentSegment]
    """Segments that the loss is concentrated in."""
    spike_before_id: str | None
    """The rewatched moment right before it."""
    dip_here_id: str | None
    """The skipped moment at the same place."""
    causes: list[Cause]
    """What the evidence speaks for, the likeliest first."""


class SegmentFacts(_Strict):
    """A segment that finishes significantly more or less often than the others."""

    segment_id: str
    """Names the segment in these facts."""
    dimension: Dimension
    """What splits the views."""
    value: str
    """The segment; untrusted text."""
    views: int
    """Its views."""
    completion_percent: float
    """Of its views, how many finish."""
    others_completion_percent: float
    """The same of all other views."""
    difference_points: float
    """The difference of the two."""


class Facts(_Strict):
    """All that an analysis may rest on."""

    facts_version: str
    """Version of these facts' definitions."""
    title: str
    """The video's title; untrusted text."""
    category: str
    """Its category; untrusted text."""
    duration_seconds: int | None
    """Its length; null when nobody told."""
    views: int
    """V, the views."""
    unique_viewers: int
    """Different viewers."""
    assessment: Assessment
    """How it does."""
    figures: Figures
    """How it was watched, all in all."""
    chapters: list[ChapterFacts]
    """Its chapters in their order."""
    moments: list[MomentFacts]
    """Problems first, by their cost."""
    segments: list[SegmentFacts]
    """Who finishes significantly more or less often."""
    warnings: list[QualityWarning]
    """What to know of the data."""

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
    """Answers asked for."""
    input_tokens: int = 0
    """Tokens sent."""
    output_tokens: int = 0
    """Tokens answered."""

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
    """The video."""
    made_at: datetime
    """When it was made."""
    mode: Literal["demo", "openai"]
    """demo: by rules; openai: by a language model."""
    model: str
    """The rules' or the language model's name."""
    prompt_version: str
    """Version of the prompt; empty for rules."""
    note: str
    """Why it is not what was asked for; empty when it is."""
    usage: Usage
    """What a language model took."""
    facts: Facts
    """What the analysis rests on."""
    analysis: Analysis
    """What is said."""
