"""The same on Apache Kafka, with the broker itself killed and cut off; skipped with the reason where there is none."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from retention_platform.contract import EVENTS_TOPIC, VIDEOS_TOPIC
from tests.api_support import free_port
from tests.delivery import faults, world
from tests.delivery.kafka import Kafka, unavailable
from tests.delivery.proxy import Proxy
from tests.delivery.test_faults import ALL_OF_IT, ROUNDS, stored, suffer, when_asked
from tests.delivery.world import World

pytestmark = [
    pytest.mark.skipif(not ROUNDS, reason="DELIVERY_ROUNDS=0: no faults of the delivery path"),
    pytest.mark.timeout(900),
]


@pytest.fixture(scope="module")
def broker_and_proxy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Kafka, Proxy]]:
    """A broker that clients reach through a proxy only, as it advertises it."""
    reason = unavailable()
    if reason is not None:
        pytest.skip(reason)
    port = free_port()
    broker = Kafka(tmp_path_factory.mktemp("kafka") / "broker", advertised_port=port)
    try:
        broker.start()
        with Proxy(broker.port, port) as proxy:
            yield broker, proxy
    finally:
        broker.stop()


@pytest.fixture
def kafka(broker_and_proxy: tuple[Kafka, Proxy]) -> Iterator[tuple[Kafka, Proxy]]:
    """The broker with our topics, empty; they are gone afterwards, however the test ended."""
    broker, proxy = broker_and_proxy
    broker.create_topics(EVENTS_TOPIC, VIDEOS_TOPIC)
    yield broker, proxy
    proxy.refusing = False
    if not broker.runs:
        broker.start()
    broker.delete_topics(EVENTS_TOPIC, VIDEOS_TOPIC)


def made_anew(broker: Kafka) -> None:
    """Under the same names, so that offsets begin at 0 again."""
    broker.delete_topics(EVENTS_TOPIC, VIDEOS_TOPIC)
    broker.create_topics(EVENTS_TOPIC, VIDEOS_TOPIC)


def assert_logs_are_stored_once(place: World, wanted: int) -> None:
    """What was acknowledged in several logs under one name, each once, and nothing else, without FINAL."""
    stored = place.ask("select toString(event_id) from raw.playback_events")
    assert len(stored) == wanted, "more or less than was acknowledged"
    assert {row[0] for row in stored} == place.acknowledged
    rejected = place.ask("select JSONExtractString(payload, 'event_id') from raw.rejected_events")
    assert sorted(row[0] for row in rejected) == sorted(place.refused_by_contract)


@pytest.mark.parametrize("seed", range(max(ROUNDS, 1)))
def test_faults_of_every_part_lose_and_double_nothing(kafka: tuple[Kafka, Proxy], tmp_path: Path, seed: int) -> None:
    broker, proxy = kafka

    def the_broker_is_killed(place: World) -> None:
        broker.kill()
        faults.nap(place, 0.2, 2)
        broker.start()

    def the_broker_is_cut_off(place: World) -> None:
        proxy.refusing = True
        proxy.cut()
        faults.nap(place, 0.3, 2)
        proxy.refusing = False

    kinds = [the_broker_is_killed, the_broker_is_cut_off]
    kinds += [*kinds, *faults.ALL] if ALL_OF_IT else [faults.ingest_is_killed, faults.answers_are_lost]
    # The log's identity is the broker's own here.
    with world.running(tmp_path, f"127.0.0.1:{proxy.port}", 100 + seed, log_id="") as place:
        happened = suffer(place, kinds)
        the_broker_is_killed(place)
        place.settle()
        assert len(place.check()) > 1000, happened
        assert "Traceback" not in place.log(), happened


@when_asked
def test_a_topic_made_anew_between_two_runs_is_not_taken_for_the_old_one(
    kafka: tuple[Kafka, Proxy], tmp_path: Path
) -> None:
    broker, proxy = kafka
    with world.running(tmp_path, f"127.0.0.1:{proxy.port}", 200, log_id="") as place:
        for count in (900, 400):
            ingest = place.start_ingest()
            place.publish(count)
            world.wait_until(lambda: stored(place) == len(place.acknowledged), "all that was acknowledged")
            assert ingest.terminate() == 0
            made_anew(broker)
        assert_logs_are_stored_once(place, len(place.acknowledged))


@when_asked
@pytest.mark.parametrize(("before", "after"), [(900, 300), (300, 900)], ids=["shorter", "longer"])
def test_a_topic_made_anew_behind_a_running_ingest_is_read_from_its_beginning(
    kafka: tuple[Kafka, Proxy], tmp_path: Path, before: int, after: int
) -> None:
    broker, proxy = kafka
    with world.running(tmp_path, f"127.0.0.1:{proxy.port}", 201, log_id="") as place:
        ingest = place.start_ingest()
        place.publish(before)
        world.wait_until(place.caught_up, "the first log to be stored")
        # Too short for the group to notice, and it never sees that the topic was away: nothing is dealt anew.
        ingest.freeze()
        made_anew(broker)
        place.publish(after)
        ingest.thaw()
        world.wait_until(lambda: stored(place) >= len(place.acknowledged), "the second log to be stored")
        place.publish(100)
        world.wait_until(lambda: stored(place) >= len(place.acknowledged), "what came later to be stored")
        assert ingest.terminate() == 0
        assert_logs_are_stored_once(place, len(place.acknowledged))
