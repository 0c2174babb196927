"""Does an analysis hold what the facts hold, and nothing else? Pure; each fault is a line that a model can mend.

Whatever a title or a model says, these stay as the facts have them: the grade, which moments are told, every id and
every number. Prose may say only numbers that the facts hold, of the moment it speaks of, and no link or markup.
"""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from retention_platform.insights.schema import Analysis, Cause, Facts, MomentFacts

#: Characters of a text, and entries of a list.
MAX_TEXT, MAX_HEADLINE, MAX_ENTRIES = 900, 160, 16
#: Faults told at once.
MAX_FAULTS = 12
#: Causes that only what players measured can show; any other may be supposed of any moment.
_MEASURED: tuple[Cause, ...] = ("buffering", "playback_errors", "device", "audience")

#: What a number in a text is of: percent (and points), seconds, a count; empty where the text does not say.
_KINDS = ("percent", "seconds", "count")
_PERCENT = re.compile(r"percent|points|magnitude|percentile")
_SECONDS = re.compile(r"second")
#: Numbers that every text may say: the level of intervals, and the instants that figures are named after.
_ALWAYS: Mapping[str, tuple[float, ...]] = {"percent": (95,), "seconds": (3, 30), "count": ()}

_TIME = re.compile(r"(?<![\d.,:])(\d{1,3}(?::[0-5]\d){1,2})(?!\d|:\d)")
_ID = re.compile(r"\b(?:dropoff|chapter|spike|dip|top_moment|device_type|country|traffic_source|viewer_type)-\d+\b")
_NUMBER = re.compile(
    r"(?P<value>\d+(?:,\d{3})+(?:\.\d+)?|\d+(?:\.\d+)?)\s*"
    r"(?P<unit>%|percent\b|per cent\b|percentage points?\b|points?\b"
    r"|seconds?\b|secs?\b|s\b|views?\b|viewers?\b|sessions?\b)?",
    re.IGNORECASE,
)
_SPELLED = re.compile(
    r"\b(two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|\w+teen|twenty|thirty|forty|fifty|sixty|seventy|eighty"
    r"|ninety|hundreds?|thousands?|millions?|dozens?)\b(?:[\s-]+\w+)?[\s-]+"
    r"(percent|per cent|percentage|points?|seconds?|minutes?|views?|viewers?|times)\b"
    r"|\b(a|one|two|three)[\s-]+(half|halves|thirds?|quarters?|fifths?|tenths?)[\s-]+of\b"
    r"|\b(doubles?|doubled|triples?|tripled|twice|thrice)\b",
    re.IGNORECASE,
)
# Ratios made of numbers that the facts may hold for something else.
_RATIO = re.compile(
    r"\d\s*/\s*\d|\d\s+(in|out of)\s+\d|\d\s*-?(x|fold|times)\b|\d\s*(min|minutes?|hours?|days?|weeks?)\b", re.I
)
# In what is told as found; what is to be tried may be halved.
_HALF = re.compile(r"\bhal(f|ves)\b", re.IGNORECASE)
_TO_TRY = ("how_to_test", "action", "success_metric")
# A link, an address, markup, or what a chat program makes one of.
_LINK = re.compile(
    r"://|www\.|@|[<>`{}\\]|\]\(|\[[^\]]*\]|javascript:|data:|mailto:|\b[\w-]+\.(?!\d)[a-z]{2,}(?![\w.])", re.IGNORECASE
)


def faults_of(analysis: Analysis, facts: Facts) -> list[str]:
    """What is wrong, in lines; none when the analysis may be shown."""
    faults = [
        *_assessment(analysis, facts),
        *_moments(analysis, facts),
        *_hypotheses(analysis, facts),
        *_recommendations(analysis, facts),
        *_segments(analysis, facts),
        *_warnings(analysis, facts),
        *_texts(analysis, facts),
    ]
    return faults[:MAX_FAULTS]


def _assessment(analysis: Analysis, facts: Facts) -> Iterator[str]:
    if analysis.assessment != facts.assessment:
        yield "assessment: must be the facts' assessment, field by field"


def _moments(analysis: Analysis, facts: Facts) -> Iterator[str]:
    wanted = [moment.moment_id for moment in facts.critical]
    told = [moment.moment_id for moment in analysis.critical_moments]
    if told != wanted:
        yield f"critical_moments: must be exactly {', '.join(wanted) or 'none'}, in this order"
    known = {moment.moment_id: moment for moment in facts.moments}
    for place, moment in enumerate(analysis.critical_moments):
        fact = known.get(moment.moment_id)
        if fact is None:
            yield f"critical_moments[{place}].moment_id: the facts hold no such moment"
            continue
        for name, value in _copied(fact).items():
            if getattr(moment, name) != value:
                yield f"critical_moments[{place}].{name}: the facts say {value!r}"


def _copied(fact: MomentFacts) -> dict[str, Any]:
    """What a critical moment copies from the facts."""
    same = ("start_second", "end_second", "chapter", "magnitude", "magnitude_low", "magnitude_high", "views_lost")
    return {"type": fact.kind, **{name: getattr(fact, name) for name in same}}


def _hypotheses(analysis: Analysis, facts: Facts) -> Iterator[str]:
    known = {moment.moment_id: moment for moment in facts.critical}
    for place, hypothesis in enumerate(analysis.hypotheses):
        fact = known.get(hypothesis.moment_id)
        where = f"hypotheses[{place}]"
        if fact is None:
            yield f"{where}.moment_id: not one of critical_moments"
        elif not fact.is_problem:
            yield f"{where}.moment_id: that moment is no problem; there is nothing to explain"
        elif hypothesis.cause in _MEASURED and hypothesis.cause not in fact.causes:
            yield f"{where}.cause: nothing was measured that shows {hypothesis.cause}"
    explained = {hypothesis.moment_id for hypothesis in analysis.hypotheses}
    for moment in facts.critical:
        if moment.is_problem and moment.moment_id not in explained:
            yield f"hypotheses: none for {moment.moment_id}"


def _recommendations(analysis: Analysis, facts: Facts) -> Iterator[str]:
    known = {moment.moment_id: moment for moment in facts.critical}
    for place, recommendation in enumerate(analysis.recommendations):
        where = f"recommendations[{place}]"
        if recommendation.priority != place + 1:
            yield f"{where}.priority: must be {place + 1}: they are listed by it"
        if recommendation.moment_id is None:
            most = None
        elif recommendation.moment_id not in known:
            yield f"{where}.moment_id: not one of critical_moments"
            continue
        else:
            most = known[recommendation.moment_id].max_views_recoverable
        if recommendation.max_views_recoverable != most:
            yield f"{where}.max_views_recoverable: the facts say {most!r} for this moment"


def _segments(analysis: Analysis, facts: Facts) -> Iterator[str]:
    known = {segment.segment_id: segment.difference_points for segment in facts.segments}
    for place, segment in enumerate(analysis.segment_differences):
        if segment.segment_id not in known:
            yield f"segment_differences[{place}].segment_id: the facts' segments hold no such id"
        elif segment.difference_points != known[segment.segment_id]:
            yield f"segment_differences[{place}].difference_points: the facts say {known[segment.segment_id]!r}"


def _warnings(analysis: Analysis, facts: Facts) -> Iterator[str]:
    if analysis.data_quality_warnings != facts.warnings:
        yield "data_quality_warnings: must be the facts' warnings, unchanged"


# -- prose


def _texts(analysis: Analysis, facts: Facts) -> Iterator[str]:
    everything = _Numbers(_leaves(facts.model_dump()))
    general = facts.model_dump(exclude={"moments"})
    of_moment = {
        moment.moment_id: _Numbers([*_leaves(general), *_leaves(moment.model_dump())]) for moment in facts.moments
    }
    ids = {moment.moment_id for moment in facts.moments} | {segment.segment_id for segment in facts.segments}
    ids |= {segment.segment_id for moment in facts.moments for segment in moment.segments}
    for name in ("critical_moments", "hypotheses", "recommendations", "segment_differences"):
        if len(getattr(analysis, name)) > MAX_ENTRIES:
            yield f"{name}: more than {MAX_ENTRIES}"
    for where, text, moment_id in _prose(analysis):
        limit = MAX_HEADLINE if where == "headline" else MAX_TEXT
        if not text.strip():
            yield f"{where}: empty"
        if len(text) > limit:
            yield f"{where}: {len(text)} characters, at most {limit}"
        if not where.endswith(_TO_TRY) and _HALF.search(text):
            yield f"{where}: says a half: say the facts' own figure in digits or leave it out"
        for fault in _faults_of_text(text, of_moment.get(moment_id or "", everything), ids):
            yield f"{where}: {fault}"


def _prose(analysis: Analysis) -> Iterator[tuple[str, str, str | None]]:
    """Every text that the analysis's writer chose: where, what, and of which moment."""
    yield "headline", analysis.headline, None
    yield "summary", analysis.summary, None
    for place, moment in enumerate(analysis.critical_moments):
        yield f"critical_moments[{place}].evidence", moment.evidence, moment.moment_id
    for place, hypothesis in enumerate(analysis.hypotheses):
        for name in ("statement", "evidence_for", "evidence_against", "how_to_test"):
            yield f"hypotheses[{place}].{name}", getattr(hypothesis, name), hypothesis.moment_id
    for place, recommendation in enumerate(analysis.recommendations):
        for name in ("action", "success_metric"):
            yield f"recommendations[{place}].{name}", getattr(recommendation, name), recommendation.moment_id
    for place, segment in enumerate(analysis.segment_differences):
        yield f"segment_differences[{place}].statement", segment.statement, None


def _faults_of_text(text: str, numbers: _Numbers, ids: set[str]) -> Iterator[str]:
    if any(unicodedata.category(sign) in ("Cc", "Cf", "Co", "Cs", "Zl", "Zp") for sign in text):
        yield "holds invisible signs or line ends"
    plain = unicodedata.normalize("NFKC", text)
    if any(unicodedata.category(sign) in ("Nd", "Nl", "No") and not sign.isascii() for sign in plain):
        yield "holds digits of another script"
    if link := _LINK.search(plain):
        yield f"holds a link or markup: {link[0][:40]!r}"
    for said in _ID.findall(plain):
        if said not in ids:
            yield f"names {said!r}, which the facts do not hold"
    plain = _ID.sub(" ", plain)
    for time in _TIME.findall(plain):
        if not numbers.has(_seconds_of(time), 0, "seconds"):
            yield f"says {time}, an instant that the facts do not hold"
    plain = _TIME.sub(" ", plain)
    for match in _NUMBER.finditer(plain):
        value = match["value"].replace(",", "")
        decimals = len(value.partition(".")[2])
        if not numbers.has(float(value), decimals, _kind_of(match["unit"])):
            yield f"says {match[0].strip()!r}, a number that the facts do not hold here"
    if ratio := _RATIO.search(plain):
        yield f"says {ratio[0]!r}: the facts hold percentages, seconds and counts only"
    if spelled := _SPELLED.search(plain):
        yield f"spells a number, {spelled[0]!r}: say the facts' own figure in digits or leave it out"


def _kind_of(unit: str | None) -> str:
    if unit is None:
        return ""
    unit = unit.lower()
    if unit == "%" or unit.startswith(("per", "point")):
        return "percent"
    return "count" if unit.startswith(("view", "sess")) and unit != "sec" else "seconds"


def _seconds_of(time: str) -> int:
    total = 0
    for part in time.split(":"):
        total = 60 * total + int(part)
    return total


class _Numbers:
    """The numbers that facts hold, by what they are of."""

    def __init__(self, leaves: Iterable[tuple[str, float]]) -> None:
        self._of: dict[str, set[float]] = defaultdict(set)
        for name, value in leaves:
            kind = "percent" if _PERCENT.search(name) else "seconds" if _SECONDS.search(name) else "count"
            self._of[kind].add(abs(value))
        for kind, values in _ALWAYS.items():
            self._of[kind].update(values)

    def has(self, said: float, decimals: int, kind: str) -> bool:
        """Whether a number of the kind, of any when it is empty, is ``said`` when rounded to so many decimals."""
        half = 0.5 * 10**-decimals + 1e-9
        return any(abs(value - said) <= half for name in ([kind] if kind else _KINDS) for value in self._of[name])


def _leaves(value: Any, name: str = "") -> Iterator[tuple[str, float]]:
    """Every number, with the name of the field that holds it; of our own texts the numbers in them."""
    if isinstance(value, dict):
        for key, part in value.items():
            # Titles, chapters and segments' values are others' texts: what numbers they hold are no facts.
            yield from _leaves(part, key)
    elif isinstance(value, (list, tuple)):
        for part in value:
            yield from _leaves(part, name)
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        yield name, float(value)
    elif name == "text":
        for match in _NUMBER.finditer(value):
            yield "percent" if _kind_of(match["unit"]) == "percent" else "count", float(match["value"].replace(",", ""))
