"""Blocks of the format Native as a client of a given protocol revision expects them.

The engine writes them for revision 0: without the info before each block, ``DateTime('zone')`` without its zone, and
columns without a word on how they are serialized. Drivers that know of revisions ask for one by
``client_protocol_version``: clickhouse-connect to learn the zones, clickhouse-go because it takes no other.
"""

from __future__ import annotations

from collections.abc import Sequence

from retention_platform.embedded.clickhouse import native_types
from retention_platform.embedded.clickhouse.errors import refused

#: From which revision a block has its info, its moments their zone, and its columns a word on how they are serialized.
#: That word tells later revisions too that a column is as it always was.
WITH_INFO, WITH_ZONES, WITH_SERIALIZATIONS = 1, 54337, 54454

#: Field 1, not overflows; field 2, no bucket (-1); end.
_INFO = b"\x01\x00\x02\xff\xff\xff\xff\x00"
_MOMENT = b"DateTime"
_MOMENT_BYTES = 4


def has_moments(block: bytes) -> bool:
    """Whether a block may have a column of DateTime, which may have a zone."""
    return _text(_MOMENT) in block


def with_info(block: bytes) -> bytes:
    """A block with its info before it."""
    return _INFO + block


def with_zones(block: bytes, columns: Sequence[tuple[str, str]]) -> bytes:
    """A block whose ``DateTime`` columns are named with their zones; ``columns`` are names and types of all.

    Each such column is found by its name and type, and by what must follow it: the next column, or the end.
    """
    count, at = native_types.number(block, 0)
    rows, at = native_types.number(block, at)
    if count != len(columns):
        return block
    heads = [_text(name.encode("utf-8", "surrogateescape")) for name, _ in columns]
    pieces, done = [], 0
    for index, (_, kind) in enumerate(columns):
        if not kind.startswith("DateTime("):
            continue
        short = heads[index] + _text(_MOMENT)
        following = heads[index + 1] if index + 1 < count else None
        start = _find(block, short, at, rows * _MOMENT_BYTES, following)
        if start < 0:
            return block
        pieces += [block[done:start], heads[index] + _text(kind.encode())]
        done = at = start + len(short)
    return b"".join([*pieces, block[done:]])


def with_serializations(block: bytes) -> bytes:
    """A block that says of each column, behind its type, that it is serialized in the usual way; for which the columns
    are walked through. Raises EngineError for a column, but for the last, of a type of which nothing is known here.
    """
    pieces, done = [], 0
    count, at = native_types.number(block, 0)
    rows, at = native_types.number(block, at)
    for index in range(count):
        _, at = _string(block, at)
        kind, at = _string(block, at)
        pieces += [block[done:at], b"\0"]
        done = at
        # Where the last one ends is of no interest.
        if rows and index + 1 < count:
            try:
                at = native_types.end(block, at, native_types.parsed(kind), rows)
            except native_types.UnknownTypeError:
                told = f"Columns of {kind} are written in Native for revisions before {WITH_SERIALIZATIONS} only."
                advice = "Ask for it as the last one, or in another format."
                raise refused("NOT_IMPLEMENTED", 48, f"{told} {advice}") from None
    return b"".join([*pieces, block[done:]])


def _string(block: bytes, at: int) -> tuple[str, int]:
    """A text, and where it ends."""
    length, at = native_types.number(block, at)
    return block[at : at + length].decode("utf-8", "surrogateescape"), at + length


def _find(block: bytes, head: bytes, at: int, size: int, following: bytes | None) -> int:
    """Where a column begins with ``head``, has ``size`` bytes and is followed as it must be; -1 for nowhere."""
    start = block.find(head, at)
    while start >= 0:
        end = start + len(head) + size
        if end == len(block) if following is None else block.startswith(following, end):
            return start
        start = block.find(head, start + 1)
    return -1


def _text(value: bytes) -> bytes:
    """A string as Native has it: its length, then its bytes."""
    size, length = bytearray(), len(value)
    while length >= 0x80:
        size.append(length & 0x7F | 0x80)
        length >>= 7
    size.append(length)
    return bytes(size) + value
