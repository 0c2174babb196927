"""A document as one HTML page that needs nothing from anywhere: styles, curve and plotly.js are in it. Pure.

Every text is escaped where it is written. On top of that the page's own policy lets a browser run the two scripts
named by their hashes and nothing else, and load nothing, so that even a text that slipped through would do nothing.
Figures are <data> elements: what is read is rounded, ``value`` is the mart's own.
"""

from __future__ import annotations

import base64
import hashlib
import html
from collections.abc import Sequence
from typing import Any

from retention_platform.report import drawing, interactive
from retention_platform.report.model import (
    Bars,
    Block,
    Bullets,
    Curve,
    Document,
    Heading,
    Inline,
    Number,
    Paragraph,
    Strong,
    Table,
    Text,
    Untrusted,
)
from retention_platform.report.untrusted import markup, plain

_STYLE = """
:root { color-scheme: light; }
body { font: 16px/1.5 system-ui, sans-serif; color: #222; background: #fff; }
body { max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.7rem; line-height: 1.25; } h2 { margin-top: 2.2rem; border-bottom: 1px solid #ddd; }
table { border-collapse: collapse; margin: 1rem 0; } th, td { padding: .3rem .8rem; border-bottom: 1px solid #e5e5e5; }
th { text-align: right; } td { text-align: right; font-variant-numeric: tabular-nums; }
th.words, td.words { text-align: left; } td data { white-space: nowrap; } li { margin: .4rem 0; }
.note { background: #fff7e0; border-left: 4px solid #d9a400; padding: .5rem 1rem; }
.scroll { overflow-x: auto; } figure { margin: 1rem 0; } svg { max-width: 100%; height: auto; }
bdi { overflow-wrap: anywhere; }
@media print { body { max-width: none; margin: 0; } }
"""

# The drawing is there from the beginning and stays where scripts do not run; the interactive one takes its place.
_DRAW = """
for (const figure of document.querySelectorAll("figure[data-figure]")) {
  const said = JSON.parse(document.getElementById(figure.dataset.figure).textContent);
  const place = document.createElement("div");
  figure.append(place);
  Plotly.newPlot(place, said.data, said.layout, said.config).then(() => figure.querySelector("svg").remove());
}
"""


def render(document: Document, script: str | None = None) -> str:
    """The page. ``script`` is the relative address of a file that holds plotly.js; None puts it into the page."""
    drawn = [block for block in document.blocks if isinstance(block, Curve | Bars)]
    body = [f"<h1>{_text(document.title)}</h1>", *(_block(block, drawn) for block in document.blocks)]
    scripts, allowed = _scripts(drawn, script) if drawn else ([], ["'none'"])
    policy = (
        "default-src 'none'; base-uri 'none'; form-action 'none'; style-src 'unsafe-inline'; img-src data: blob:; "
        f"script-src {' '.join(allowed)}"
    )
    title = "".join(plain(part.text) if isinstance(part, Untrusted) else _words(part) for part in document.title)
    head = [
        '<meta charset="utf-8">',
        f'<meta http-equiv="Content-Security-Policy" content="{html.escape(policy)}">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{html.escape(title)}</title>",
        f"<style>{_STYLE}</style>",
    ]
    lines = ["<!doctype html>", '<html lang="en">', "<head>", *head, "</head>", "<body>", *body, *scripts]
    return "\n".join([*lines, "</body>", "</html>"]) + "\n"


def _scripts(drawn: Sequence[Curve | Bars], script: str | None) -> tuple[list[str], list[str]]:
    """The script elements, and what the policy has to allow for them."""
    elements = [
        f'<script type="application/json" id="figure-{number}">{interactive.script_json(_figure(block))}</script>'
        for number, block in enumerate(drawn)
    ]
    if script is None:
        library, allowed = interactive.plotly_js(), [_hash(interactive.plotly_js())]
        elements.append(f"<script>{library}</script>")
    else:
        # A page that is opened from a folder has no origin, and "self" is nobody.
        allowed = ["'self'", "file:"]
        elements.append(f'<script src="{html.escape(script)}"></script>')
    elements.append(f"<script>{_DRAW}</script>")
    return elements, [*allowed, _hash(_DRAW)]


def _hash(script: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"


def _figure(block: Curve | Bars) -> dict[str, Any]:
    return interactive.figure(block) if isinstance(block, Curve) else interactive.bars_figure(block)


def _block(block: Block, drawn: Sequence[Block]) -> str:
    if isinstance(block, Heading):
        return f"<h{block.level}>{html.escape(block.text)}</h{block.level}>"
    if isinstance(block, Paragraph):
        return f'<p class="note">{_text(block.text)}</p>' if block.note else f"<p>{_text(block.text)}</p>"
    if isinstance(block, Bullets):
        return "<ul>\n" + "\n".join(f"<li>{_text(item)}</li>" for item in block.items) + "\n</ul>"
    if isinstance(block, Table):
        return _table(block)
    number = next(number for number, other in enumerate(drawn) if other is block)
    drawing_of = drawing.svg(block) if isinstance(block, Curve) else drawing.bars_svg(block)
    return f'<figure data-figure="figure-{number}">\n{drawing_of}</figure>'


def _table(table: Table) -> str:
    def cells(element: str, row: Sequence[str]) -> str:
        return "".join(
            f'<{element} class="words">{cell}</{element}>'
            if number in table.words
            else f"<{element}>{cell}</{element}>"
            for number, cell in enumerate(row)
        )

    head = cells("th", [html.escape(column) for column in table.columns])
    rows = [f"<tr>{cells('td', [_text(cell) for cell in row])}</tr>" for row in table.rows]
    return "\n".join(
        [
            '<div class="scroll"><table>',
            f"<thead><tr>{head}</tr></thead>",
            "<tbody>",
            *rows,
            "</tbody>",
            "</table></div>",
        ]
    )


def _text(text: Text) -> str:
    return "".join(_inline(part) for part in text)


def _inline(part: Inline) -> str:
    if isinstance(part, Untrusted):
        # Its direction ends where it ends.
        return f"<bdi>{markup(part.text, part.limit)}</bdi>"
    if isinstance(part, Strong):
        return f"<strong>{html.escape(part.text)}</strong>"
    if isinstance(part, Number) and part.value is not None:
        return f'<data value="{part.value!r}">{html.escape(part.text)}</data>'
    return html.escape(_words(part))


def _words(part: str | Strong | Number) -> str:
    return part if isinstance(part, str) else part.text
