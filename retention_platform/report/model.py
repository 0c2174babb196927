"""What a report is made of, whatever it is written as. Pure data: `markdown` and `page` write it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from retention_platform.report.untrusted import MAX_LENGTH
from retention_platform.report.words import NOTHING


@dataclass(frozen=True)
class Untrusted:
    """Text of whoever described the video or wrote the player: shown, never obeyed."""

    text: str
    #: Characters shown of it.
    limit: int = MAX_LENGTH


@dataclass(frozen=True)
class Prose(Untrusted):
    """Untrusted text in which whoever made this found no sign that a viewer acts upon: nothing is escaped."""


@dataclass(frozen=True)
class Strong:
    """Our own text, to be seen first."""

    text: str


@dataclass(frozen=True)
class Number:
    """A figure: what the marts say, and how it is put. HTML keeps both."""

    value: float | None
    text: str


#: How a figure is put.
Say = Callable[[float], str]


def number(value: Any, say: Say) -> Number:
    """A figure as the mart gave it; a dash where there is nothing to say."""
    return Number(None, NOTHING) if value is None else Number(value, say(value))


Inline = str | Untrusted | Strong | Number
#: A run of text; plain strings are our own words and hold no markup.
Text = tuple[Inline, ...]


@dataclass(frozen=True)
class Heading:
    """The title of a section (``level`` 2) or of a part of it (3)."""

    text: str
    level: int = 2


@dataclass(frozen=True)
class Paragraph:
    """A paragraph; ``note`` sets it apart as something to know before reading on."""

    text: Text
    note: bool = False


@dataclass(frozen=True)
class Bullets:
    """A list, in no particular order."""

    items: Sequence[Text]


@dataclass(frozen=True)
class Table:
    """Rows under column titles; columns after the first are figures unless named in ``words``."""

    columns: Sequence[str]
    rows: Sequence[Sequence[Text]]
    words: frozenset[int] = frozenset({0})


@dataclass(frozen=True)
class Mark:
    """A stretch of the video that is told in words, marked in the picture too."""

    start_second: int
    end_second: int
    kind: str


@dataclass(frozen=True)
class Curve:
    """The retention curve as a picture. ``points`` are rows of marts.retention_curve in the order of seconds."""

    points: Sequence[dict[str, Any]]
    duration_s: float
    marks: Sequence[Mark] = ()
    #: Start in seconds, and the title: untrusted.
    chapters: Sequence[tuple[float, str]] = ()
    alternative: str = "Retention curve"


@dataclass(frozen=True)
class Bars:
    """One bar a label, both our own: a day and its views."""

    labels: Sequence[str]
    values: Sequence[int]
    name: str


Block = Heading | Paragraph | Bullets | Table | Curve | Bars


@dataclass(frozen=True)
class Document:
    """A whole report."""

    title: Text
    blocks: Sequence[Block] = field(default_factory=tuple)
