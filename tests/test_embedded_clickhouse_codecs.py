"""Compressions and Native's revisions: against the libraries, the engine's own files and known bytes."""

from __future__ import annotations

import bz2
import gzip
import lzma
import struct
import sys
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import brotli
import httpx
import lz4.frame
import pytest
from hypothesis import given
from hypothesis import strategies as st

from retention_platform.embedded.clickhouse import native, running
from retention_platform.embedded.clickhouse.blocks import BlockDecoder, BlockEncoder
from retention_platform.embedded.clickhouse.codecs import Decoder, Encoder, decoder, encoder
from retention_platform.embedded.clickhouse.errors import EngineError

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

COMPRESS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "deflate": zlib.compress,
    "br": brotli.compress,
    "lz4": lz4.frame.compress,
    "zstd": zstd.compress,
    "xz": lzma.compress,
    "bz2": bz2.compress,
}
DECOMPRESS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.decompress,
    "deflate": zlib.decompress,
    "br": brotli.decompress,
    "lz4": lz4.frame.decompress,
    "zstd": zstd.decompress,
}
PIECES = st.lists(st.binary(max_size=5000), max_size=6)


def pieces_of(data: bytes, size: int) -> Iterator[bytes]:
    return (data[at : at + size] for at in range(0, len(data), size))


def through(stage: Decoder | Encoder, pieces: Iterator[bytes]) -> bytes:
    return b"".join([*(stage.feed(piece) for piece in pieces), stage.finish()])


@pytest.mark.parametrize("name", COMPRESS)
@given(pieces=PIECES, size=st.integers(1, 400))
def test_a_body_is_decompressed_however_it_is_cut(name: str, pieces: list[bytes], size: int) -> None:
    plain = b"".join(pieces)
    assert through(decoder(name), pieces_of(COMPRESS[name](plain), size)) == plain


@pytest.mark.parametrize("name", [name for name in COMPRESS if name != "br"])
def test_one_frame_may_follow_another(name: str) -> None:
    frames = COMPRESS[name](b"one,") + COMPRESS[name](b"two")
    assert through(decoder(name), pieces_of(frames, 7)) == b"one,two"


@pytest.mark.parametrize("name", COMPRESS)
def test_a_body_cut_short_or_broken_is_an_error_of_the_server_s(name: str) -> None:
    whole = COMPRESS[name](bytes(range(256)) * 50)
    for broken in (whole[:-9], b"no such thing at all" * 9):
        with pytest.raises(EngineError) as error:
            through(decoder(name), pieces_of(broken, 100))
        assert error.value.code == 271
    with pytest.raises(EngineError) as error:
        decoder("lha")
    assert error.value.code == 48


@pytest.mark.parametrize("name", DECOMPRESS)
@given(pieces=PIECES)
def test_an_answer_is_compressed_as_its_encoding_says(name: str, pieces: list[bytes]) -> None:
    stage, told = encoder(name, 3)
    assert told == name
    assert DECOMPRESS[name](through(stage, iter(pieces))) == b"".join(pieces)


def test_what_a_client_does_not_accept_it_does_not_get() -> None:
    assert encoder("gzip;q=0, br;q=1.0", 3)[1] == "br"
    assert encoder("identity, xz", 3)[1] == ""
    assert encoder("", 3)[1] == ""


@given(pieces=PIECES, size=st.integers(1, 3000))
def test_clickhouse_s_own_blocks_come_back_however_they_are_cut(pieces: list[bytes], size: int) -> None:
    packed = through(BlockEncoder(), iter(pieces))
    assert through(BlockDecoder(), pieces_of(packed, size)) == b"".join(pieces)


@pytest.mark.parametrize("codec", ["LZ4", "ZSTD", "NONE"])
def test_the_engine_s_own_files_are_read_as_blocks(tmp_path: Path, codec: str) -> None:
    with running(tmp_path / "data") as server:
        for statement in (
            f"create table default.t (n UInt64 codec({codec})) engine = MergeTree order by tuple() "
            "settings min_bytes_for_wide_part = 0, serialization_info_version = 'basic'",
            "insert into default.t select number from numbers(100000)",
        ):
            assert httpx.post(server.url, content=statement).status_code == 200
        path = httpx.post(server.url, content="select path from system.parts where table = 't' and active").text
        packed = (Path(path.strip()) / "n.bin").read_bytes()
    assert through(BlockDecoder(), pieces_of(packed, 1000)) == struct.pack("<100000Q", *range(100_000))


def test_a_broken_block_is_an_error_of_the_server_s() -> None:
    packed = through(BlockEncoder(), iter([b"some data " * 100]))
    for broken, code in (
        (packed[:20] + b"\xff" + packed[21:], 113),
        (packed[:-1] + bytes([packed[-1] ^ 1]), 40),
        (packed[:-1], 33),
    ):
        with pytest.raises(EngineError) as error:
            through(BlockDecoder(), iter([broken]))
        assert error.value.code == code


def text(value: bytes) -> bytes:
    assert len(value) < 128
    return bytes([len(value)]) + value


def column(name: str, kind: str, data: bytes) -> bytes:
    return text(name.encode()) + text(kind.encode()) + data


NAMES = st.text("aé\x08", min_size=1, max_size=3)
#: A column as its full type, as the type of revision 0, and its data for so many rows.
MOMENT = st.sampled_from(["DateTime('Asia/Tokyo')", "DateTime('UTC')", "DateTime"])


@given(data=st.data(), rows=st.integers(0, 3))
def test_moments_get_their_zones_whatever_stands_around_them(data: st.DataObject, rows: int) -> None:
    count = data.draw(st.integers(1, 5))
    columns, short, full = [], b"", b""
    for number in range(count):
        # Strings that look like the head of a column, and names that are part of others.
        name = data.draw(NAMES) + str(number)
        if data.draw(st.booleans()):
            kind = data.draw(MOMENT)
            values = data.draw(st.binary(min_size=4 * rows, max_size=4 * rows))
        else:
            kind = "String"
            head = text(name.encode()) + text(b"DateTime")
            values = b"".join(text(data.draw(st.sampled_from([b"", head, b"x" + head]))) for _ in range(rows))
        columns.append((name, kind))
        short += column(name, kind.partition("(")[0], values)
        full += column(name, kind, values)
    counts = bytes([count, rows])
    assert native.with_zones(counts + short, columns) == counts + full


def test_a_block_that_is_not_of_the_columns_stays_as_it_is() -> None:
    block = bytes([1, 1]) + column("a", "DateTime", b"\0\0\0\0")
    assert native.with_zones(block, []) == block
    assert native.with_zones(block, [("b", "DateTime('UTC')")]) == block


def test_the_info_of_a_block_is_the_server_s() -> None:
    assert native.with_info(b"block").hex() == "010002ffffffff00" + b"block".hex()


@pytest.mark.parametrize(
    "expression",
    [
        "toUInt8(number)",
        "number % 3 = 0",
        "toInt256(number)",
        "toDate32('2026-01-02')",
        "toDateTime('2026-01-02 03:04:05', 'UTC')",
        "toDateTime64('2026-01-02 03:04:05.678', 3, 'UTC')",
        "toDecimal32(number, 2)",
        "toDecimal256(number, 20)",
        "generateUUIDv4()",
        "toIPv6('::1')",
        "toFixedString('abc', 5)",
        "repeat('é', number * 40)",
        "if(number % 2 = 0, null, toString(number))",
        "null",
        "range(number)",
        "arrayMap(i -> range(i), range(number % 20))",
        "arrayMap(i -> if(i % 2 = 0, null, toString(i)), range(number))",
        "(number, toString(number), [number])",
        "cast((1, 'a'), 'Tuple(`a, b` UInt8, c String)')",
        "tuple()",
        "map('a', number, toString(number), 2)",
        "toLowCardinality(toString(number % 2))",
        "cast(if(number % 2 = 0, null, 'x'), 'LowCardinality(Nullable(String))')",
        "arrayMap(i -> toLowCardinality(toString(i)), range(number))",
        "map(toLowCardinality('k'), (toLowCardinality(toString(number)), number))",
        "cast([(1, 'a')], 'Nested(x UInt8, y String)')",
        "cast('b', $$Enum8('a, (' = 1, 'b' = 2)$$)",
        "toIntervalDay(number)",
        "(1., number)::Point",
        "[(1., number), (2., 3.)]::Ring",
        "arrayMap(i -> (1., i), range(number % 3))::LineString",
        "[[(1., number)], []]::Polygon",
        "[[(1., number), (2., 3.)]]::MultiLineString",
        "[[[(1., number)]], []]::MultiPolygon",
        "[tuple((1., 2.)::Point, 'a')]",
        "toFloat64(number) / 0",
    ],
)
@pytest.mark.parametrize("rows", [0, 1, 700])
def test_clients_of_later_revisions_are_told_how_columns_are_serialized(
    clickhouse_port: int, expression: str, rows: int
) -> None:
    sign = b"\x0bsignpostabc"
    sql = f"select {expression} as x, toString(number) as signpostabc, {expression} as y from numbers({rows})"
    sql = sql.replace("generateUUIDv4()", "toUUID('61f0c404-5cb3-11e7-907b-a6006ad3dba0')")

    def asked(revision: int) -> bytes:
        parameters = {"default_format": "Native", "client_protocol_version": str(revision)}
        return httpx.post(f"http://127.0.0.1:{clickhouse_port}", params=parameters, content=sql).content

    plain, told, later = asked(54453), asked(54460), asked(54483)
    assert later == told, "that word is also how later revisions are told that nothing is new"
    if not plain:
        assert not told and not rows
        return
    # The type's text follows each name; behind the type there is one byte more.
    assert plain.count(sign) == 1, "the oracle finds columns by their names"
    first, second = plain.split(sign)
    kind = first[first.index(b"\x01x") + 2 :][: first[first.index(b"\x01x") + 2] + 1]
    head = first.index(b"\x01x" + kind) + 2 + len(kind)
    last = second.rindex(b"\x01y" + kind) + 2 + len(kind)
    text = len(b"\x06String")
    wanted = (
        first[:head] + b"\0" + first[head:] + sign + second[:text] + b"\0" + second[text:last] + b"\0" + second[last:]
    )
    assert told == wanted


def test_a_column_of_unknown_layout_is_refused_to_later_revisions_unless_it_is_the_last(clickhouse_port: int) -> None:
    def asked(columns: str, revision: int) -> httpx.Response:
        parameters = {"default_format": "Native", "client_protocol_version": str(revision)}
        sql = f"select {columns} from numbers(3)"
        return httpx.post(f"http://127.0.0.1:{clickhouse_port}", params=parameters, content=sql)

    dynamic = "number::Dynamic as d"
    assert asked(f"{dynamic}, number", 54453).status_code == 200
    refused = asked(f"{dynamic}, number", 54460)
    assert refused.status_code == 501 and "Columns of Dynamic are written in Native" in refused.text
    plain, told = asked(f"number, {dynamic}", 54453).content, asked(f"number, {dynamic}", 54460).content
    for name in (b"\x06number\x06UInt64", b"\x01d\x07Dynamic"):
        plain = plain.replace(name, name + b"\0")
    assert told == plain


def test_a_column_that_is_refused_leaves_nothing_running_in_its_session(clickhouse_port: int) -> None:
    def asked(query: str, **parameters: str) -> httpx.Response:
        return httpx.post(f"http://127.0.0.1:{clickhouse_port}", params=parameters, content=query)

    native = {"default_format": "Native", "client_protocol_version": "54460", "session_id": "refused"}
    assert asked("select number::Dynamic as d, number from system.numbers", **native).status_code == 501
    assert asked("select count() from system.processes where query like '%Dynamic%numbers' format TSV").text == "0\n"
