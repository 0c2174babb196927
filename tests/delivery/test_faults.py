"""Nothing lost and nothing doubled on the development broker, whatever fails at whatever moment.

They take minutes, and run when they are asked for: DELIVERY_ROUNDS=2 runs two seeded rounds of all faults together,
and each of the others once.
"""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from retention_platform.embedded import broker as embedded_broker
from tests import oracle
from tests.dbt_support import Chain
from tests.delivery import faults, world
from tests.delivery.world import World

ROUNDS = int(os.environ.get("DELIVERY_ROUNDS", "0"))

pytestmark = [
    pytest.mark.skipif(not ROUNDS, reason="faults of the delivery path take minutes: DELIVERY_ROUNDS=2 runs them"),
    pytest.mark.timeout(600),
]


@pytest.fixture
def broker() -> Iterator[str]:
    with embedded_broker.running() as address:
        yield address


def suffer(place: World, steps: int, kinds: tuple[faults.Fault, ...] = faults.ALL) -> list[str]:
    """Let ``steps`` faults happen while events keep coming; their names in order."""
    happened = []
    place.start_ingest()
    with place.publishing():
        world.wait_until(lambda: place.ask("select count() from raw.playback_events")[0][0] > 0, "the first events")
        for _ in range(steps):
            fault = place.rng.choice(kinds)
            happened.append(fault.__name__)
            fault(place)
            faults.nap(place, 0.1, 0.8)
    return happened


@pytest.mark.parametrize("seed", range(max(ROUNDS, 1)))
def test_faults_at_any_moment_lose_and_double_nothing(broker: str, tmp_path: Path, seed: int) -> None:
    with world.running(tmp_path, broker, seed) as place:
        happened = suffer(place, 10)
        place.settle()
        events = place.check()
        assert len(events) > 1000, "too little traffic to show anything"
        if seed == 0:
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


def test_an_owner_that_slept_through_a_rebalance_doubles_nothing(broker: str, tmp_path: Path) -> None:
    with world.running(tmp_path, broker, 11) as place:
        sleeper = place.start_ingest()
        with place.publishing():
            world.wait_until(lambda: place.ask("select count() from raw.playback_events")[0][0] > 0, "the first events")
            # Asleep with a batch that is announced and in part on its way.
            faults.answers_are_lost(place)
            sleeper.freeze()
            place.start_ingest()
            reached = place.reached()
            # Further than what was on its way when it fell asleep: by another owner, then.
            world.wait_until(
                lambda: all(end > reached.get(partition, 0) + 1000 for partition, end in place.reached().items()),
                "another ingest to own every partition",
            )
            sleeper.thaw()
            faults.nap(place, 1, 2)
            assert sleeper.runs
        place.settle()
        place.check()


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


def test_without_deduplication_the_oracle_is_red(broker: str, tmp_path: Path) -> None:
    with world.running(tmp_path, broker, 13, deduplicate=False) as place:
        place.start_ingest()
        with place.publishing():
            world.wait_until(lambda: place.ask("select count() from raw.playback_events")[0][0] > 0, "events")

            def doubled() -> bool:
                place.proxy.swallow = 1
                return bool(place.ask("select count() > uniqExact(partition, offset) from raw.playback_events")[0][0])

            world.wait_until(doubled, "a batch whose answer was lost to be stored again")
        place.settle()
        with pytest.raises(AssertionError, match="stored twice"):
            place.check()


def test_malformed_messages_alone_are_all_rejected_and_stop_nothing(broker: str, tmp_path: Path) -> None:
    with world.running(tmp_path, broker, 14) as place:
        place.start_ingest()
        place.publish(3000, malformed=1.0)
        place.publish(500, malformed=0.0)
        place.settle()
        assert len(place.check()) == 500


def test_a_full_disk_is_waited_for(broker: str, tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=96m", "tmpfs", str(small)], capture_output=True, text=True, check=False
    )
    if mounted.returncode != 0:
        pytest.skip(f"a small disk cannot be mounted here: {mounted.stderr.strip()}")
    try:
        with world.running(tmp_path, broker, 15, clickhouse_folder=small / "clickhouse") as place:
            place.start_ingest()
            with place.publishing():
                world.wait_until(lambda: place.ask("select count() from raw.playback_events")[0][0] > 0, "events")
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
