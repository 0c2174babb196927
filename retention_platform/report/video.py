"""The report of one video: facts in, document out. Pure; owns what is said and in what order, not how it is written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from retention_platform.report import insights, moments, words
from retention_platform.report.drawing import described
from retention_platform.report.facts import Facts
from retention_platform.report.model import (
    Block,
    Bullets,
    Curve,
    Document,
    Heading,
    Inline,
    Mark,
    Number,
    Paragraph,
    Say,
    Strong,
    Table,
    Text,
    Untrusted,
    number,
)
from retention_platform.report.queries import Row
from retention_platform.report.reasons import (
    MOMENTS_MIN_VIEWS,
    SIMILAR_LENGTH_PERCENT,
    SUFFICIENT_VIEWS,
    TENTATIVE_BELOW_VIEWS,
    without_dropoffs,
    without_views,
)

#: The headline figures: name, column of marts.engagement_summary, how it is put, and how a median of it is.
FIGURES: Sequence[tuple[str, str, Say, Say | None]] = (
    ("Views", "views", words.count, words.typical_count),
    ("Viewers", "unique_viewers", words.count, None),
    ("Engaged views (3 s and more)", "engaged_views", words.count, None),
    ("Watch time", "watch_time_s", words.length, None),
    ("Average view duration", "average_view_duration_s", words.length, words.length),
    ("Average percentage viewed", "average_view_percentage", words.percentage, words.percentage),
    ("Came to the end", "completion_rate", words.share, words.share),
    ("Watching at 0:03", "hook_retention_3s", words.share, words.share),
    ("Watching at 0:30", "intro_retention_30s", words.share, words.share),
    ("Views with a rewatch", "rewatch_rate", words.share, words.share),
    ("Seeks a view", "seeks_per_view", words.ratio, words.ratio),
    ("Most viewers at once", "peak_concurrent_viewers", words.count, None),
)
#: Values of a dimension told one by one; a player may report any number of them.
MAX_SEGMENTS = 12
_DIMENSIONS = {
    "device_type": "Device",
    "country": "Country",
    "traffic_source": "Traffic source",
    "viewer_type": "Viewers",
}
_QUALITY = {
    "implausible_sessions": ("Implausible sessions", "sessions", "played faster than any player can, left out"),
    "invalid_intervals": ("Invalid intervals", "intervals", "impossible for this video, left out"),
    "duplicate_messages": ("Duplicate messages", "messages", "events sent more than once, counted once"),
    "late_messages": ("Late messages", "messages", "stored over an hour after they happened, counted"),
}
#: The definitions of docs/metrics.md in short.
_DEFINITIONS = (
    ("View", "a session with at least one valid played interval, not played faster than any player can."),
    ("Watch time", "wall time, so a minute at double speed is half a minute. Rewatches count."),
    ("Average percentage viewed", "mean share of the video's length seen at least once; never above 100 %."),
    ("Came to the end", "played past the later of 30 s before the end and 95 % of the length."),
    (
        "Retention rate",
        "share of views that watched this second, with its 95 % Wilson interval. Who skips ahead is missing where they "
        "skipped, so the curve can rise.",
    ),
    ("Audience watch ratio", "times this second was played, by views; above 100 % where people go back."),
    (
        "Dropoff",
        "a hundredth of the video in which more views end than the seven stretches on either side predict: a "
        "beta-binomial test, with Benjamini-Hochberg at 5 % within the video, and an excess of 2 points of all views "
        f"and more. Tested from {MOMENTS_MIN_VIEWS} views on, and not at the beginning and the end, where every video "
        "loses viewers. Low from 2 points, medium from 5, high from 10.",
    ),
)


def document(facts: Facts, made_at: datetime) -> Document:
    """The whole report; ``made_at`` is when the marts were read."""
    title: Inline = Untrusted(facts.title) if facts.title else Untrusted(facts.video_id)
    return Document(
        title=("Retention report: ", title),
        blocks=[
            *_about(facts),
            *_headline(facts),
            *_curve(facts),
            *_dropoffs(facts),
            *moments.section(facts),
            *_segments(facts),
            *insights.section(facts.insights),
            *_quality(facts),
            *_method(facts),
            *_freshness(facts, made_at),
        ],
    )


def _about(facts: Facts) -> list[Block]:
    said: list[Text] = [("Video: ", Untrusted(facts.video_id))]
    if facts.category:
        said.append(("Category: ", Untrusted(facts.category)))
    if facts.published_at is not None:
        said.append((f"Published: {words.when(facts.published_at)}",))
    if facts.duration_s is None:
        said.append(("Length: unknown, since neither the catalogue nor a player told it",))
    else:
        length = Number(facts.duration_s, words.length(facts.duration_s))
        source = {
            "catalogue": "as the catalogue says",
            "reported": "as players reported",
            "inferred": "inferred from the furthest position played",
        }.get(facts.duration_source, facts.duration_source)
        said.append(("Length: ", length, f" ({source})"))
    blocks: list[Block] = [Bullets(said)]
    reason = without_views(facts.views)
    if reason is not None:
        blocks.append(Paragraph((Strong("No figures yet"), f": {reason.text}."), note=True))
    elif facts.views < SUFFICIENT_VIEWS:
        few = f": {words.plural(facts.views, 'view')}, fewer than {SUFFICIENT_VIEWS}. Any share below may be chance."
        blocks.append(Paragraph((Strong("Too few views to rely on"), few), note=True))
    return blocks


def _headline(facts: Facts) -> list[Block]:
    if not facts.views:
        return []
    summary, typical = facts.summary, facts.typical
    medians: Mapping[str, float] = typical.medians if typical else {}
    rows: list[Sequence[Text]] = []
    for name, column, say, say_typical in FIGURES:
        median = number(medians.get(column), say_typical) if say_typical else Number(None, words.NOTHING)
        rows.append(((name,), (number(summary.get(column), say),), (median,)))
    seen = number(summary.get("average_view_percentage"), words.percentage)
    ended = number(summary.get("completion_rate"), words.share)
    sentence: list[Inline] = [
        number(summary["views"], words.count),
        " view by " if facts.views == 1 else " views by ",
        number(summary["unique_viewers"], words.count),
        " viewer. The average view saw " if summary["unique_viewers"] == 1 else " viewers. The average view saw ",
        seen,
        " of the video",
        *_against(summary, medians, "average_view_percentage", words.percentage),
        ", and ",
        ended,
        " of views came to the end",
        *_against(summary, medians, "completion_rate", words.share),
        ".",
    ]
    return [
        Heading("In short"),
        Paragraph(tuple(sentence)),
        Table(("Figure", "This video", "Typical"), rows),
        Paragraph((_typical_is(facts),)),
    ]


def _against(summary: Mapping[str, Any], medians: Mapping[str, float], column: str, say: Say) -> list[Inline]:
    own, median = summary.get(column), medians.get(column)
    if own is None or median is None:
        return []
    said = say(median)
    if say(own) == said:
        return [" (as is typical)"]
    return [f" ({'above' if own > median else 'below'} the typical ", Number(median, said), ")"]


def _typical_is(facts: Facts) -> str:
    typical = facts.typical
    if typical is None:
        return (
            "Nothing is called typical: the catalogue has too few other videos with "
            f"{SUFFICIENT_VIEWS} views and more to compare with."
        )
    which = (
        f"of similar length (within {SIMILAR_LENGTH_PERCENT} %)"
        if typical.of_similar_length
        else "of any length, since too few are of similar length"
    )
    return (
        f"Typical is the median of the catalogue's {typical.videos} other videos {which} with {SUFFICIENT_VIEWS} views "
        "and more."
    )


def curve_of(facts: Facts) -> Curve:
    """The picture, with what the report tells of marked in it."""
    marks = [Mark(int(row["start_second"]), int(row["end_second"]), "dropoff") for row in facts.dropoffs]
    marks += moments.marks(facts.moments or ())
    curve = Curve(facts.curve, facts.duration_s or len(facts.curve), marks, facts.chapters)
    return Curve(curve.points, curve.duration_s, curve.marks, curve.chapters, described(curve))


def _curve(facts: Facts) -> list[Block]:
    blocks: list[Block] = [Heading("The retention curve")]
    if not facts.curve:
        reason = without_views(facts.views)
        why = reason.text if reason else "the curve of these views is being computed: refresh the marts and ask again"
        return [*blocks, Paragraph((f"No curve: {why}.",))]
    blocks.append(curve_of(facts))
    if facts.curve_views != facts.views:
        between = (
            "A refresh was between the curve and the summary: the curve is of "
            f"{words.plural(facts.curve_views, 'view')}, the figures above of {facts.views:,}."
        )
        blocks.append(Paragraph((between,), note=True))
    seconds = len(facts.curve)
    places = dict.fromkeys([0, *(seconds * quarter // 4 for quarter in (1, 2, 3)), seconds - 1])
    relative = any(row.get("relative_retention_performance") is not None for row in facts.curve)
    rows: list[Sequence[Text]] = []
    for place in places:
        row = facts.curve[place]
        low, high = number(row["ci_low"], words.share), number(row["ci_high"], words.share)
        cells: list[Text] = [
            (Number(place, words.position(place)),),
            (number(row["watching_views"], words.count),),
            (number(row["retention_rate"], words.share),),
            (low, " to ", high),
            (number(row["audience_watch_ratio"], words.share),),
        ]
        if relative:
            cells.append((number(row.get("relative_retention_performance"), words.ratio),))
        rows.append(cells)
    columns = ["At", "Watching", "Retention rate", "95 % interval", "Rewatches counted"]
    return [*blocks, Table([*columns, "Against similar videos"] if relative else columns, rows)]


def _dropoffs(facts: Facts) -> list[Block]:
    blocks: list[Block] = [Heading("Where people leave")]
    if not facts.dropoffs:
        reason = without_dropoffs(facts.views, facts.duration_s)
        return [*blocks, Paragraph((f"No significant dropoff: {reason.text}.",))]
    items: list[Text] = []
    for row in facts.dropoffs:
        items.append(
            (
                *moments.stretch(row),
                f", {row['severity']}: ",
                number(row["views_lost"], words.count),
                " of ",
                number(row["at_risk"], words.count),
                " views that came here ended here, where the stretches around it predict ",
                number(row["expected_views_lost"], words.decimal),
                ". That is ",
                number(row["excess_points"], words.decimal),
                " points of all views more than expected (q = ",
                number(row["q_value"], words.probability),
                ").",
            )
        )
    if any(row["tentative"] for row in facts.dropoffs):
        items.append((f"Tentative, since there are fewer than {TENTATIVE_BELOW_VIEWS} views: likely, not certain.",))
    return [*blocks, Bullets(items)]


def _segments(facts: Facts) -> list[Block]:
    if facts.segments is None:
        return []
    blocks: list[Block] = [Heading("Who watches how")]
    if not facts.segments:
        return [*blocks, Paragraph(("No segments: there are no views.",))]
    by_dimension: dict[str, list[Row]] = {}
    for row in facts.segments:
        by_dimension.setdefault(str(row["dimension"]), []).append(row)
    for dimension, rows in by_dimension.items():
        blocks.append(Heading(_DIMENSIONS.get(dimension, dimension), level=3))
        blocks.append(_segment_table(rows[:MAX_SEGMENTS]))
        if len(rows) > MAX_SEGMENTS:
            rest = sum(int(row["views"]) for row in rows[MAX_SEGMENTS:])
            others = f"{len(rows) - MAX_SEGMENTS} more with {words.plural(rest, 'view')} together."
            blocks.append(Paragraph((others,)))
    few = f"Shares are of the segment's own views; (few) marks segments with fewer than {SUFFICIENT_VIEWS}."
    return [*blocks, Paragraph((few,))]


def _segment_table(rows: Sequence[Row]) -> Table:
    cells: list[Sequence[Text]] = []
    for row in rows:
        name: Text = (Untrusted(str(row["value"])),) if row["value"] else ("not said by the player",)
        cells.append(
            (
                name if row["is_sufficient"] else (*name, " (few)"),
                (number(row["views"], words.count),),
                (number(row["share_of_views"], words.share),),
                (number(row["average_view_duration_s"], words.length),),
                (number(row["average_view_percentage"], words.percentage),),
                (number(row["completion_rate"], words.share),),
                (number(row["intro_retention_30s"], words.share),),
            )
        )
    columns = ("", "Views", "Of all views", "Average duration", "Average viewed", "Came to the end", "Watching at 0:30")
    return Table(columns, cells)


def _quality(facts: Facts) -> list[Block]:
    summary = facts.summary
    blocks: list[Block] = [Heading("How good the data is")]
    rows: list[Sequence[Text]] = []
    if facts.quality is not None:
        for row in facts.quality:
            name, whole, meaning = _QUALITY.get(str(row["figure"]), (str(row["figure"]), "rows", ""))
            found, out_of = int(row["found"]), row["out_of"]
            of = ("of ", number(out_of, words.count), f" {whole}") if out_of else (words.NOTHING,)
            part = Number(found / out_of, words.share(found / out_of)) if out_of else Number(None, words.NOTHING)
            rows.append(((name,), (number(found, words.count),), of, (part,), (meaning,)))
    else:
        for figure in ("implausible_sessions", "invalid_intervals"):
            name, _, meaning = _QUALITY[figure]
            nothing = Number(None, words.NOTHING)
            rows.append(((name,), (number(summary.get(figure), words.count),), (nothing,), (nothing,), (meaning,)))
    sessions = number(summary.get("sessions"), words.count)
    blocks.append(
        Paragraph((sessions, " sessions were recorded, and ", number(facts.views, words.count), " are views."))
    )
    if rows:
        blocks.append(Table(("Figure", "Found", "Out of", "Share", "What it is"), rows, words=frozenset({0, 4})))
    return blocks


def _method(facts: Facts) -> list[Block]:
    items: list[Text] = [(Strong(name), f": {meaning}") for name, meaning in _DEFINITIONS]
    if any(row.get("relative_retention_performance") is not None for row in facts.curve):
        meaning = "rank of the last 10 s' survival among videos of similar length; 0.5 is the median, 1 the best."
        items.append((Strong("Against similar videos"), f": {meaning}"))
    items.append((f"{words.NOTHING} is where there is nothing to say; 0 is a measured zero.",))
    return [Heading("What the figures mean"), Bullets(items)]


def _freshness(facts: Facts, made_at: datetime) -> list[Block]:
    summary = facts.summary
    said: list[Text] = [(f"Read from the marts: {words.when(made_at)}",)]
    for name, column in (
        ("Marts computed", "computed_at"),
        ("Newest event in them was stored", "last_ingested_at"),
        ("Earliest event of the video", "first_event_at"),
        ("Latest event of the video", "last_event_at"),
    ):
        moment = summary.get(column)
        said.append((f"{name}: {words.when(moment) if moment is not None else words.NOTHING}",))
    return [Heading("How fresh this is"), Bullets(said)]
