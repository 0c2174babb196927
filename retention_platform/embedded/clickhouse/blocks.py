"""ClickHouse's own framing of compressed data (``compress=1``, ``decompress=1``), as the native protocol has it.

A block: 16 bytes of CityHash128 over all that follows, one byte for the method, the sizes of the block from that byte
on and of its plain bytes (UInt32 each), the compressed bytes. The hash is CityHash 1.0.2, which no newer one equals.
"""

from __future__ import annotations

import struct
import sys

import lz4.block
from clickhouse_cityhash.cityhash import CityHash128  # type: ignore[import-untyped]

from retention_platform.embedded.clickhouse.errors import refused

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

_LZ4, _ZSTD, _NONE = 0x82, 0x90, 0x02
_HASH = struct.Struct("<QQ")
_HEAD = struct.Struct("<BII")
#: Bytes of plain data in a block, as the server's; and the most that one may hold.
_BLOCK, _LARGEST = 1 << 20, 1 << 30


def _hash(data: bytes) -> bytes:
    value = CityHash128(data)
    return _HASH.pack(value >> 64, value & 0xFFFFFFFFFFFFFFFF)


class BlockEncoder:
    """Plain bytes to LZ4 blocks."""

    def __init__(self) -> None:
        self._rest = bytearray()

    def feed(self, piece: bytes) -> bytes:
        """The blocks that ``piece`` completes."""
        self._rest += piece
        blocks = []
        while len(self._rest) >= _BLOCK:
            blocks.append(_block(bytes(self._rest[:_BLOCK])))
            del self._rest[:_BLOCK]
        return b"".join(blocks)

    def finish(self) -> bytes:
        """The last block."""
        rest, self._rest = bytes(self._rest), bytearray()
        return _block(rest) if rest else b""


def _block(plain: bytes) -> bytes:
    packed = lz4.block.compress(plain, store_size=False)
    data = _HEAD.pack(_LZ4, _HEAD.size + len(packed), len(plain)) + packed
    return b"".join((_hash(data), data))


class BlockDecoder:
    """Blocks of LZ4, ZSTD or stored bytes to plain ones."""

    def __init__(self) -> None:
        self._rest = bytearray()

    def feed(self, piece: bytes) -> bytes:
        """The plain bytes of the blocks that ``piece`` completes. Raises EngineError for what is not a block."""
        self._rest += piece
        plain = []
        while len(self._rest) >= _HASH.size + _HEAD.size:
            method, size, plain_size = _HEAD.unpack_from(self._rest, _HASH.size)
            if size < _HEAD.size or max(size, plain_size) > _LARGEST:
                raise refused("TOO_LARGE_SIZE_COMPRESSED", 113, "Too large size of a compressed block: corrupted data?")
            end = _HASH.size + size
            if len(self._rest) < end:
                break
            block = bytes(self._rest[_HASH.size : end])
            if _hash(block) != self._rest[: _HASH.size]:
                raise refused("CHECKSUM_DOESNT_MATCH", 40, "Checksum doesn't match: corrupted data.")
            del self._rest[:end]
            plain.append(_plain(method, block[_HEAD.size :], plain_size))
        return b"".join(plain)

    def finish(self) -> bytes:
        """Nothing. Raises EngineError in the middle of a block."""
        if self._rest:
            raise refused("CANNOT_READ_ALL_DATA", 33, "Cannot read all data: a compressed block is cut short.")
        return b""


def _plain(method: int, packed: bytes, size: int) -> bytes:
    try:
        if method == _LZ4:
            return bytes(lz4.block.decompress(packed, uncompressed_size=size))
        if method == _ZSTD:
            return zstd.decompress(packed)
    except (lz4.block.LZ4BlockError, zstd.ZstdError) as error:
        raise refused("CANNOT_DECOMPRESS", 271, f"Cannot decompress a block: {error}") from None
    if method == _NONE:
        return packed
    raise refused("UNKNOWN_CODEC", 432, f"Unknown codec family code: {method}")
