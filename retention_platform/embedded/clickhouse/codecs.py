"""Compression of bodies: what comes in by Content-Encoding, what goes out by Accept-Encoding, piece by piece."""

from __future__ import annotations

import bz2
import lzma
import sys
import zlib
from collections.abc import Callable
from typing import Any, Protocol

import brotli  # type: ignore[import-untyped]
import lz4.frame

from retention_platform.embedded.clickhouse.errors import refused

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd


class Decoder(Protocol):
    """Turns the pieces of a compressed body into those of the plain one."""

    def feed(self, piece: bytes) -> bytes:
        """The plain bytes that ``piece`` completes. Raises EngineError for what cannot be decompressed."""

    def finish(self) -> bytes:
        """The rest, when the body has ended. Raises EngineError when it is cut short."""


class Encoder(Protocol):
    """Turns the pieces of a plain body into those of a compressed one."""

    def feed(self, piece: bytes) -> bytes:
        """The compressed bytes that ``piece`` completes."""

    def finish(self) -> bytes:
        """The rest, when the body has ended."""


class Plain:
    """No compression, either way."""

    def feed(self, piece: bytes) -> bytes:
        """The piece."""
        return piece

    def finish(self) -> bytes:
        """Nothing."""
        return b""


class _Brotli:
    """Brotli's decompressor with the attributes of the standard library's."""

    unused_data = b""

    def __init__(self) -> None:
        self._reader = brotli.Decompressor()

    def decompress(self, piece: bytes) -> bytes:
        return bytes(self._reader.process(piece))

    @property
    def eof(self) -> bool:
        return bool(self._reader.is_finished())


_READERS: dict[str, Callable[[], Any]] = {
    # 47: a gzip or a zlib header, whichever is there.
    "gzip": lambda: zlib.decompressobj(wbits=47),
    "deflate": lambda: zlib.decompressobj(wbits=47),
    "br": _Brotli,
    "lz4": lz4.frame.LZ4FrameDecompressor,
    "zstd": zstd.ZstdDecompressor,
    "xz": lzma.LZMADecompressor,
    "bz2": bz2.BZ2Decompressor,
}
_BROKEN = (zlib.error, RuntimeError, zstd.ZstdError, EOFError, lzma.LZMAError, OSError, ValueError, brotli.error)


class _Frames:
    """Decompresses a body, frame after frame."""

    def __init__(self, encoding: str) -> None:
        self._encoding = encoding
        self._reader: Any = None

    def feed(self, piece: bytes) -> bytes:
        plain = []
        while piece:
            if self._reader is None:
                self._reader = _READERS[self._encoding]()
            try:
                plain.append(self._reader.decompress(piece))
            except _BROKEN as error:
                raise refused("CANNOT_DECOMPRESS", 271, f"Cannot decompress {self._encoding} body: {error}") from None
            piece = b""
            if self._reader.eof:
                piece = self._reader.unused_data or b""
                self._reader = None
        return b"".join(plain)

    def finish(self) -> bytes:
        if self._reader is not None:
            raise refused("CANNOT_DECOMPRESS", 271, f"Cannot decompress {self._encoding} body: it is cut short")
        return b""


def decoder(encoding: str) -> Decoder:
    """The decoder for a Content-Encoding. Raises EngineError for an unknown one."""
    name = encoding.strip().lower()
    if name in ("", "identity"):
        return Plain()
    if name not in _READERS:
        raise refused("NOT_IMPLEMENTED", 48, f"Unknown compression method: {name}")
    return _Frames(name)


class _Compressor:
    """A compressor of some library by its functions."""

    def __init__(self, feed: Callable[[bytes], bytes], finish: Callable[[], bytes], begin: bytes = b"") -> None:
        self._feed, self._finish, self._begin = feed, finish, begin

    def feed(self, piece: bytes) -> bytes:
        begin, self._begin = self._begin, b""
        return begin + self._feed(piece)

    def finish(self) -> bytes:
        return self._begin + self._finish()


def _zlib(bits: int, level: int) -> Encoder:
    stream = zlib.compressobj(level, wbits=bits)
    return _Compressor(stream.compress, stream.flush)


def _lz4(_: int) -> Encoder:
    stream = lz4.frame.LZ4FrameCompressor()
    return _Compressor(stream.compress, stream.flush, stream.begin())


def _zstd(_: int) -> Encoder:
    stream = zstd.ZstdCompressor(1)
    return _Compressor(stream.compress, stream.flush)


def _brotli(_: int) -> Encoder:
    stream = brotli.Compressor(quality=1)
    return _Compressor(stream.process, stream.finish)


#: By what is cheapest to make: the way from here to the client is short.
_WRITERS: dict[str, Callable[[int], Encoder]] = {
    "lz4": _lz4,
    "zstd": _zstd,
    "br": _brotli,
    "gzip": lambda level: _zlib(31, level),
    "deflate": lambda level: _zlib(15, level),
}


def encoder(accepted: str, level: int) -> tuple[Encoder, str]:
    """The encoder that an Accept-Encoding allows, and its Content-Encoding, empty for none; ``level`` is zlib's."""
    allowed = set()
    for entry in accepted.lower().split(","):
        name, _, quality = entry.partition(";")
        if quality.replace(" ", "") not in ("q=0", "q=0.0", "q=0.00", "q=0.000"):
            allowed.add(name.strip())
    for name, make in _WRITERS.items():
        if name in allowed:
            return make(level), name
    return Plain(), ""
