"""Where a column of the format Native ends, by its type. Pure; values themselves are of no interest."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

#: Bytes of a value, where all values of a type have as many.
_SIZES = {
    **dict.fromkeys(("Int8", "UInt8", "Bool", "Enum8", "Nothing"), 1),
    **dict.fromkeys(("Int16", "UInt16", "Enum16", "Date", "BFloat16"), 2),
    **dict.fromkeys(("Int32", "UInt32", "Float32", "Date32", "DateTime", "IPv4", "Time"), 4),
    **dict.fromkeys(("Int64", "UInt64", "Float64", "DateTime64", "Time64"), 8),
    **dict.fromkeys(("Int128", "UInt128", "UUID", "IPv6"), 16),
    **dict.fromkeys(("Int256", "UInt256"), 32),
}
#: Types that are other names of types.
_ALIASES = {
    "Point": "Tuple(Float64, Float64)",
    **dict.fromkeys(("Ring", "LineString"), "Array(Point)"),
    "Polygon": "Array(Ring)",
    "MultiLineString": "Array(LineString)",
    "MultiPolygon": "Array(Polygon)",
}
#: Types that hold others, one after the other.
_NESTING = {"Nullable", "Array", "Tuple", "Map", "LowCardinality", "SimpleAggregateFunction"}
#: Digits of a Decimal, and the bytes that they take.
_DECIMALS = ((9, 4), (18, 8), (38, 16), (76, 32))
#: A member of a Tuple may have a name before its type.
_NAMED = re.compile(r"(?:[A-Za-z_]\w*|`(?:[^`\\]|\\.)*`|\"(?:[^\"\\]|\\.)*\") (?=\S)")
_OFFSET = 8
#: Of a LowCardinality: that it has keys of its own, and what kind of number points to them.
_HAS_KEYS, _POINTER = 1 << 9, 0xFF


class UnknownTypeError(ValueError):
    """A type whose layout is not known here."""


@dataclass(frozen=True)
class Type:
    """A type's name, what it holds, and the bytes of a value; 0 where values differ."""

    name: str
    parts: tuple[Type, ...] = ()
    size: int = 0


@lru_cache(maxsize=1024)
def parsed(text: str) -> Type:
    """The type of this text. Raises UnknownTypeError."""
    if text in _ALIASES:
        return parsed(_ALIASES[text])
    name, _, rest = text.partition("(")
    inner = rest[:-1]
    if name in _NESTING:
        texts = [part.strip() for part in _split(inner)]
        if name == "SimpleAggregateFunction":
            return parsed(texts[1])
        if name == "Tuple":
            texts = [_NAMED.sub("", part, count=1) for part in texts]
        return Type(name, tuple(map(parsed, texts)))
    if name == "Nested":
        return Type("Array", (parsed(f"Tuple({inner})"),))
    if name == "String":
        return Type(name)
    if name.startswith("Interval"):
        return Type(name, size=8)
    if name == "FixedString":
        return Type(name, size=int(inner))
    if name == "Decimal":
        digits = int(inner.split(",")[0])
        return Type(name, size=next(size for most, size in _DECIMALS if digits <= most))
    if name in _SIZES:
        return Type(name, size=_SIZES[name])
    raise UnknownTypeError(text)


def end(block: bytes, at: int, kind: Type, rows: int) -> int:
    """Where a column of so many rows that begins at ``at`` ends."""
    return _values(block, at + _prefix(kind), kind, rows)


def _prefix(kind: Type) -> int:
    """Bytes before a column's values: each LowCardinality in it has its version there."""
    return 8 if kind.name == "LowCardinality" else sum(map(_prefix, kind.parts))


def _values(block: bytes, at: int, kind: Type, rows: int) -> int:
    if kind.size:
        return at + rows * kind.size
    if kind.name == "String":
        for _ in range(rows):
            length, at = number(block, at)
            at += length
        return at
    if kind.name == "Nullable":
        return _values(block, at + rows, kind.parts[0], rows)
    if kind.name in ("Array", "Map"):
        values, at = _last_offset(block, at, rows)
        for part in kind.parts:
            at = _values(block, at, part, values)
        return at
    if kind.name == "LowCardinality":
        return _low_cardinality(block, at, kind.parts[0], rows)
    if not kind.parts:
        # An empty Tuple is a byte.
        return at + rows
    for part in kind.parts:
        at = _values(block, at, part, rows)
    return at


def _low_cardinality(block: bytes, at: int, kind: Type, rows: int) -> int:
    if not rows:
        return at
    flags, at = _fixed(block, at), at + 8
    if flags & _HAS_KEYS:
        keys, at = _fixed(block, at), at + 8
        # That a value is null is one of the keys, without a mask.
        at = _values(block, at, kind.parts[0] if kind.name == "Nullable" else kind, keys)
    pointers, at = _fixed(block, at), at + 8
    return at + pointers * (1 << (flags & _POINTER))


def _last_offset(block: bytes, at: int, rows: int) -> tuple[int, int]:
    """How many values all rows' arrays have together, and where the offsets end."""
    after = at + rows * _OFFSET
    return (_fixed(block, after - _OFFSET) if rows else 0), after


def _fixed(block: bytes, at: int) -> int:
    return int.from_bytes(block[at : at + 8], "little")


def _split(text: str) -> list[str]:
    """The parts between commas that are in no brackets and quotes."""
    parts, depth, quote, begin, at = [], 0, "", 0, 0
    while at < len(text):
        sign = text[at]
        if quote:
            if sign == "\\":
                at += 1
            elif sign == quote:
                quote = ""
        elif sign in "'`\"":
            quote = sign
        elif sign in "()":
            depth += 1 if sign == "(" else -1
        elif sign == "," and not depth:
            parts.append(text[begin:at])
            begin = at + 1
        at += 1
    return [*parts, text[begin:]] if text else []


def number(block: bytes, at: int) -> tuple[int, int]:
    """A variable-length number, and where it ends."""
    value = shift = 0
    while True:
        byte = block[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at
