"""Demo mode: an analysis by rules, without a language model. Pure; facts in, analysis out.

What it says follows from the facts' causes, in the words of somebody who edits videos: a cause has its own statement,
evidence, test and remedy, and each is made of what this video's facts hold. It quotes no text that others wrote.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from retention_platform.insights.schema import (
    Analysis,
    Assessment,
    Cause,
    Confidence,
    CriticalMoment,
    Effort,
    Facts,
    Hypothesis,
    MomentFacts,
    Recommendation,
    SegmentDifference,
    SegmentFacts,
)
from retention_platform.report.words import position

#: What an analysis by these rules is told to be of; another whenever they say something else of the same facts.
RULES_VERSION = "rules-2"
#: Other causes that are mentioned of one moment, and segments that are told.
MAX_CAUSES, MAX_SEGMENTS = 2, 4

_DIMENSIONS = {
    "device_type": "device",
    "country": "country",
    "traffic_source": "traffic source",
    "viewer_type": "kind of viewer",
}


def analysis_of(facts: Facts) -> Analysis:
    """What the facts say, and what follows from it."""
    problems = [moment for moment in facts.critical if moment.is_problem]
    return Analysis(
        assessment=facts.assessment,
        headline=_headline(facts, problems),
        summary=" ".join(_summary(facts, problems)),
        critical_moments=[critical_moment(moment, _evidence(facts, moment)) for moment in facts.critical],
        hypotheses=[
            _hypothesis(facts, moment, cause, place)
            for moment in problems
            for place, cause in enumerate(moment.causes[:MAX_CAUSES])
        ],
        recommendations=_recommendations(facts, problems),
        segment_differences=[
            SegmentDifference(
                segment_id=segment.segment_id,
                difference_points=segment.difference_points,
                statement=_difference(segment),
            )
            for segment in facts.segments[:MAX_SEGMENTS]
        ],
        data_quality_warnings=facts.warnings,
    )


def critical_moment(moment: MomentFacts, evidence: str) -> CriticalMoment:
    """A moment as an analysis tells it: the facts' figures, and what the evidence says."""
    return CriticalMoment(
        moment_id=moment.moment_id,
        type=moment.kind,
        start_second=moment.start_second,
        end_second=moment.end_second,
        chapter=moment.chapter,
        magnitude=moment.magnitude,
        magnitude_low=moment.magnitude_low,
        magnitude_high=moment.magnitude_high,
        views_lost=moment.views_lost,
        evidence=evidence,
    )


# -- in short


def _headline(facts: Facts, problems: Sequence[MomentFacts]) -> str:
    if facts.assessment.grade == "insufficient_data":
        return "Too few views to say what works and what does not"
    if not problems:
        return {
            "good": "Holds its viewers well, and nowhere loses them at once",
            "average": "No single moment stands out: viewers leave evenly",
            "poor": "Fewer finish than elsewhere, though no single moment drives them away",
        }[facts.assessment.grade]
    worst = problems[0]
    at = position(worst.start_second)
    points = f"{worst.magnitude} points"
    segment = worst.segments[0] if worst.segments else None
    told: dict[Cause, str] = {
        "buffering": f"Playback stalls at {at}, and views end there",
        "playback_errors": f"Players fail at {at}, and views end there",
        "device": f"One kind of device loses its viewers at {at}, the others stay",
        "audience": f"At {at} one part of the audience leaves, the rest stays",
        "confusing": f"Viewers rewind, then give up at {at}",
        "end_screen": f"Viewers take {at} for the end",
        "long_intro": f"The introduction, up to {position(worst.end_second)}, costs {points} of all views",
        "weak_hook": f"The beginning keeps {points} fewer viewers than comparable videos",
        "chapter_content": f"The chapter at {at} costs {points} of all views",
        "skipped_content": f"Viewers jump over the stretch at {at}",
        "pace": f"Too slow for its viewers from {at} on",
        "content": f"A sudden fall at {at} costs {points} of all views",
    }
    return told["content"] if segment is None and worst.causes[0] in ("device", "audience") else told[worst.causes[0]]


def _summary(facts: Facts, problems: Sequence[MomentFacts]) -> list[str]:
    said = [_assessed(facts.assessment)]
    if facts.assessment.grade == "insufficient_data":
        return [*said, "Collect more views before changing anything."]
    if problems:
        recoverable = sum(moment.max_views_recoverable or 0 for moment in problems)
        worst = problems[0]
        said.append(f"What costs most is {_stretch(worst)}: {_loss(worst)}.")
        if len(problems) > 1:
            others = ", ".join(position(moment.start_second) for moment in problems[1:])
            said.append(f"Look at {others} as well.")
        if not recoverable:
            said.append("These stretches cost attention rather than views.")
    else:
        said.append("No stretch loses significantly more viewers than what is around it, so no cut suggests itself.")
    liked = [moment for moment in facts.critical if moment.kind == "spike"]
    if liked:
        said.append(f"What is most watched again begins at {position(liked[0].start_second)}.")
    return said


def _assessed(assessment: Assessment) -> str:
    if assessment.grade == "insufficient_data":
        return f"{assessment.sample_size} views say too little about a video."
    finished = f"{assessment.completion_percent} % of {assessment.sample_size} views come to the end"
    if assessment.basis == "catalogue":
        rank = f"more than in {assessment.percentile} % of the catalogue's videos of similar length"
        return f"{finished}, {rank}: {assessment.grade}."
    return (
        f"{finished}; a published benchmark for videos of this length is {assessment.benchmark_percent} %: "
        f"{assessment.grade}, with low confidence, since the catalogue has too few similar videos to compare with."
    )


# -- moments


def _stretch(moment: MomentFacts) -> str:
    return f"{position(moment.start_second)} to {position(moment.end_second)}"


def _loss(moment: MomentFacts) -> str:
    if moment.kind == "dip":
        return f"{moment.skipped_percent} % of those who come past it jump over it"
    lost = f"{moment.views_lost} of {moment.at_risk} views end there ({moment.lost_percent} %)"
    if moment.usual_lost_percent is None:
        return lost
    beside = "comparable videos" if moment.kind == "intro" else "what surrounds it"
    return f"{lost}, where {beside} would lead one to expect {moment.usual_lost_percent} %"


def _evidence(facts: Facts, moment: MomentFacts) -> str:
    if moment.kind == "spike":
        return f"Watched again {moment.magnitude} points more than what is around it; a fit for a teaser or a clip."
    if moment.kind == "top_moment":
        return f"Hardly anybody leaves: {moment.magnitude} points fewer views are lost than at this video's usual rate."
    said = [f"{_loss(moment)}."]
    if moment.magnitude_low is not None and moment.magnitude_high is not None:
        said.append(
            f"That is {moment.magnitude} points (95 % interval {moment.magnitude_low} to {moment.magnitude_high})."
        )
    if moment.stalls is not None and moment.stalls.is_significant:
        said.append(f"{moment.stalls.lost_here_percent} % of these views ended right after a stall.")
    if moment.errors is not None and moment.errors.is_significant:
        said.append(f"{moment.errors.lost_here_percent} % of these views ended in an error of the player.")
    for segment in moment.segments[:1]:
        said.append(
            f"{segment.excess_share_percent} % of what is unusual comes from one {_DIMENSIONS[segment.dimension]}."
        )
    return " ".join([said[0][0].upper() + said[0][1:], *said[1:]])


# -- causes


@dataclass(frozen=True)
class _Why:
    """A cause in words: what is supposed, what speaks for and against it, how to find out, what to do about it."""

    statement: str
    speaks_for: str
    speaks_against: str
    test: str
    action: str
    effort: Effort


def _buffering(facts: Facts, moment: MomentFacts) -> _Why:
    stalls = moment.stalls
    assert stalls is not None
    return _Why(
        f"Playback stalls at {position(moment.start_second)}, and viewers do not wait.",
        f"{stalls.views_lost_after_it} of the views lost here ({stalls.lost_here_percent} %) ended after a stall; "
        f"elsewhere in this video {stalls.lost_elsewhere_percent} % did.",
        "Who leaves for another reason while the picture stands is counted here too."
        if not moment.segments
        else "The loss is concentrated in one segment, so its network or player may be to blame, not the file.",
        "Play this stretch on a throttled connection and watch the player's buffer; compare bitrates around it.",
        f"Re-encode or re-segment the stretch from {_stretch(moment)} "
        "and check how it is delivered; leave the content as it is until then.",
        "medium",
    )


def _playback_errors(facts: Facts, moment: MomentFacts) -> _Why:
    errors = moment.errors
    assert errors is not None
    return _Why(
        "Players fail here, so these views did not end by choice.",
        f"{errors.views_lost_after_it} of the views lost here ({errors.lost_here_percent} %) ended with a player's "
        f"error; elsewhere {errors.lost_elsewhere_percent} % did.",
        "An error that many viewers get over would be reported just as often.",
        "Play the stretch with the players and versions in use, and read their error codes.",
        f"Have the file around {position(moment.start_second)} checked and encoded anew.",
        "medium",
    )


def _device(facts: Facts, moment: MomentFacts) -> _Why:
    segment = moment.segments[0]
    return _Why(
        "Something here does not work on one kind of device: text too small, a format it cannot play, an overlay that "
        "covers the picture.",
        f"On it {segment.lost_percent} % of those who came here left, on all others {segment.others_lost_percent} %; "
        f"{segment.excess_share_percent} % of the unusual loss is its.",
        "Viewers of one device may also have come for something else: compare its traffic sources."
        if moment.after_chapter_start_seconds is None
        else "A chapter begins about here; its content may suit these viewers less.",
        f"Watch {_stretch(moment)} on such a device, held as viewers do.",
        "Mend what that device shows: larger text, another crop, or another rendition for it.",
        "medium",
    )


def _audience(facts: Facts, moment: MomentFacts) -> _Why:
    segment = next(segment for segment in moment.segments if segment.dimension != "device_type")
    what = _DIMENSIONS[segment.dimension]
    return _Why(
        f"What comes here is not what viewers of one {what} were promised.",
        f"Of them {segment.lost_percent} % left here, of all others {segment.others_lost_percent} %.",
        "With many segments looked at one may stand out by chance; the test allows for it, but cannot rule it out.",
        f"Look at what brings viewers of that {what} here, and at what they are told to expect.",
        f"Match what is announced to that {what} with what the video shows here, or lead it to another video.",
        "low",
    )


def _confusing(facts: Facts, moment: MomentFacts) -> _Why:
    return _Why(
        "Viewers do not follow: they play the stretch again, and then give up.",
        f"What comes right before is among what is watched again most ({moment.spike_before_id}), and then "
        f"{moment.lost_percent} % of those present leave.",
        "Rewatching may as well be liking; leaving afterwards may mean they got what they came for.",
        "Ask a few viewers what they understood at this point; look for questions about it in comments.",
        f"Explain what leads up to {position(moment.start_second)} once more in simpler words, or with a picture.",
        "medium",
    )


def _end_screen(facts: Facts, moment: MomentFacts) -> _Why:
    left = (facts.duration_seconds or moment.end_second) - moment.start_second
    return _Why(
        "Viewers take this for the end: what follows looks like credits or a farewell.",
        f"The fall begins where the last part does, at {position(moment.start_second)} of "
        f"{position(facts.duration_seconds or moment.end_second)}.",
        "If all that matters has been said by then, leaving here costs nothing.",
        "Look at what is shown and said in the seconds before; a summary or thanks tells viewers to go.",
        f"Say what still comes before {position(moment.start_second)}, or move it forward and end the video sooner."
        if left > 30
        else f"Put the call to action before {position(moment.start_second)}.",
        "low",
    )


def _long_intro(facts: Facts, moment: MomentFacts) -> _Why:
    skips = moment.skipped_percent
    by_skipping = f" {skips} % jump over it." if skips is not None and skips >= 5 else ""
    return _Why(
        "The introduction goes on after viewers are ready for the matter.",
        f"Views end throughout it up to {position(moment.end_second)}, not at one point: {_loss(moment)}.{by_skipping}",
        "Some leave every beginning because they searched for something else."
        if moment.usual_lost_percent
        else "Nothing in the figures speaks against it.",
        "Publish a version whose introduction is half as long, or start half of the viewers at its end.",
        f"Cut the introduction: bring what the title promises before {position(moment.end_second)}.",
        "low",
    )


def _weak_hook(facts: Facts, moment: MomentFacts) -> _Why:
    own, typical = facts.figures.intro_30s_percent, facts.figures.typical_intro_30s_percent
    return _Why(
        "The first seconds do not confirm what made viewers click.",
        f"At 0:30 {own} % are watching; the median of comparable videos is {typical} %.",
        "A thumbnail or a source that promises something else does the same to a good beginning.",
        "Compare the beginning by traffic source; try another first sentence with half of the viewers.",
        "Open with the result or the question, and greet afterwards.",
        "low",
    )


def _chapter_content(facts: Facts, moment: MomentFacts) -> _Why:
    after = moment.after_chapter_start_seconds
    if moment.kind == "chapter":
        return _Why(
            "This chapter holds less than its neighbours: too long, too far from the topic, or too slow.",
            f"Views end in it all along: {_loss(moment)}.",
            "Viewers who came for the chapter before may have had enough, whatever follows.",
            "Watch who enters it after skipping: if they stay, it is the way into it that loses the others.",
            f"Shorten {_stretch(moment)}, or move it towards the end.",
            "medium",
        )
    return _Why(
        "Where a new chapter begins viewers decide whether to stay, and this one does not win them.",
        f"The fall comes {'with the start of a chapter' if not after else f'{after} s after a chapter starts'}: "
        f"{_loss(moment)}.",
        "It is not only those who skip about: no segment and no stall stands out."
        if not moment.segments and not (moment.stalls and moment.stalls.is_significant)
        else "A segment or a technical fault explains part of it.",
        "Try the next chapter first with half of the viewers, or another first sentence for this one.",
        f"Begin at {position(moment.start_second)} with why it matters, and take out the pause before it.",
        "low",
    )


def _skipped_content(facts: Facts, moment: MomentFacts) -> _Why:
    return _Why(
        "Viewers know or do not need what is said here.",
        f"{moment.skipped_percent} % of those who come past it jump over it.",
        "Who skips still watches what follows, so the video as a whole interests them.",
        "Publish a version without it, and compare how many finish.",
        f"Shorten {_stretch(moment)}, or give it a chapter of its own that may be skipped.",
        "low",
    )


def _pace(facts: Facts, moment: MomentFacts) -> _Why:
    return _Why(
        "It is told too slowly for those who watch.",
        f"{facts.figures.faster_percent} % of views play faster than recorded.",
        "Some viewers play everything faster.",
        "Compare how many play this video faster with the others of the same series.",
        "Cut pauses and repetitions, first in this stretch.",
        "medium",
    )


def _content(facts: Facts, moment: MomentFacts) -> _Why:
    return _Why(
        "Something said or shown right here sends viewers away: an advertisement, a change of topic, an answer that "
        "makes the rest needless.",
        f"The fall is sudden: {_loss(moment)}. No chapter starts here, and no device, source or stall stands out.",
        "If viewers got what they came for, leaving is no failure.",
        "Watch the stretch and the seconds before it with somebody who does not know the video.",
        f"Look at {_stretch(moment)}, and cut or move what breaks off the thread.",
        "low",
    )


_WHYS: dict[Cause, Callable[[Facts, MomentFacts], _Why]] = {
    "buffering": _buffering,
    "playback_errors": _playback_errors,
    "device": _device,
    "audience": _audience,
    "confusing": _confusing,
    "end_screen": _end_screen,
    "long_intro": _long_intro,
    "weak_hook": _weak_hook,
    "chapter_content": _chapter_content,
    "skipped_content": _skipped_content,
    "pace": _pace,
    "content": _content,
}
#: Causes that players measured; of the others nobody can be sure from figures alone.
_MEASURED = ("buffering", "playback_errors", "device")


def _hypothesis(facts: Facts, moment: MomentFacts, cause: Cause, place: int) -> Hypothesis:
    why = _WHYS[cause](facts, moment)
    return Hypothesis(
        moment_id=moment.moment_id,
        cause=cause,
        statement=why.statement,
        evidence_for=why.speaks_for,
        evidence_against=why.speaks_against,
        confidence=_how_sure(moment, cause, place),
        how_to_test=why.test,
    )


def _how_sure(moment: MomentFacts, cause: Cause, place: int) -> Confidence:
    if moment.confidence == "low" or place > 0 or cause == "content":
        return "low"
    return "high" if cause in _MEASURED and moment.confidence == "high" else "medium"


# -- what to do


def _recommendations(facts: Facts, problems: Sequence[MomentFacts]) -> list[Recommendation]:
    found: list[Recommendation] = []
    for moment in problems:
        why = _WHYS[moment.causes[0]](facts, moment)
        found.append(
            Recommendation(
                priority=len(found) + 1,
                action=why.action,
                moment_id=moment.moment_id,
                effort=why.effort,
                max_views_recoverable=moment.max_views_recoverable,
                success_metric=_success(moment),
            )
        )
    for moment in [moment for moment in facts.critical if moment.kind == "spike"][:1]:
        found.append(
            Recommendation(
                priority=len(found) + 1,
                action=f"Use {_stretch(moment)} as a teaser or a clip: viewers go back to it.",
                moment_id=moment.moment_id,
                effort="low",
                max_views_recoverable=None,
                success_metric="Views that come from the clip, and how many of them finish.",
            )
        )
    if facts.assessment.grade == "poor" and not problems and facts.duration_seconds:
        found.append(
            Recommendation(
                priority=len(found) + 1,
                action=f"Try a version shorter than {position(facts.duration_seconds)}: viewers leave evenly.",
                moment_id=None,
                effort="high",
                max_views_recoverable=None,
                success_metric="Share of views that come to the end.",
            )
        )
    return found


def _success(moment: MomentFacts) -> str:
    if moment.kind == "dip":
        return f"Fewer than {moment.skipped_percent} % jump over it."
    at = _stretch(moment)
    if moment.views_to_test is None:
        return f"Fewer than {moment.lost_percent} % of those who come to {at} leave there."
    return (
        f"Of those who come to {at} fewer than {moment.lost_percent} % leave there; {moment.views_to_test} such views "
        "of each version show whether half of the unusual loss is gone."
    )


def _difference(segment: SegmentFacts) -> str:
    direction = "more" if segment.difference_points > 0 else "less"
    return (
        f"Finishes {direction} often: {segment.completion_percent} % of its {segment.views} views, "
        f"{segment.others_completion_percent} % of the others."
    )
