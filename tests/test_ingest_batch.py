"""The delivery protocol's pure decisions."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from retention_platform.ingest.batch import (
    INBOX_COLUMNS,
    Batch,
    Intent,
    Limits,
    Source,
    Start,
    encode_rows,
    where_to_start,
)
from retention_platform.warehouse.client import connect
from tests.conftest import Warehouse

LIMITS = Limits(rows=3, size=100, seconds=1.0)


def batch(start: int = 5, replay_end: int | None = None) -> Batch:
    return Batch("playback_events", 2, start, opened_at=0.0, replay_end=replay_end)


@given(st.text(), st.none() | st.integers(0, 2**62))
def test_an_intent_survives_the_metadata(log_id: str, end: int | None) -> None:
    assert Intent.decode(Intent(log_id, end).encode()) == Intent(log_id, end)


@given(st.text() | st.none())
def test_metadata_of_others_is_no_intent(metadata: str | None) -> None:
    assert Intent.decode(metadata) is None


def test_a_partition_nobody_committed_is_read_from_its_lowest_offset() -> None:
    assert where_to_start("log", 7, None, None) == Start(7)
    assert where_to_start("log", 7, -1001, "") == Start(7)


def test_a_batch_under_way_is_repeated_exactly() -> None:
    assert where_to_start("log", 0, 10, Intent("log", 25).encode()) == Start(10, 25)


def test_a_finished_batch_is_not_repeated() -> None:
    assert where_to_start("log", 0, 10, Intent("log").encode()) == Start(10)
    assert where_to_start("log", 0, 25, Intent("log", 25).encode()) == Start(25)


def test_an_offset_of_another_log_means_nothing() -> None:
    assert where_to_start("new", 0, 10, Intent("old", 25).encode()) == Start(0)


def test_the_token_names_log_place_and_range() -> None:
    one = batch()
    one.add((5, 0, b"", b"a"))
    one.add((9, 0, b"", b"b"))
    assert one.token("log") == "log/playback_events/2/5-9"
    assert one.token("other") != one.token("log")


def test_a_repeated_range_has_the_first_ones_token_whatever_is_left_of_it() -> None:
    first = batch()
    for offset in range(5, 12):
        first.add((offset, 0, b"", b"x"))
    again = batch(replay_end=first.range_end)
    again.add((7, 0, b"", b"x"))
    assert again.token("log") == first.token("log")


def test_a_repeated_range_is_neither_cut_short_by_age_or_size_nor_stretched() -> None:
    again = batch(replay_end=12)
    for offset in range(5, 11):
        assert again.takes(offset)
        again.add((offset, 0, b"", b"x" * 100))
        assert not again.is_due(1e9, LIMITS)
    again.add((11, 0, b"", b"x"))
    assert again.is_due(0.0, LIMITS)
    assert not again.takes(12)


def test_a_batch_is_due_by_rows_by_bytes_or_by_age_and_never_empty() -> None:
    assert not batch().is_due(1e9, LIMITS)
    by_age = batch()
    by_age.add((5, 0, b"", b"x"))
    assert not by_age.is_due(0.9, LIMITS)
    assert by_age.is_due(1.0, LIMITS)
    by_rows = batch()
    for offset in (5, 6, 7):
        by_rows.add((offset, 0, b"", b"x"))
    assert by_rows.is_due(0.0, LIMITS)
    by_size = batch()
    by_size.add((5, 0, b"", b"x" * 100))
    assert by_size.is_due(0.0, LIMITS)


def test_a_batch_that_the_log_can_fill_may_grow_older() -> None:
    limits = Limits(rows=100, size=10**6, seconds=1.0, seconds_behind=5.0, quiet_rows=2, quiet_seconds=0.1)
    some = batch()
    for offset in range(60):
        some.add((offset, 0, b"", b"row"))
    assert some.is_due(1.0, limits, behind=39), "what is behind it does not fill it"
    assert not some.is_due(4.9, limits, behind=40)
    assert some.is_due(5.0, limits, behind=40), "the log may hold what nobody can read"
    for offset in range(60, 100):
        some.add((offset, 0, b"", b"row"))
    assert some.is_due(0.0, limits, behind=1000)


def test_a_batch_that_the_log_can_fill_is_never_due_sooner_than_another() -> None:
    limits = Limits(rows=100, size=10**6, seconds=30.0, seconds_behind=5.0)
    some = batch()
    some.add((5, 0, b"", b"row"))
    for age in (5.0, 29.9):
        assert not some.is_due(age, limits)
        assert not some.is_due(age, limits, behind=1000)
    assert some.is_due(30.0, limits, behind=1000)


def test_a_batch_of_a_fair_size_does_not_wait_when_no_more_comes() -> None:
    limits = Limits(rows=1000, size=10**6, seconds=1.0, quiet_rows=2, quiet_seconds=0.1)
    one = batch()
    one.add((5, 0, b"", b"x"))
    one.added_at = 0.2
    assert not one.is_due(0.5, limits)
    one.add((6, 0, b"", b"x"))
    assert not one.is_due(0.25, limits)
    assert one.is_due(0.35, limits)


def test_what_is_encoded_is_what_clickhouse_reads(empty_warehouse: Warehouse) -> None:
    """Also at the lengths where a length takes one more byte, and bytes that are no text."""
    client = connect(empty_warehouse.settings)
    client.command("create table raw.read engine = Memory as raw.inbox")
    for number, count in enumerate((1, 2, 300)):
        source = Source(f"log-é {number}", "topic" * 40, 2**31 - 1 - number)
        lengths = [0, 1, 127, 128, 16_383, 16_384, *range(2, count)][:count]
        rows = [
            (2**62 + at, 1_700_000_000_123 + at, b"\xff" * (at % 200), b"\x80" * size)
            for at, size in enumerate(lengths)
        ]
        client.raw_insert("raw.read", INBOX_COLUMNS, b"".join(encode_rows(source, rows)), fmt="Native")
        found = empty_warehouse.rows(
            "select log_id, topic, partition, offset, toUnixTimestamp64Milli(message_time), hex(key), hex(payload) "
            f"from raw.read where log_id = '{source.log_id}' order by offset"
        )
        assert found == [
            (source.log_id, source.topic, source.partition, offset, time, key.hex().upper(), payload.hex().upper())
            for offset, time, key, payload in rows
        ]
    client.close()
