"""Blocks of the format Native as a client of a given protocol revision expects them.

The engine writes them for revision 0: without the info before each block, and ``DateTime('zone')`` without its zone.
Drivers that know of revisions ask for one by ``client_protocol_version``, to learn the zones.
"""

from __future__ import annotations

from collections.abc import Sequence

#: From which revision a block has its info, and its moments their zone; and from which it has what is not made here.
WITH_INFO, WITH_ZONES, TOO_NEW = 1, 54337, 54454

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
    count, at = _number(block, 0)
    rows, at = _number(block, at)
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


def _number(block: bytes, at: int) -> tuple[int, int]:
    """A variable-length number, and where it ends."""
    value = shift = 0
    while True:
        byte = block[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at
