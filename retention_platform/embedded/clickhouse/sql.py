"""What must be known of a statement's text: where an INSERT's data begins, which format, where a result may go.

A lexer and a few questions, pure functions over bytes. What a statement means, and whether it may run, is the
engine's to say.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
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
#: What stands behind a name or a value in a query, so that a FORMAT before it is a name too.
_NOT_FORMATS = {b"from", b"as", b"where", b"group", b"order", b"limit", b"union", b"and", b"or", b"in", b"is", b"like"}
#: How another file of this process is named where a path is asked for.
DESCRIPTOR = "/dev/fd/{}"


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

    #: ``INSERT INTO table (columns)``; when the data goes through ``input()``, all up to its opening bracket's end.
    into: str
    #: ``SETTINGS …``, or nothing
    settings: str
    format: str
    #: The offset, in bytes, at which the data begins.
    data: int
    #: Of ``INSERT … SELECT … FROM input('…')``: all behind the opening bracket of ``input(``.
    behind_input: str | None = None

    def from_descriptor(self, descriptor: int) -> str:
        """The statement that reads the data from a pipe or file of this process instead."""
        path = quote(DESCRIPTOR.format(descriptor))
        if self.behind_input is not None:
            comma = "" if self.behind_input.lstrip().startswith(")") else ", "
            return f"{self.into}file({path}, {quote(self.format)}{comma}{self.behind_input}"
        # On lines of their own: a comment may end the part before.
        return f"{self.into}\nfrom infile {path} compression 'none'\n{self.settings}\nformat {self.format}"


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
    """The INSERT at the beginning of ``text`` that takes data (FORMAT, VALUES, ``input()``); None for anything else."""
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
            return _with_input(text, stream)
        if token.is_word(b"settings"):
            settings = settings or token
        if token.text == b"(" and _is_query_in_brackets(stream):
            return _with_input(text, stream)
        token = next(stream, None)
    return None


def _with_input(text: bytes, stream: Iterator[Token]) -> Insert | None:
    """The INSERT whose query, of which ``stream`` is the rest, reads its data by ``input()``; None when it does not."""
    call: tuple[Token, Token] | None = None
    before: Token | None = None
    for token in stream:
        if token.text == b";" and token.depth <= 0:
            break
        if call is None and before is not None and before.kind == "word" and before.text.lower() == b"input":
            call = (before, token) if token.text == b"(" else None
        if call and token.is_word(b"format") and before and (before.text == b")" or before.kind != "symbol"):
            named = next(stream, None)
            if named is None:
                return None
            if named.kind == "word" and named.text.lower() not in _NOT_FORMATS:
                word, bracket = call
                return Insert(
                    into=_text(text[: word.start]),
                    settings="",
                    format=_text(named.text),
                    data=_data_after(text, named.end),
                    behind_input=_text(text[bracket.end : token.start]),
                )
            before = named
            continue
        before = token
    return None


def _data_after(text: bytes, end: int) -> int:
    """Where data begins behind the name of its format: as the server, blanks and at most one line break are no data."""
    blanks = re.compile(rb"[ \t\f]*\r?\n?").match(text, end)
    return blanks.end() if blanks else end


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
        name, data = token.text, _data_after(text, token.end)
    head = settings.start if settings else keyword.start
    return Insert(
        into=_text(text[:head]).strip(),
        settings=_text(text[head : keyword.start]).strip(),
        format=_text(name),
        data=data,
    )


@dataclass(frozen=True)
class Shape:
    """What one look at a whole statement tells."""

    statement: bytes
    #: The first word, in lower case; empty when it begins with something else or is blank.
    first: str
    #: Nothing but blanks, comments and semicolons?
    blank: bool
    #: Nothing but that behind the first statement?
    single: bool
    #: The output format it names at its end.
    format: str | None
    #: ``INFILE`` or ``OUTFILE`` when it reads or writes a file of the server's machine by them, or empty.
    file: str
    #: Where the result may be redirected, and where the statement ends: offsets in bytes.
    target: int
    end: int

    @property
    def query(self) -> bytes:
        """The statement without the format of its result and what follows."""
        return self.statement[: self.target]

    @property
    def tail(self) -> bytes:
        """The format of the result and its settings."""
        return self.statement[self.target : self.end]

    def redirected(self, descriptor: int, output: str) -> bytes:
        """The statement with its result written to a pipe of this process, in ``output`` unless it names a format.

        What the engine does not take there (``SHOW … SETTINGS``) is no statement any more: for the caller to see.
        """
        into = f"\ninto outfile {quote(DESCRIPTOR.format(descriptor))} truncate compression 'none'\n".encode()
        return self.query + into + (self.tail or f"format {output}".encode())


def format_of(statement: bytes) -> str | None:
    """The output format that a statement names at its end, if any."""
    return shape_of(statement).format


def shape_of(statement: bytes) -> Shape:
    """Look at a statement. INSERTs that take data are to be given without it."""
    first, file, end = "", "", None
    single, settled = True, False
    named: tuple[Token, Token] | None = None
    before: Token | None = None
    for token in tokens(statement):
        if token.text == b";" and token.depth <= 0:
            end = token.start if end is None else end
        elif end is not None:
            single = False
            break
        if end is not None:
            continue
        if before is None:
            first = _text(token.text).lower() if token.kind == "word" else ""
        elif before.is_word(b"from") and token.is_word(b"infile"):
            file = "INFILE"
        elif before.is_word(b"into") and token.is_word(b"outfile"):
            file = "OUTFILE"
        if named and not settled:
            # Only its settings may follow the format of a result.
            settled = token.is_word(b"settings")
            named = named if settled else None
        if not settled and before is not None and before.is_word(b"format") and token.kind == "word":
            named = (before, token)
        before = token
    end = len(statement) if end is None else end
    return Shape(
        statement,
        first=first,
        blank=before is None and single,
        single=single,
        format=_text(named[1].text) if named else None,
        file=file,
        target=named[0].start if named else end,
        end=end,
    )


def split_list(text: str) -> list[str]:
    """The parts of a list between its commas, those in brackets and strings apart."""
    data = text.encode("utf-8", "surrogateescape")
    commas = [token.start for token in tokens(data) if token.text == b"," and token.depth == 0]
    bounds = zip([0, *(comma + 1 for comma in commas)], [*commas, len(data)], strict=True)
    return [_text(data[start:end]).strip() for start, end in bounds]


def with_names(statement: bytes, names: Mapping[tuple[bytes, ...], bytes]) -> bytes:
    """The statement with sequences of tokens, given in lower case and without quotes, put otherwise.

    Only words and quoted names may match, and the symbols between them; strings and comments are left alone.
    """
    longest = max(map(len, names))
    window: list[Token] = []
    pieces, at = [], 0
    for token in tokens(statement):
        window = [*window, token][-longest:]
        for size in range(len(window), 0, -1):
            replacement = names.get(tuple(map(_plain_name, window[-size:])))
            if replacement is not None:
                pieces += [statement[at : window[-size].start], replacement]
                at = token.end
                window = []
                break
    return b"".join([*pieces, statement[at:]])


def _plain_name(token: Token) -> bytes:
    if token.kind == "name":
        return token.text[1:-1].lower()
    return token.text.lower() if token.kind in ("word", "symbol") else b""


def is_kill(statement: bytes) -> bool:
    """Whether it is a KILL QUERY."""
    stream = tokens(statement)
    first, second = next(stream, None), next(stream, None)
    return first is not None and second is not None and first.is_word(b"kill") and second.is_word(b"query")


def first_word(statement: bytes) -> str:
    """The first word, in lower case; empty when the statement begins with something else or is blank."""
    token = next(tokens(statement), None)
    return _text(token.text).lower() if token is not None and token.kind == "word" else ""


def quote(value: str) -> str:
    """A string literal."""
    return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"


def quote_name(name: str) -> str:
    """A quoted identifier."""
    return "`" + name.replace("\\", "\\\\").replace("`", "\\`") + "`"


def unquote(token: Token) -> str:
    """What a name or a string stands for."""
    if token.kind not in ("name", "string") or token.text.startswith(b"$"):
        return _text(token.text)
    mark = token.text[:1]
    return _text(re.sub(rb"\\(.)|" + mark + mark, lambda found: found[1] or mark, token.text[1:-1], flags=re.DOTALL))


def _text(value: bytes) -> str:
    return value.decode("utf-8", "surrogateescape")
