"""Text that somebody else wrote (titles, chapters, ids, names) made harmless for what is written here.

Owns how such text goes into Markdown, HTML, SVG and Plotly. The document (`model`) says which is.
"""

from __future__ import annotations

import html
import re
import unicodedata

#: An id is at most this long, so that it is never cut and can be copied.
MAX_LENGTH = 256
#: Joiners that Indic scripts and emoji are spelled with; every other invisible sign goes: it hides text or turns it.
_JOINERS = "\u200c\u200d"
_REPLACED = "\ufffd"

# What a Markdown viewer may make something of although every sign is escaped, because it looks for it in the text and
# not in the source. A text with such a thing in it is shown as code, where it is left alone.
_ACTED_UPON = re.compile(
    r"""
      @ | :// | www\. | \$           # mail addresses and mentions, links, formulas
    | \.\w                           # example.com
    | :\S                            # :emoji:, mailto:
    | \#\w | \bGH-\d                 # issues
    | \b[0-9a-f]{7,40}\b             # commits
    """,
    re.VERBOSE | re.IGNORECASE,
)
# Signs that mean something in some Markdown; points, brackets and colons only where a list could begin with them.
_MEANT = re.compile(r"([!#*+=\[\\\]^_`{|}~]|(?<!\w)-|-(?!\w)|^:|(?<=^\d)[.)]|(?<=^\d\d)[.)])")


def plain(text: str, limit: int = MAX_LENGTH) -> str:
    """One line without control signs, signs that turn the direction, or invisible ones, cut to ``limit`` characters.

    A text of which nothing can be seen is one sign that can.
    """
    kept = "".join(_kept(sign) for sign in text)
    line = " ".join(kept.split()) or (_REPLACED if text else "")
    return line if len(line) <= limit else line[: limit - 1].rstrip() + "…"


def _kept(sign: str) -> str:
    category = unicodedata.category(sign)
    if category in ("Cc", "Zl", "Zp"):
        return " "
    if category == "Cf" and sign not in _JOINERS:
        return ""
    return _REPLACED if category == "Cs" else sign


def markdown(text: str, limit: int = MAX_LENGTH) -> str:
    """The text so that any Markdown viewer shows just its characters, in a paragraph, a heading, a list or a table."""
    line = plain(text, limit)
    if not line:
        return ""
    if _ACTED_UPON.search(line):
        return _code(line)
    # Entities, not backslashes, where old Markdown would see HTML: it escapes other signs only.
    return _MEANT.sub(r"\\\1", html.escape(line, quote=False))


def _code(line: str) -> str:
    # Viewers do not agree on how a table's cell holds this sign in code, so its likeness stands in.
    line = line.replace("|", "\u2223")
    longest = max((len(run) for run in re.findall("`+", line)), default=0)
    fence = "`" * (longest + 1)
    space = " " if line[0] == "`" or line[-1] == "`" else ""
    return f"{fence}{space}{line}{space}{fence}"


def markup(text: str, limit: int = MAX_LENGTH) -> str:
    """The text for HTML and SVG, in elements and in quoted attributes."""
    return html.escape(plain(text, limit))


def plotly_text(text: str, limit: int = 60) -> str:
    """The text for a label of a Plotly figure, which reads a few HTML tags and entities in it."""
    return html.escape(plain(text, limit), quote=False)
