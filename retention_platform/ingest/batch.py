"""Batches of messages and the protocol's pure decisions; no broker, no database.

A batch is one contiguous offset range of one partition. Its token names that range in one particular log, so the
same range inserted twice is stored once, and the same numbers in a log made anew are not taken for the old ones.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache

#: Columns of raw.inbox in the order that `encode_rows` writes them.
INBOX_COLUMNS = ("log_id", "topic", "partition", "offset", "message_time", "key", "payload")

#: A message: its offset, the broker's time in milliseconds, key and payload.
Row = tuple[int, int, bytes, bytes]

#: Bytes that a row has beside its key and payload, roughly.
_ROW_BYTES = 24
_DICTIONARY, _COUNT = struct.Struct("<QQQ"), struct.Struct("<Q")


@dataclass(frozen=True)
class Source:
    """A partition of one particular log."""

    log_id: str
    topic: str
    partition: int


@dataclass(frozen=True)
class Intent:
    """What the metadata of a committed offset says: whose log it is, and where a batch under way ends."""

    log_id: str
    #: One past the last offset of the batch about to be inserted; None when none is under way.
    end: int | None = None

    def encode(self) -> str:
        """The text stored with the committed offset."""
        return json.dumps({"log": self.log_id, "end": self.end}, separators=(",", ":"))

    @staticmethod
    def decode(metadata: str | None) -> Intent | None:
        """The intent in a committed offset's metadata; None when it holds none of ours."""
        try:
            value = json.loads(metadata or "")
            end = value["end"]
            return Intent(str(value["log"]), None if end is None else int(end))
        except (ValueError, TypeError, KeyError):
            return None


@dataclass(frozen=True)
class Start:
    """Where to read a partition from, and the exact end of the first batch if one was under way."""

    offset: int
    replay_end: int | None = None


def where_to_start(log_id: str, low: int, committed: int | None, metadata: str | None) -> Start:
    """Decide from the committed offset, its metadata and the log's lowest offset.

    An offset committed for another log (its topic was made anew) means nothing here: start at the beginning.
    """
    intent = Intent.decode(metadata)
    if committed is None or committed < 0 or (intent is not None and intent.log_id != log_id):
        return Start(low)
    if intent is None or intent.end is None or intent.end <= committed:
        return Start(committed)
    return Start(committed, intent.end)


def encode_rows(source: Source, rows: Sequence[Row]) -> list[bytes]:
    """Rows of raw.inbox as one block of ClickHouse's Native format, in pieces to be joined; at least one row."""
    count = len(rows)
    offsets, times, keys, payloads = zip(*rows, strict=True)
    return [
        _length(len(INBOX_COLUMNS)) + _length(count),
        *(_column("log_id", "LowCardinality(String)"), _repeated(source.log_id, count)),
        *(_column("topic", "LowCardinality(String)"), _repeated(source.topic, count)),
        *(_column("partition", "Int32"), struct.pack("<i", source.partition) * count),
        *(_column("offset", "Int64"), struct.pack(f"<{count}q", *offsets)),
        *(_column("message_time", "DateTime64(3, 'UTC')"), struct.pack(f"<{count}q", *times)),
        *(_column("key", "String"), *_texts(keys)),
        *(_column("payload", "String"), *_texts(payloads)),
    ]


def _column(name: str, kind: str) -> bytes:
    return _text(name.encode()) + _text(kind.encode())


def _repeated(value: str, count: int) -> bytes:
    """A column of the type LowCardinality(String) with one value: a dictionary of one key, and its index each time."""
    version, own_keys_of_one_byte, size = 1, 0x600, 1
    return (
        _DICTIONARY.pack(version, own_keys_of_one_byte, size)
        + _text(value.encode())
        + _COUNT.pack(count)
        + bytes(count)
    )


def _texts(values: Sequence[bytes]) -> list[bytes]:
    """A column of the type String: each length, and behind it each value."""
    pieces = [b""] * (2 * len(values))
    pieces[::2] = map(_length, map(len, values))
    pieces[1::2] = values
    return pieces


def _text(value: bytes) -> bytes:
    return _length(len(value)) + value


@lru_cache(maxsize=1 << 16)
def _length(value: int) -> bytes:
    """Unsigned LEB128, as ClickHouse gives lengths."""
    if value < 0x80:
        return bytes((value,))
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


@dataclass
class Batch:
    """Messages of one partition that become one insert, in the order of their offsets."""

    topic: str
    partition: int
    #: First offset of the range; messages may be missing in it (compaction, transaction markers).
    start: int
    opened_at: float
    replay_end: int | None = None
    end: int = 0
    size: int = 0
    #: When messages last came, on the clock of opened_at.
    added_at: float = 0.0
    rows: list[Row] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.end = max(self.end, self.start)

    def add(self, row: Row) -> None:
        """Append a message."""
        offset, _, key, payload = row
        self.rows.append(row)
        self.size += len(key) + len(payload) + _ROW_BYTES
        self.end = offset + 1

    def takes(self, offset: int) -> bool:
        """Whether the message at ``offset`` belongs in: a repeated range is never stretched."""
        return self.replay_end is None or offset < self.replay_end

    def is_due(self, now: float, limits: Limits, behind: int = 0) -> bool:
        """Whether to insert now: full, old enough, or a repeated range come to its end.

        ``behind`` is how many messages the log is known to hold after it. Where they are enough to fill it, it may grow
        older: an insert costs ClickHouse much the same whatever is in it.
        """
        if self.replay_end is not None:
            return self.end >= self.replay_end
        if not self.rows or self.is_full(limits):
            return bool(self.rows)
        age = now - self.opened_at
        if behind >= limits.rows - len(self.rows):
            return age >= max(limits.seconds, limits.seconds_behind)
        return age >= limits.seconds or (
            len(self.rows) >= limits.quiet_rows and now - self.added_at >= limits.quiet_seconds
        )

    def is_full(self, limits: Limits) -> bool:
        """Whether nothing more should be added."""
        return len(self.rows) >= limits.rows or self.size >= limits.size

    def is_whole(self) -> bool:
        """Whether it may be inserted as it is: a repeated range only from its beginning to its end."""
        return bool(self.rows) and self.replay_end in (None, self.end)

    @property
    def range_end(self) -> int:
        """One past the last offset that the token speaks for."""
        return self.end if self.replay_end is None else self.replay_end

    def token(self, log_id: str) -> str:
        """The deduplication token: log, topic, partition and offset range."""
        return f"{log_id}/{self.topic}/{self.partition}/{self.start}-{self.range_end - 1}"


@dataclass(frozen=True)
class Limits:
    """When a batch is inserted: at so many rows, bytes (size), or seconds after its first message.

    Also when a fair number of rows is there and no more come: then waiting would gain nothing. How old it may grow
    while the log holds enough to fill it is told apart, and never less than that.
    """

    rows: int
    size: int
    seconds: float
    seconds_behind: float = 5.0
    quiet_rows: int = 1000
    quiet_seconds: float = 0.03
