"""What the HTTP side must know of a statement's text: is it an INSERT with data behind it, one statement, which format.

A lexer and three questions, pure functions over bytes; what a statement means is left to the engine.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

_TOKEN = re.compile(
    rb"""
    (?P<blank>   \s+ | --[^\n]* | \#[\ !][^\n]* | /\*.*?\*/ )
  | (?P<string>  '(?:[^'\\]|\\.|'')*' | \$(?P<tag>\w*)\$.*?\$(?P=tag)\$ )
  | (?P<name>    `(?:[^`\\]|\\.|``)*` | "(?:[^"\\]|\\.|"")*" )
  | (?P<word>    [A-Za-z_]\w* )
  | (?P<number>  [0-9][\w.]* )
  | (?P<symbol>  . )
    """,
    re.DOTALL | re.VERBOSE,
)
_OPEN, _CLOSED = b"([{", b")]}"
_QUERY_WORDS = {b"select", b"with", b"from"}


@dataclass(frozen=True)
class Token:
    """A piece of SQL that is neither blank nor comment, and how many brackets it is in."""

    kind: str
    text: bytes
    start: int
    end: int
    depth: int

    def is_word(self, *words: bytes) -> bool:
        """Whether it is one of these words (given in lower case), outside of brackets."""
        return self.kind == "word" and self.depth == 0 and self.text.lower() in words


@dataclass(frozen=True)
class Insert:
    """An INSERT whose data follows its text."""

    #: ``INSERT INTO table (columns)``
    into: str
    #: ``SETTINGS …``, or nothing
    settings: str
    format: str
    #: The offset, in bytes, at which the data begins.
    data: int

    def from_file(self, path: str) -> str:
        """The statement that reads the data from a file of this machine instead."""
        # On lines of their own: a comment may end the part before.
        return f"{self.into}\nfrom infile {quote(path)} compression 'none'\n{self.settings}\nformat {self.format}"


def tokens(text: bytes) -> Iterator[Token]:
    """The tokens of ``text``, lazily: data behind an INSERT is not looked at."""
    depth = 0
    for match in _TOKEN.finditer(text):
        kind = match.lastgroup or "symbol"
        if kind == "tag":
            kind = "string"
        if kind == "blank":
            continue
        token = match.group()
        if token in _CLOSED:
            depth -= 1
        yield Token(kind, token, match.start(), match.end(), depth)
        if token in _OPEN:
            depth += 1


def insert_of(text: bytes) -> Insert | None:
    """The INSERT at the beginning of ``text`` that takes data (FORMAT or VALUES); None for anything else."""
    stream = tokens(text)
    token = next(stream, None)
    if token is None or not token.is_word(b"insert"):
        return None
    token = _after_target(stream)
    settings: Token | None = None
    while token is not None and token.text != b";":
        if token.is_word(b"values", b"format"):
            return _with_data(text, token, stream, settings)
        if token.is_word(*_QUERY_WORDS):
            return None
        if token.is_word(b"settings"):
            settings = settings or token
        if token.text == b"(" and _is_query_in_brackets(stream):
            return None
        token = next(stream, None)
    return None


def _is_query_in_brackets(stream: Iterator[Token]) -> bool:
    """Whether a query follows the opening bracket; if it is a list of columns, read over it."""
    token = next(stream, None)
    if token is None or token.text in (b"(", b")"):
        return token is not None and token.text == b"("
    following = next(stream, None)
    if following is None:
        return False
    # A column may be called like a keyword; it stands alone.
    if token.kind == "word" and token.text.lower() in _QUERY_WORDS and following.text not in (b",", b")"):
        return True
    while following is not None and following.depth > 0:
        following = next(stream, None)
    return False


def _after_target(stream: Iterator[Token]) -> Token | None:
    """Read over ``[INTO] [TABLE] [FUNCTION] name[.name]``; returns the token behind it."""
    token = next(stream, None)
    for word in (b"into", b"table", b"function"):
        if token is not None and token.is_word(word):
            token = next(stream, None)
    # A table may be called like a keyword, so its name is told by its place.
    if token is not None and token.text == b"{":
        while token is not None and not (token.text == b"}" and token.depth == 0):
            token = next(stream, None)
    token = next(stream, None)
    while token is not None and token.text == b".":
        next(stream, None)
        token = next(stream, None)
    return token


def _with_data(text: bytes, keyword: Token, stream: Iterator[Token], settings: Token | None) -> Insert | None:
    if keyword.is_word(b"values"):
        name, data = b"Values", keyword.end
    else:
        token = next(stream, None)
        if token is None or token.kind != "word":
            return None
        # As the server: blanks, then at most one line break, are not data.
        blanks = re.compile(rb"[ \t\f]*\r?\n?").match(text, token.end)
        name, data = token.text, blanks.end() if blanks else token.end
    head = settings.start if settings else keyword.start
    return Insert(
        into=_text(text[:head]).strip(),
        settings=_text(text[head : keyword.start]).strip(),
        format=_text(name),
        data=data,
    )


def format_of(statement: bytes) -> str | None:
    """The output format that a statement names at its end, if any."""
    found: Token | None = None
    before: Token | None = None
    settled = False
    for token in tokens(statement):
        if found is not None and not settled:
            settled = token.is_word(b"settings") or token.text == b";"
            if not settled:
                found = None
        if not settled and before is not None and before.is_word(b"format") and token.kind == "word":
            found = token
        before = token
    return _text(found.text) if found else None


def is_single(statement: bytes) -> bool:
    """Whether nothing but blanks, comments and semicolons follows the first statement."""
    ended = False
    for token in tokens(statement):
        if token.text == b";" and token.depth <= 0:
            ended = True
        elif ended:
            return False
    return True


def first_word(statement: bytes) -> str:
    """The first word, in lower case; empty when the statement begins with something else or is blank."""
    token = next(tokens(statement), None)
    return _text(token.text).lower() if token is not None and token.kind == "word" else ""


def is_blank(statement: bytes) -> bool:
    """Whether there is nothing but blanks, comments and semicolons."""
    return all(token.text == b";" for token in tokens(statement))


def quote(value: str) -> str:
    """A string literal."""
    return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"


def quote_name(name: str) -> str:
    """A quoted identifier."""
    return "`" + name.replace("\\", "\\\\").replace("`", "\\`") + "`"


def _text(value: bytes) -> str:
    return value.decode("utf-8", "surrogateescape")
