"""Key moments in words: rows of marts.key_moments, told by their kind. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from retention_platform.report import words
from retention_platform.report.model import Block, Bullets, Heading, Mark, Number, Paragraph, Strong, Text, Untrusted
from retention_platform.report.queries import Row
from retention_platform.report.reasons import MOMENTS_MIN_VIEWS, TENTATIVE_BELOW_VIEWS

if TYPE_CHECKING:
    from retention_platform.report.facts import Facts

#: What each kind says about its stretch.
_KINDS = {
    "intro": "the intro",
    "outro": "the outro",
    "spike": "is watched again more than what is around it",
    "dip": "is skipped more than what is around it",
    "top_moment": "holds viewers best: they leave at less than half the usual rate",
}
#: Kinds that are marked in the picture; the intro and the outro are where every video has them.
_MARKED = ("spike", "dip", "top_moment")


def kind_of(row: Row) -> str:
    """The kind, spelled as an identifier."""
    return str(row["kind"]).replace(" ", "_")


def marks(rows: Sequence[Row]) -> list[Mark]:
    """What the picture marks."""
    return [
        Mark(int(row["start_second"]), int(row["end_second"]), kind_of(row)) for row in rows if kind_of(row) in _MARKED
    ]


def section(facts: Facts) -> list[Block]:
    """The key moments of a video; nothing where that mart is not built."""
    if facts.moments is None:
        return []
    blocks: list[Block] = [Heading("Key moments")]
    if not facts.moments:
        few = f": they are looked for from {MOMENTS_MIN_VIEWS} views on" if facts.views < MOMENTS_MIN_VIEWS else ""
        return [*blocks, Paragraph((f"No key moments{few}.",))]
    items = [_told(row) for row in facts.moments]
    if any(row.get("tentative") for row in facts.moments):
        items.append((f"Tentative, since there are fewer than {TENTATIVE_BELOW_VIEWS} views: likely, not certain.",))
    return [*blocks, Bullets(items)]


def _told(row: Row) -> Text:
    start, end, kind = int(row["start_second"]), int(row["end_second"]), kind_of(row)
    chapter: Text = (" in chapter ", Untrusted(str(row["chapter"]))) if row.get("chapter") else ()
    magnitude = row.get("magnitude")
    lost: Text = ()
    if kind in ("intro", "outro") and magnitude is not None:
        lost = (", which loses ", Number(magnitude, words.share(magnitude)), " of views")
    return (
        Strong(f"{words.position(start)} to {words.position(end)}"),
        *chapter,
        f": {_KINDS.get(kind, kind.replace('_', ' '))}",
        *lost,
        " (not confirmed by resampling)" if row.get("confirmed") is False else "",
        ".",
    )
