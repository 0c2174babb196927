"""Key moments in words: rows of marts.key_moments, told by their kind. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from retention_platform.report import words
from retention_platform.report.model import (
    Block,
    Bullets,
    Heading,
    Inline,
    Mark,
    Number,
    Paragraph,
    Strong,
    Text,
    Untrusted,
    number,
)
from retention_platform.report.queries import Row
from retention_platform.report.reasons import MOMENTS_MIN_VIEWS, TENTATIVE_BELOW_VIEWS

if TYPE_CHECKING:
    from retention_platform.report.facts import Facts

#: Kinds that are marked in the picture; the intro and the outro are where every video has them.
_MARKED = ("spike", "dip", "top_moment")


def marks(rows: Sequence[Row]) -> list[Mark]:
    """What the picture marks."""
    return [
        Mark(int(row["start_second"]), int(row["end_second"]), str(row["kind"]))
        for row in rows
        if row["kind"] in _MARKED
    ]


def stretch(row: Row) -> Text:
    """From when to when, and the chapter. ``end_second`` is the first second after it."""
    start, end, chapter = int(row["start_second"]), int(row["end_second"]), row.get("chapter")
    when = Strong(f"{words.position(start)} to {words.position(end)}")
    return (when, " in chapter ", Untrusted(str(chapter))) if chapter else (when,)


def section(facts: Facts) -> list[Block]:
    """The key moments of a video; nothing where that mart is not built."""
    if facts.moments is None:
        return []
    blocks: list[Block] = [Heading("Key moments")]
    if not facts.moments:
        few = f": they are looked for from {MOMENTS_MIN_VIEWS} views on" if facts.views < MOMENTS_MIN_VIEWS else ""
        return [*blocks, Paragraph((f"No key moments{few}.",))]
    items: list[Text] = [(*stretch(row), ": ", *_told(row), ".") for row in facts.moments]
    if any(row["tentative"] for row in facts.moments):
        items.append((f"Tentative, since there are fewer than {TENTATIVE_BELOW_VIEWS} views: likely, not certain.",))
    return [*blocks, Bullets(items)]


def _told(row: Row) -> Text:
    """What the moment is, by its kind; magnitudes are points, a hundredth of what the level is a share of."""
    level, points = number(row["level"], words.share), number(row["magnitude"], words.decimal)
    at = f"most at {words.position(row['peak_second'])}" if row.get("peak_second") is not None else "most"
    kind = str(row["kind"])
    if kind == "intro":
        watching: Text = (", and ", level, " are watching at 0:30") if level.value is not None else ()
        return ("the intro loses ", points, " points of all views", *_between(row), *watching)
    if kind == "outro":
        return ("the outro loses ", points, " points of all views", *_between(row), ", and ", level, " watch the end")
    if kind == "spike":
        return (f"watched again, {at}: the rewatch ratio is ", level, ", ", *_above(points, row))
    if kind == "dip":
        return (f"skipped, {at}: the skip rate is ", level, ", ", *_above(points, row))
    if kind == "top_moment":
        saved: Text = (points, " points of all views", *_between(row), " more stay than at the video's median rate")
        return ("holds viewers best: ", *saved)
    return (kind.replace("_", " "), ", ", points, " points", *_between(row))


def _above(points: Number, row: Row) -> Text:
    return (points, " points", *_between(row), " above what is around it")


def _between(row: Row) -> tuple[Inline, ...]:
    low, high = (number(row[name], words.decimal) for name in ("magnitude_low", "magnitude_high"))
    return (" (95 % interval ", low, " to ", high, ")") if low.value is not None and high.value is not None else ()
