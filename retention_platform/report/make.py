"""A report from rows: the one door for the command, the API and Dagster."""

from __future__ import annotations

from datetime import datetime
from enum import Enum

from retention_platform.report import drawing, markdown, page, video
from retention_platform.report.facts import facts_of
from retention_platform.report.model import Bars, Curve, Document
from retention_platform.report.queries import Rows


class Format(str, Enum):
    """What a report can be had as. SVG is its picture alone."""

    MARKDOWN = "md"
    HTML = "html"
    SVG = "svg"


MEDIA_TYPES = {
    Format.MARKDOWN: "text/markdown; charset=utf-8",
    Format.HTML: "text/html; charset=utf-8",
    Format.SVG: "image/svg+xml",
}


def report_for(
    rows: Rows,
    video_id: str,
    wanted: Format = Format.MARKDOWN,
    *,
    made_at: datetime,
    picture: str | None = None,
    script: str | None = None,
) -> str:
    """The report of one video from the rows that `queries.sections` names, read at ``made_at``.

    ``picture`` is where Markdown finds the SVG (a relative address; None draws the curve as text), ``script`` where
    HTML finds plotly.js (None puts it into the page). Raises UnknownVideo when the rows hold no such video.
    """
    return written(video.document(facts_of(rows, video_id), made_at), wanted, picture=picture, script=script)


def written(document: Document, wanted: Format, *, picture: str | None = None, script: str | None = None) -> str:
    """A document as the format that is wanted."""
    if wanted is Format.HTML:
        return page.render(document, script)
    if wanted is Format.SVG:
        return picture_of(document) or drawing.svg(Curve([], 1))
    return markdown.render(document, picture if picture_of(document) else None)


def picture_of(document: Document) -> str | None:
    """The document's picture as SVG; None when it has none."""
    for block in document.blocks:
        if isinstance(block, Curve):
            return drawing.svg(block)
        if isinstance(block, Bars):
            return drawing.bars_svg(block)
    return None
