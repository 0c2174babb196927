"""Batches of messages and the protocol's pure decisions; no broker, no database.

A batch is one contiguous offset range of one partition. Its token names that range in one particular log, so the
same range inserted twice is stored once, and the same numbers in a log made anew are not taken for the old ones.
"""

from __future__ import annotations

import json
import struct
import uuid
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from functools import lru_cache

#: Columns of raw.inbox in the order that `encode_row` writes them.
INBOX_COLUMNS = ("log_id", "topic", "partition", "offset", "message_time", "key", "payload")

_PLACE = struct.Struct("<iqq")


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


def row_prefix(log_id: str, topic: str) -> bytes:
    """The first two columns in RowBinary; the same for every row of a partition."""
    return _text(log_id.encode()) + _text(topic.encode())


def encode_row(prefix: bytes, partition: int, offset: int, time_ms: int, key: bytes, payload: bytes) -> bytes:
    """One row of raw.inbox in ClickHouse's RowBinary."""
    place = _PLACE.pack(partition, offset, time_ms)
    return b"".join((prefix, place, _length(len(key)), key, _length(len(payload)), payload))


def decode_row(row: bytes) -> tuple[str, str, int, int, datetime, str | bytes, str | bytes]:
    """What `encode_row` wrote: log, topic, partition, offset, the broker's time, key and payload."""
    log_id, at = _read_text(row, 0)
    topic, at = _read_text(row, at)
    partition, offset, time_ms = _PLACE.unpack_from(row, at)
    key, at = _read_text(row, at + _PLACE.size)
    payload, _ = _read_text(row, at)
    when = datetime.fromtimestamp(0, timezone.utc) + timedelta(milliseconds=time_ms)
    return log_id.decode(), topic.decode(), partition, offset, when, key, payload


def _read_text(row: bytes, at: int) -> tuple[bytes, int]:
    """The text that begins at ``at``, and where it ends."""
    length = shift = 0
    while True:
        byte = row[at]
        at += 1
        length |= (byte & 0x7F) << shift
        if byte < 0x80:
            return row[at : at + length], at + length
        shift += 7


def _text(value: bytes) -> bytes:
    return _length(len(value)) + value


@lru_cache(maxsize=1 << 16)
def _length(value: int) -> bytes:
    """Unsigned LEB128, as RowBinary gives lengths."""
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
    rows: list[bytes] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.end = max(self.end, self.start)

    def add(self, offset: int, row: bytes) -> None:
        """Append the message at ``offset``."""
        self.rows.append(row)
        self.size += len(row)
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

    def token(self, log_id: str, *, deduplicate: bool = True) -> str:
        """The deduplication token: log, topic, partition and offset range. Without deduplication one of a kind."""
        token = f"{log_id}/{self.topic}/{self.partition}/{self.start}-{self.range_end - 1}"
        return token if deduplicate else f"{token}/{uuid.uuid4()}"


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
