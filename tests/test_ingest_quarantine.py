"""A message that is the contract and still breaks a view further down is put aside; all others are stored once."""

from __future__ import annotations

import json
import random
import uuid
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retention_platform.ingest.batch import Row, Source
from retention_platform.ingest.quarantine import ENOUGH, NOT_TRIED, QUESTIONS, find_poison
from retention_platform.ingest.sink import ClickHouseSink, Refused
from retention_platform.settings import load_settings
from retention_platform.warehouse.client import connect
from tests.conftest import Warehouse
from tests.messages import EVENT

SOURCE = Source("log", "playback_events", 0)


def rows_of(positions: Sequence[int]) -> list[Row]:
    """Rows of the inbox, one a position; an event's id and offset are its place."""
    rows = []
    for offset, position in enumerate(positions):
        event = {**EVENT, "event_id": str(uuid.UUID(int=offset)), "position_ms": position}
        rows.append((offset, 0, b"k", json.dumps(event).encode()))
    return rows


@given(st.lists(st.booleans(), max_size=70))
def test_poison_is_found_wherever_it_is(bad: list[bool]) -> None:
    rows = [bytes([number, flag]) for number, flag in enumerate(bad)]
    asked: list[int] = []

    def fault(some: Sequence[bytes]) -> str | None:
        asked.append(len(some))
        return next((f"because of {row[0]}" for row in some if row[1]), None)

    found = find_poison(rows, fault)
    expected = [(number, f"because of {number}") for number, flag in enumerate(bad) if flag]
    if len(expected) < ENOUGH:
        assert found == expected
    else:
        assert {number for number, _ in found} >= {number for number, _ in expected}
        assert [number for number, _ in found] == sorted({number for number, _ in found})
    if sum(bad) == 1:
        assert len(asked) <= 2 * len(bad).bit_length() + 1, "halving, not one by one"


@pytest.mark.parametrize(("every", "most_questions"), [(1, 100), (2, 150), (100, 10_000)])
def test_however_many_are_poison_a_batch_is_soon_judged(every: int, most_questions: int) -> None:
    rows = [number.to_bytes(4, "big") for number in range(50_000)]
    poison = {row for row in rows if int.from_bytes(row, "big") % every == 0}
    asked = 0

    def fault(some: Sequence[bytes]) -> str | None:
        nonlocal asked
        asked += 1
        return "wrong" if poison.intersection(some) else None

    found = {rows[index] for index, _ in find_poison(rows, fault)}
    assert found >= poison
    assert asked <= most_questions
    if every > 2:
        assert found == poison, "where most can be stored, those that cannot are told exactly"


@pytest.mark.parametrize("scattered", [10, 500], ids=["few", "a hundredth"])
@pytest.mark.parametrize("first", [0, 30_000], ids=["in front", "within"])
def test_a_clump_of_poison_does_not_pass_for_the_whole_batch(first: int, scattered: int) -> None:
    rows = [number.to_bytes(4, "big") for number in range(50_000)]
    poison = {*rows[first : first + 60], *random.Random(scattered).sample(rows, scattered)}
    found = find_poison(rows, lambda some: None if poison.isdisjoint(some) else "wrong")
    assert [rows[index] for index, _ in found] == sorted(poison)


def test_what_was_not_tried_alone_has_no_other_rows_reason() -> None:
    rows = [number.to_bytes(4, "big") for number in range(1000)]
    found = find_poison(rows, lambda some: f"because of {some[0].hex()}")
    assert [index for index, _ in found] == list(range(1000))
    tried = [why for index, why in found if why == f"because of {rows[index].hex()}"]
    assert len(tried) >= ENOUGH
    assert [why for _, why in found].count(NOT_TRIED) == 1000 - len(tried)


def test_a_batch_with_too_much_poison_to_be_told_in_time_is_judged_in_time() -> None:
    rows = [number.to_bytes(4, "big") for number in range(50_000)]
    poison = {row for row in rows if row[3] % 10 == 0}
    asked = 0

    def fault(some: Sequence[bytes]) -> str | None:
        nonlocal asked
        asked += 1
        return None if poison.isdisjoint(some) else "wrong"

    found = dict(find_poison(rows, fault))
    assert asked <= QUESTIONS + len(rows).bit_length()
    assert {rows[index] for index in found} >= poison
    assert all(rows[index] in poison for index, why in found.items() if why != NOT_TRIED)
    assert len(found) < 40_000, "what was tried until then is told"


def test_what_is_not_told_after_a_while_is_not_tried_alone() -> None:
    rows = [bytes([number]) for number in range(100)]
    found = find_poison(rows, lambda some: "wrong" if rows[7] in some or rows[50] in some else None, seconds=0)
    assert found == [(number, NOT_TRIED) for number in range(100)]


def test_rows_that_only_fail_together_are_no_ones_fault() -> None:
    assert find_poison(rows_of(range(8)), lambda some: "too many" if len(some) > 2 else None) == []


@pytest.mark.parametrize(
    ("level", "view", "target"),
    [
        *((level, "live", "live") for level in ("raw.playback_events", "raw.judged_events", "live.middle")),
        ("raw.playback_events", "mine", "mine"),
        ("live.middle", "mine", "mine"),
        ("raw.playback_events", "raw", "mine"),
    ],
)
def test_only_the_message_that_breaks_a_view_is_put_aside(
    empty_warehouse: Warehouse, tmp_path: Path, level: str, view: str, target: str
) -> None:
    client = connect(empty_warehouse.settings)
    client.command("drop database if exists mine sync")
    for database in ("live", "mine"):
        client.command(f"create database if not exists {database}")
    client.command("create table live.middle (position_ms Int64) engine = Null")
    client.command(
        "create materialized view live.to_middle to live.middle as select position_ms from raw.playback_events"
    )
    client.command(
        f"create table {target}.seen (position_ms Int64, wrong UInt8) engine = MergeTree order by position_ms "
        "settings non_replicated_deduplication_window = 1000"
    )
    client.command(
        f"create materialized view {view}.broken to {target}.seen as "
        f"select position_ms, throwIf(position_ms in (13, 666), 'no such luck') as wrong from {level}"
    )
    positions = [*range(100, 140), 666, *range(200, 240), 13, *range(300, 340)]
    rows = rows_of(positions)
    # As late as a producer may claim that it is.
    rows[40] = (40, 9_000_000_000_000_000, *rows[40][2:])
    sink = ClickHouseSink(empty_warehouse.settings)
    before = {name for (name,) in client.query("select name from system.databases").result_rows}
    # As the consumer does, and again from the beginning or the middle, as after a crash: nothing comes of repeating.
    for repeated in range(2):
        try:
            sink.insert(SOURCE, rows, "token")
            assert repeated, "the test has no poison"
        except Refused as error:
            assert "no such luck" in str(error)
        poison = sink.poison(SOURCE, rows)
        assert [index for index, _ in poison] == [40, 81]
        assert all("no such luck" in why for _, why in poison)
        for _ in range(2):
            sink.reject(SOURCE, [rows[index] for index, _ in poison], [why for _, why in poison], "token")
            good = [row for index, row in enumerate(rows) if index not in {40, 81}]
            sink.insert(SOURCE, good, "token")
    after = {name for (name,) in client.query("select name from system.databases").result_rows}
    assert after == before, "the probe is gone"
    stored = [row[0] for row in client.query("select position_ms from raw.playback_events order by offset").result_rows]
    assert stored == [position for position in positions if position not in (13, 666)]
    seen = [row[0] for row in client.query(f"select position_ms from {target}.seen order by position_ms").result_rows]
    assert seen == sorted(stored)
    rejected = client.query(
        "select offset, payload, field, reason from raw.rejected_events order by offset"
    ).result_rows
    assert [row[0] for row in rejected] == [40, 81]
    assert [json.loads(row[1])["position_ms"] for row in rejected] == [666, 13]
    assert all(row[2] == "message" and "cannot be stored" in row[3] and "no such luck" in row[3] for row in rejected)


def test_what_is_put_aside_of_a_batch_once_more_is_stored_too(empty_warehouse: Warehouse) -> None:
    """As when a view that is mended, or broken anew, lets others of a repeated batch fail."""
    rows = rows_of(range(4))
    sink = ClickHouseSink(empty_warehouse.settings)
    for chosen in ([0], [2], [0], [2, 3]):
        sink.reject(SOURCE, [rows[at] for at in chosen], ["no such luck"] * len(chosen), "token")
    found = empty_warehouse.rows("select offset from raw.rejected_events final order by offset")
    assert found == [(0,), (2,), (3,)]
    ((first,),) = empty_warehouse.rows("select count() from raw.rejected_events where offset = 0")
    assert first == 1, "the same once more is a repetition"


def test_when_no_message_is_at_fault_nothing_is_put_aside(empty_warehouse: Warehouse) -> None:
    client = connect(empty_warehouse.settings)
    sink = ClickHouseSink(empty_warehouse.settings)
    rows = rows_of(range(20))
    client.command("drop table raw.playback_events sync")
    with pytest.raises(Exception, match="did not take the batch") as failure:
        sink.insert(SOURCE, rows, "token")
    assert not isinstance(failure.value, Refused), "a missing table is nobody's message"


def test_a_server_that_is_away_is_no_refusal(tmp_path: Path) -> None:
    from tests.api_support import free_port

    sink = ClickHouseSink(load_settings(retention_home=tmp_path, clickhouse_port=free_port()))
    with pytest.raises(Exception, match="does not answer") as failure:
        sink.insert(SOURCE, rows_of(range(3)), "token")
    assert not isinstance(failure.value, Refused)
