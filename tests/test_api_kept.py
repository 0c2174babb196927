"""Kept answers: made once for a version, shared while they are made, never more than there is room for."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest

from retention_platform.api.kept import MAX_SHARE, Kept
from retention_platform.api.tables import first_row


class Maker:
    """Makes answers of 100 bytes, and counts them."""

    def __init__(self) -> None:
        self.made: Counter[str] = Counter()
        self.fails = False
        self.may_end = asyncio.Event()
        self.may_end.set()

    def of(self, question: str, size: int = 100) -> Maker.One:
        return Maker.One(self, question, size)

    class One:
        def __init__(self, maker: Maker, question: str, size: int) -> None:
            self.maker, self.question, self.size = maker, question, size

        async def __call__(self) -> bytes:
            self.maker.made[self.question] += 1
            await self.maker.may_end.wait()
            if self.maker.fails:
                raise OSError("away")
            return self.question.encode().ljust(self.size)


def test_an_answer_is_made_once_for_a_version() -> None:
    async def run() -> None:
        kept, maker = Kept(1000, len), Maker()
        for version in ("1", "1", "2", "2", "1"):
            assert (await kept(version, "a", maker.of("a"))).strip() == b"a"
            assert (await kept(version, "b", maker.of("b"))).strip() == b"b"
        assert maker.made == {"a": 3, "b": 3}

    asyncio.run(run())


def test_who_asks_while_it_is_made_gets_the_same_and_one_who_goes_away_takes_it_from_nobody() -> None:
    async def run() -> None:
        kept, maker = Kept(1000, len), Maker()
        maker.may_end.clear()
        first, second = (asyncio.ensure_future(kept("1", "a", maker.of("a"))) for _ in range(2))
        await asyncio.sleep(0)
        first.cancel()
        await asyncio.sleep(0)
        maker.may_end.set()
        assert (await second).strip() == b"a"
        assert first.cancelled() and maker.made == {"a": 1}

    asyncio.run(run())


def test_a_failure_goes_to_all_who_wait_and_the_next_asks_again() -> None:
    async def run() -> None:
        kept, maker = Kept(1000, len), Maker()
        maker.fails = True
        outcomes = await asyncio.gather(*(kept("1", "a", maker.of("a")) for _ in range(3)), return_exceptions=True)
        assert [type(outcome) for outcome in outcomes] == [OSError] * 3 and maker.made == {"a": 1}
        maker.fails = False
        assert (await kept("1", "a", maker.of("a"))).strip() == b"a"

    asyncio.run(run())


@pytest.mark.parametrize(("questions", "again"), [(10, 0), (11, 1), (25, 15)])
def test_those_not_asked_for_longest_go_when_there_is_no_room(questions: int, again: int) -> None:
    async def run() -> None:
        kept, maker = Kept(1000, len), Maker()
        names = [f"question {number}" for number in range(questions)]
        for name in names:
            await kept("1", name, maker.of(name))
        for name in reversed(names):
            await kept("1", name, maker.of(name))
        assert sum(maker.made.values()) == questions + again

    asyncio.run(run())


def test_an_answer_longer_than_its_share_is_given_and_not_kept() -> None:
    async def run() -> None:
        kept, maker = Kept(1000, len), Maker()
        for _ in range(2):
            await kept("1", "a", maker.of("a"))
            assert len(await kept("1", "long", maker.of("long", 1000 // MAX_SHARE + 1))) == 1000 // MAX_SHARE + 1
        assert maker.made == {"a": 1, "long": 2}

    asyncio.run(run())


def test_what_an_earlier_version_ends_late_is_not_taken_for_the_new_ones() -> None:
    async def run() -> None:
        kept, maker = Kept(10_000, len), Maker()
        maker.may_end.clear()
        old = asyncio.ensure_future(kept("1", "a", maker.of("a")))
        await asyncio.sleep(0)
        new = asyncio.ensure_future(kept("2", "a", maker.of("a", 200)))
        await asyncio.sleep(0)
        maker.may_end.set()
        assert (len(await old), len(await new)) == (100, 200)
        assert len(await kept("2", "a", maker.of("a"))) == 200

    asyncio.run(run())


@pytest.mark.parametrize(
    ("rows", "first"),
    [
        (b"[\n\n]\n", None),
        (b"[]", None),
        (b'[\n{"a":1}\n]\n', {"a": 1}),
        (b'[\n{"a":"},\\n{","b":[1,2]},\n{"a":"2"}\n]\n', {"a": "},\n{", "b": [1, 2]}),
    ],
)
def test_the_first_row_of_an_array_is_read(rows: bytes, first: dict[str, object] | None) -> None:
    assert first_row(rows) == first
