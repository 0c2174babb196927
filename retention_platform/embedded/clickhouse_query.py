"""ClickHouse's HTTP conventions as pure functions: what a request asks, what settings it carries, what a code means."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

#: URL parameters that speak to the HTTP interface, not to the engine.
INTERFACE_PARAMETERS = frozenset(
    {
        *("query", "database", "user", "password", "query_id", "session_id", "session_timeout", "session_check"),
        *("default_format", "compress", "decompress", "enable_http_compression", "http_zlib_compression_level"),
        *("wait_end_of_query", "buffer_size", "send_progress_in_http_headers", "quota_key", "role", "stacktrace"),
        *("http_headers_progress_interval_ms", "client_protocol_version", "add_http_cors_header"),
        *("cancel_http_readonly_queries_on_client_close", "close_session", "output_format_write_statistics_in_headers"),
    }
)

#: Engine codes that are not the server's fault, as the server's own HTTP interface maps them.
_STATUS = {
    **dict.fromkeys((192, 193, 194, 516), 403),
    **dict.fromkeys((497, 164, 452), 403),
    **dict.fromkeys((6, 26, 27, 38, 41, 43, 53, 62, 70, 72, 130, 131, 349, 386, 420, 441), 400),
    **dict.fromkeys((46, 47, 50, 56, 60, 73, 81, 115, 152, 160, 36), 404),
    **dict.fromkeys((119, 120, 209, 210, 76), 503),
    159: 408,
    229: 413,
    48: 501,
    373: 500,
    411: 411,
}

_INSERT = re.compile(
    r"\s*(?P<into>insert\s+into\s+.*?)"
    r"(?P<settings>\s+settings\s+[^'\"()]*?(?:'[^']*'[^'\"()]*?)*?)?"
    # One line break ends the statement; a second one may be the first byte of binary data.
    r"\s+format\s+(?P<format>\w+)[ \t\r]*;?[ \t\r]*(?:\n|$|(?=\W))",
    re.IGNORECASE | re.DOTALL,
)
_INSERT_WORD = re.compile(r"\s*(?:/\*.*?\*/\s*|--[^\n]*\n\s*)*insert\b", re.IGNORECASE | re.DOTALL)
_INSERT_VALUES = re.compile(r"\s*(?P<into>insert\s+into\s+.*?)\s+values\s*;?\s*$", re.IGNORECASE | re.DOTALL)
_TRAILING_FORMAT = re.compile(r"\bformat\s+(?P<format>\w+)\s*(?:settings\s+.*)?;?\s*$", re.IGNORECASE | re.DOTALL)
_CODE = re.compile(r"Code: (\d+)")


@dataclass(frozen=True)
class Insert:
    """An INSERT whose data comes apart from its text."""

    #: ``INSERT INTO table (columns)``
    into: str
    settings: str
    format: str

    def from_file(self, path: str) -> str:
        """The statement that reads the data from a file of this machine."""
        return f"{self.into} from infile {quote(path)} compression 'none' {self.settings} format {self.format}"


@dataclass(frozen=True)
class Settings:
    """What the URL sets: engine settings and query parameters, by name."""

    engine: dict[str, str] = field(default_factory=dict)
    parameters: dict[str, str] = field(default_factory=dict)

    def statements(self) -> list[str]:
        """The SET statements that carry them into a handle."""
        return [f"set `{name}` = {quote(value)}" for name, value in self.engine.items()] + [
            f"set param_{name} = {quote(value)}" for name, value in self.parameters.items()
        ]


def settings_of(parameters: dict[str, str]) -> Settings:
    """Sort a request's URL parameters."""
    engine, named = {}, {}
    for name, value in parameters.items():
        if name.startswith("param_"):
            named[name.removeprefix("param_")] = value
        elif name not in INTERFACE_PARAMETERS:
            engine[name.replace("`", "")] = value
    return Settings(engine, named)


def split_insert(text: bytes) -> tuple[Insert, int] | None:
    """The INSERT … FORMAT at the beginning of ``text`` and where its data starts; None when it is none."""
    match = _INSERT.match(text.decode("utf-8", "surrogateescape"))
    if match is None:
        return None
    head = match.group(0).encode("utf-8", "surrogateescape")
    return Insert(match["into"], (match["settings"] or "").strip(), match["format"]), len(head)


def insert_with_body(query: str) -> Insert | None:
    """The INSERT of a URL whose data is the body; None when it is no INSERT."""
    if not _INSERT_WORD.match(query):
        return None
    split = split_insert(query.encode("utf-8", "surrogateescape"))
    if split is not None:
        return split[0]
    values = _INSERT_VALUES.match(query)
    return Insert(values["into"] if values else query, "", "Values")


def format_of(query: str, default: str) -> str:
    """The output format that a query names at its end, else the default."""
    match = _TRAILING_FORMAT.search(query)
    return match["format"] if match else default


def quote(value: str) -> str:
    """A string literal of ClickHouse's SQL."""
    return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"


def code_of(message: str) -> int:
    """The engine's code in an exception text; 1001 (STD_EXCEPTION) when it gives none."""
    match = _CODE.search(message)
    return int(match.group(1)) if match else 1001


def status_of(code: int) -> int:
    """The HTTP status the server gives for an exception code."""
    return _STATUS.get(code, 500)
