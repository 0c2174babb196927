"""A document as Markdown (CommonMark with GitHub's tables). Pure.

The picture is a file beside, not a data URI: GitHub, GitLab, VS Code and Dagster's UI drop images from data URIs or
SVG in them, while a relative link works in all of these and in editors and converters. Where there is no place for a
file (the terminal, an API's answer), the curve is drawn in signs of plain text, which needs no viewer at all.
"""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import quote

from retention_platform.report import drawing
from retention_platform.report.model import (
    Block,
    Bullets,
    Curve,
    Document,
    Heading,
    Inline,
    Number,
    Paragraph,
    Prose,
    Strong,
    Table,
    Text,
    Untrusted,
)
from retention_platform.report.untrusted import markdown


def render(document: Document, picture: str | None = None) -> str:
    """The document; ``picture`` is the relative address of the curve's SVG, None draws it as text."""
    body = passage(document.blocks, picture)
    return "\n\n".join([f"# {_text(document.title)}", *([body] if body else [])]) + "\n"


def passage(blocks: Sequence[Block], picture: str | None = None) -> str:
    """Some blocks without a title of their own."""
    return "\n\n".join(part for part in (_block(block, picture) for block in blocks) if part)


def _block(block: Block, picture: str | None) -> str:
    if isinstance(block, Heading):
        return f"{'#' * block.level} {block.text}"
    if isinstance(block, Paragraph):
        return ("> " if block.note else "") + _text(block.text)
    if isinstance(block, Bullets):
        return "\n".join(f"- {_text(item)}" for item in block.items)
    if isinstance(block, Table):
        return _table(block)
    if picture is not None:
        what = drawing.described(block) if isinstance(block, Curve) else block.name
        return f"![{what}]({quote(picture, safe='/?=&')})"
    drawn = drawing.text_chart(block) if isinstance(block, Curve) else drawing.bars_chart(block)
    return f"```text\n{drawn}\n```"


def _table(table: Table) -> str:
    lines = [_row(list(table.columns))]
    lines.append(_row([":---" if number in table.words else "---:" for number in range(len(table.columns))]))
    lines += [_row([_text(cell) for cell in row]) for row in table.rows]
    return "\n".join(lines)


def _row(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _text(text: Text) -> str:
    return "".join(_inline(part) for part in text)


def _inline(part: Inline) -> str:
    if isinstance(part, Prose):
        return part.text
    if isinstance(part, Untrusted):
        return markdown(part.text, part.limit)
    if isinstance(part, Strong):
        return f"**{part.text}**"
    if isinstance(part, Number):
        return part.text
    return part
