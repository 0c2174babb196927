"""Insights in words: a row of marts.ai_insights as a section of a report, or as a document of its own. Pure.

A language model repeats what it read in titles, so its texts are untrusted, whatever was checked when they were stored.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from retention_platform.errors import ServiceError
from retention_platform.insights.schema import Assessment, Hypothesis, Insights, MomentFacts, Recommendation
from retention_platform.insights.store import insights_in
from retention_platform.report import words
from retention_platform.report.model import (
    Block,
    Bullets,
    Document,
    Heading,
    Inline,
    Paragraph,
    Prose,
    Strong,
    Text,
    Untrusted,
)
from retention_platform.report.queries import Row

#: Characters of one statement.
MAX_STATEMENT = 2000
#: Prose without any sign that a viewer of Markdown or HTML may act upon. Everything else is shown as untrusted text,
#: which where it looks like a link is code and hard to read.
_PROSE = re.compile(r"[^\W_](?:[^\W_]|[ ,;()%'’–?!/-]|\.(?![^\W\d])|:(?![^\W\d]))*")
_ACTED_UPON = re.compile(r"www|http|\bGH-\d|\b[0-9a-f]{7,40}\b|^\d+[.)]\s", re.IGNORECASE)
_TYPES = {
    "dropoff": "sudden fall",
    "chapter": "steady loss",
    "intro": "beginning",
    "outro": "end",
    "spike": "watched again",
    "dip": "skipped",
    "top_moment": "holds viewers",
}


def section(rows: Sequence[Row] | None) -> list[Block]:
    """The newest insights under a heading; nothing where there is no such mart."""
    if rows is None:
        return []
    heading = Heading("Analysis")
    if not rows:
        return [heading, Paragraph(("No analysis was made of this video yet.",))]
    try:
        return [heading, *blocks(insights_in(rows[0]))]
    except ServiceError:
        return [heading, Paragraph(("The analysis of this video was made by another version; the next replaces it.",))]


def document(made: Insights) -> Document:
    """Insights alone."""
    title: Text = (Untrusted(made.facts.title or made.video_id), ": insights")
    return Document(title, blocks(made))


def blocks(made: Insights) -> list[Block]:
    """All that insights say, the most important first."""
    analysis, facts = made.analysis, made.facts
    moments = {moment.moment_id: moment for moment in facts.moments}
    found: list[Block] = []
    if made.note:
        found.append(Paragraph((Strong("Note"), ": ", _said(made.note), "."), note=True))
    found += [
        Paragraph((Strong("In one line"), ": ", _said(analysis.headline))),
        Paragraph((Strong("Assessment"), f": {_assessed(analysis.assessment)}.")),
        Paragraph((_said(analysis.summary),)),
    ]
    if analysis.critical_moments:
        found += [
            Heading("Moments", level=3),
            Bullets(
                [
                    (*_where(moments.get(moment.moment_id)), f" ({_TYPES[moment.type]}): ", _said(moment.evidence))
                    for moment in analysis.critical_moments
                ]
            ),
        ]
    if analysis.hypotheses:
        found += [Heading("Why", level=3), Bullets([_hypothesis(one, moments) for one in analysis.hypotheses])]
    if analysis.recommendations:
        found += [Heading("What to change", level=3), Bullets([_advice(one) for one in analysis.recommendations])]
    if analysis.segment_differences:
        values = {segment.segment_id: segment.value for segment in facts.segments}
        found += [
            Heading("Who watches differently", level=3),
            Bullets(
                [
                    (Untrusted(values.get(one.segment_id, one.segment_id)), ": ", _said(one.statement))
                    for one in analysis.segment_differences
                ]
            ),
        ]
    if analysis.data_quality_warnings:
        found.append(Bullets([(Strong("Note"), ": ", _said(one.text)) for one in analysis.data_quality_warnings]))
    return [*found, Paragraph(_made(made))]


def _assessed(one: Assessment) -> str:
    against = {
        "catalogue": f"more viewers finish than of {one.percentile} % of the catalogue's videos of similar length",
        "benchmark": f"{one.completion_percent} % finish, a published benchmark is {one.benchmark_percent} %",
        "none": "nothing to compare it with",
    }[one.basis]
    views = words.plural(one.sample_size, "view")
    return f"{one.grade.replace('_', ' ')} ({against}; {views}; confidence {one.confidence})"


def _where(moment: MomentFacts | None) -> Text:
    if moment is None:
        return ("a moment",)
    when = Strong(f"{words.position(moment.start_second)} to {words.position(moment.end_second)}")
    return (when, " in chapter ", Untrusted(moment.chapter)) if moment.chapter else (when,)


def _hypothesis(one: Hypothesis, moments: dict[str, MomentFacts]) -> Text:
    moment = moments.get(one.moment_id)
    when = Strong(words.position(moment.start_second)) if moment else "a moment"
    return (
        when,
        f" ({one.cause.replace('_', ' ')}, confidence {one.confidence}): ",
        _said(one.statement),
        " For it: ",
        _said(one.evidence_for),
        " Against it: ",
        _said(one.evidence_against),
        " To find out: ",
        _said(one.how_to_test),
    )


def _advice(one: Recommendation) -> Text:
    bound = "" if one.max_views_recoverable is None else f"; at most {one.max_views_recoverable:,} views to win back"
    return (
        Strong(f"Priority {one.priority}"),
        ": ",
        _said(one.action),
        f" Effort {one.effort}{bound}. It worked if: ",
        _said(one.success_metric),
    )


def _made(made: Insights) -> Text:
    who: Text = (
        ("a language model, ", Untrusted(made.model), f" (prompt {made.prompt_version}),")
        if made.mode == "openai"
        else ("rules (", Untrusted(made.model), "), no language model,")
    )
    facts = f" from facts of version {made.facts.facts_version}."
    return ("Made by ", *who, f" on {words.when(made.made_at)}", facts)


def _said(text: str) -> Inline:
    """A statement: as it is where nothing in it could be acted upon."""
    if len(text) <= MAX_STATEMENT and _PROSE.fullmatch(text) and not _ACTED_UPON.search(text):
        return Prose(text, MAX_STATEMENT)
    return Untrusted(text, MAX_STATEMENT)
