"""Nothing lost and nothing doubled on the development broker, whatever fails at whatever moment.

By default one seeded round of every fault there is, and what else takes but seconds. DELIVERY_ROUNDS=N runs N rounds
and each of the others, which takes minutes; DELIVERY_ROUNDS=0 runs none.
"""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from retention_platform.embedded import broker as embedded_broker
from tests import oracle
from tests.dbt_support import Chain
from tests.delivery import clock, faults, world
from tests.delivery.world import World

ROUNDS = int(os.environ.get("DELIVERY_ROUNDS", "1"))
#: Whether everything is run: it was asked for.
ALL_OF_IT = ROUNDS > 0 and "DELIVERY_ROUNDS" in os.environ

when_asked = pytest.mark.skipif(not ALL_OF_IT, reason="takes minutes with its like: DELIVERY_ROUNDS=1 runs it")
pytestmark = [
    pytest.mark.skipif(not ROUNDS, reason="DELIVERY_ROUNDS=0: no faults of the delivery path"),
    pytest.mark.timeout(900),
]


@pytest.fixture
def broker() -> Iterator[str]:
    with embedded_broker.running() as address:
        yield address


def suffer(place: World, kinds: Sequence[faults.Fault]) -> list[str]:
    """Let every one of these faults happen, in a seeded order, while events keep coming; their names in order."""
    happened = []
    place.start_ingest()
    with place.publishing():
        world.wait_until(lambda: stored(place) > 0, "the first events")
        for fault in place.rng.sample(kinds, len(kinds)):
            happened.append(fault.__name__)
            fault(place)
            faults.nap(place, 0.1, 0.8)
        # However little came through while the broker was away, on however slow a machine.
        world.wait_until(lambda: place.sent > 1500, "traffic")
    return happened


def stored(place: World) -> int:
    """How many events are in raw."""
    return int(place.ask("select count() from raw.playback_events")[0][0])


@pytest.mark.parametrize("seed", range(max(ROUNDS, 1)))
def test_faults_at_any_moment_lose_and_double_nothing(broker: str, tmp_path: Path, seed: int) -> None:
    with world.running(tmp_path, broker, seed) as place:
        happened = suffer(place, faults.ALL)
        place.settle()
        events = place.check()
        assert len(events) > 1000, "too little traffic to show anything"
        if ALL_OF_IT and seed == 0:
            marts_equal_the_oracle(place, events)
        assert "Traceback" not in place.log(), happened


def marts_equal_the_oracle(place: World, events: list[dict[str, object]]) -> None:
    """What dbt makes of what survived is what the events say."""
    chain = Chain(place.settings, place.folder)
    try:
        chain.build()
        expected = oracle.marts(events)
        for name, columns in (
            ("retention_curve", ("views", "watching_views", "segment_plays", "stopped_watching", "at_risk")),
            ("engagement_summary", ("views", "unique_viewers", "sessions", "invalid_intervals")),
        ):
            found, wanted = chain.mart(name), getattr(expected, name)
            assert found.keys() == wanted.keys()
            for key, row in found.items():
                assert [row[column] for column in columns] == [wanted[key][column] for column in columns], (name, key)
    finally:
        chain.client.close()


@when_asked
def test_an_answer_that_never_comes_is_not_waited_for_for_ever(broker: str, tmp_path: Path) -> None:
    with world.running(tmp_path, broker, 16) as place:
        ingest = place.start_ingest(INGEST_ANSWER_SECONDS="1")
        place.publish(500)
        world.wait_until(place.caught_up, "the first events")
        # Stored, and nobody hears of it; these connections stay open and still even when others answer again.
        place.proxy.mute = True
        place.publish(500)
        world.wait_until(lambda: place.proxy.muted > 3, "answers not to come")
        place.proxy.mute = False
        world.wait_until(place.caught_up, "ingest to try again")
        place.check()
        assert ingest.terminate() == 0
        assert "Traceback" not in place.log()


@when_asked
def test_a_stop_while_an_answer_never_comes_leaves_the_batch_to_the_next_run(broker: str, tmp_path: Path) -> None:
    with world.running(tmp_path, broker, 17) as place:
        # Longer than the test waits for the process to end.
        ingest = place.start_ingest(INGEST_ANSWER_SECONDS="1000")
        place.publish(500)
        world.wait_until(place.caught_up, "the first events")
        place.proxy.mute = True
        place.publish(500)
        world.wait_until(lambda: place.proxy.muted > 0, "an answer not to come")
        assert ingest.terminate() == 0
        place.proxy.mute = False
        place.settle()
        place.check()
        assert "Traceback" not in place.log()


@when_asked
def test_an_owner_that_slept_through_a_rebalance_doubles_nothing(broker: str, tmp_path: Path) -> None:
    with world.running(tmp_path, broker, 11) as place:
        sleeper = place.start_ingest()
        with place.publishing():
            world.wait_until(lambda: stored(place) > 0, "the first events")
            # Asleep with a batch that is announced and in part on its way.
            faults.answers_are_lost(place)
            sleeper.freeze()
            place.start_ingest()
            # What came after it fell asleep, it cannot have read: another owner has stored it.
            ends = place.ends()
            world.wait_until(lambda: place.reached_beyond(ends), "another ingest to own every partition")
            sleeper.thaw()
            faults.nap(place, 1, 2)
            assert sleeper.runs
        place.settle()
        place.check()


def test_a_wall_clock_that_jumps_by_hours_loses_and_doubles_nothing(broker: str, tmp_path: Path) -> None:
    library = clock.build(tmp_path)
    if isinstance(library, str):
        pytest.skip(library)
    hands = clock.Clock(library, tmp_path / "hands")
    with world.running(tmp_path, broker, 18) as place:
        first = place.start_ingest(**hands.environment)
        with place.publishing():
            world.wait_until(lambda: stored(place) > 0, "the first events")
            for hours in (5, -5, 0, 72, -72):
                hands.set_ahead(hours * 3600)
                ends = place.ends()
                world.wait_until(lambda ends=ends: place.reached_beyond(ends), f"ingest to go on {hours} hours off")
            # A member whose clock is days off from the others'.
            place.start_ingest()
            faults.ingest_is_killed(place)
        place.settle()
        place.check()
        assert hands.asked > 100, "nobody looked at the clock"
        assert "Traceback" not in place.log()
        assert first.runs or first.popen.returncode == -9


@when_asked
def test_two_ingests_of_one_group_share_the_partitions_and_double_nothing(broker: str, tmp_path: Path) -> None:
    with world.running(tmp_path, broker, 12) as place:
        first, second = place.start_ingest(), place.start_ingest()
        with place.publishing():
            world.wait_until(lambda: place.log().count("reading") == 2, "both to join")
            time.sleep(6)
            assert second.terminate() == 0
            time.sleep(2)
        place.settle()
        assert first.terminate() == 0
        assert place.caught_up(), "a graceful stop leaves nothing behind"
        place.check()


@when_asked
def test_without_deduplication_the_oracle_is_red(broker: str, tmp_path: Path) -> None:
    with world.running(tmp_path, broker, 13, deduplicate=False) as place:
        place.start_ingest()
        with place.publishing():
            world.wait_until(lambda: stored(place) > 0, "events")

            def doubled() -> bool:
                return bool(place.ask("select count() > uniqExact(partition, offset) from raw.playback_events")[0][0])

            place.proxy.swallow = 1
            world.wait_until(doubled, "a batch whose answer was lost to be stored again")
        place.settle()
        with pytest.raises(AssertionError, match="stored twice"):
            place.check()


@when_asked
def test_malformed_messages_alone_are_all_rejected_and_stop_nothing(broker: str, tmp_path: Path) -> None:
    with world.running(tmp_path, broker, 14) as place:
        place.start_ingest()
        place.publish(3000, malformed=1.0)
        place.publish(500, malformed=0.0)
        place.settle()
        assert len(place.check()) == 500


@when_asked
def test_a_full_disk_is_waited_for(broker: str, tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=256m", "tmpfs", str(small)], capture_output=True, text=True, check=False
    )
    if mounted.returncode != 0:
        pytest.skip(f"a small disk cannot be mounted here: {mounted.stderr.strip()}")
    try:
        with world.running(tmp_path, broker, 15, clickhouse_folder=small / "clickhouse") as place:
            place.start_ingest()
            with place.publishing():
                world.wait_until(lambda: stored(place) > 0, "events")
                filler = small / "filler"
                with filler.open("wb") as file, pytest.raises(OSError, match="No space left"):
                    while True:
                        file.write(bytes(1 << 16))
                        file.flush()
                world.wait_until(lambda: "did not take the batch" in place.log(), "ingest to say that it waits")
                assert place.ingests[0].runs
                filler.unlink()
            place.settle()
            place.check()
            assert "Traceback" not in place.log()
    finally:
        subprocess.run(["umount", "-l", str(small)], check=False)
