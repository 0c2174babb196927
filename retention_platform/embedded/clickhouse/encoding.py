"""Content encodings of the HTTP side: request bodies decompressed as they come, answers compressed."""

from __future__ import annotations

import sys
import zlib
from collections.abc import Callable
from typing import Any

import lz4.frame

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

_READERS: dict[str, Callable[[], Any]] = {
    # 47: a gzip or a zlib header, whichever is there.
    "gzip": lambda: zlib.decompressobj(wbits=47),
    "deflate": lambda: zlib.decompressobj(wbits=47),
    "lz4": lz4.frame.LZ4FrameDecompressor,
    "zstd": zstd.ZstdDecompressor,
}


class DecodeError(Exception):
    """A body that is not what its Content-Encoding says, or is cut short; ``code`` and ``name`` are the server's."""

    def __init__(self, message: str, code: int = 271, name: str = "CANNOT_DECOMPRESS") -> None:
        super().__init__(message)
        self.code = code
        self.name = name


class Decoder:
    """Decompresses a body, frame after frame."""

    def __init__(self, encoding: str) -> None:
        """Make one for a Content-Encoding. Raises DecodeError for an unknown one."""
        self._encoding = encoding.strip().lower()
        if self._encoding not in ("", "identity", *_READERS):
            raise DecodeError(f"Unknown compression method: {self._encoding}", 48, "NOT_IMPLEMENTED")
        self._reader: Any = None

    def feed(self, chunk: bytes) -> bytes:
        """The next piece of the plain body."""
        if self._encoding in ("", "identity"):
            return chunk
        plain = b""
        while chunk:
            if self._reader is None:
                self._reader = _READERS[self._encoding]()
            try:
                plain += self._reader.decompress(chunk)
            except (zlib.error, RuntimeError, zstd.ZstdError, EOFError) as error:
                raise DecodeError(f"Cannot decompress {self._encoding} body: {error}") from None
            chunk = b""
            if self._reader.eof:
                chunk = self._reader.unused_data or b""
                self._reader = None
        return plain

    def finish(self) -> None:
        """The body has ended. Raises DecodeError in the middle of a frame."""
        if self._reader is not None:
            raise DecodeError(f"Cannot decompress {self._encoding} body: it is cut short")


def encode(data: bytes, accepted: str) -> tuple[bytes, str]:
    """Compress an answer by what an Accept-Encoding allows; returns it with its Content-Encoding, empty for none."""
    names = {word.split(";")[0].strip().lower() for word in accepted.split(",")}
    if "lz4" in names:
        return lz4.frame.compress(data), "lz4"
    if "zstd" in names:
        return zstd.compress(data, 1), "zstd"
    if "gzip" in names:
        stream = zlib.compressobj(3, wbits=31)
        return stream.compress(data) + stream.flush(), "gzip"
    if "deflate" in names:
        return zlib.compress(data, 3), "deflate"
    return data, ""
