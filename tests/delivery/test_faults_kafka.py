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
from tests.delivery.test_faults import ROUNDS, suffer
from tests.delivery.world import World

pytestmark = [
    pytest.mark.skipif(not ROUNDS, reason="faults of the delivery path take minutes: DELIVERY_ROUNDS=2 runs them"),
    pytest.mark.timeout(600),
]


@pytest.fixture(scope="module")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Kafka, Proxy]]:
    """A broker that clients reach through a proxy only, as it advertises it."""
    reason = unavailable()
    if reason is not None:
        pytest.skip(reason)
    port = free_port()
    broker = Kafka(tmp_path_factory.mktemp("kafka") / "broker", advertised_port=port)
    broker.start()
    with Proxy(broker.port, port) as proxy:
        yield broker, proxy
    broker.stop()


@pytest.mark.parametrize("seed", range(max(ROUNDS, 1)))
def test_faults_of_every_part_lose_and_double_nothing(kafka: tuple[Kafka, Proxy], tmp_path: Path, seed: int) -> None:
    broker, proxy = kafka
    broker.create_topics(EVENTS_TOPIC, VIDEOS_TOPIC)

    def the_broker_is_killed(place: World) -> None:
        broker.kill()
        faults.nap(place, 0.2, 2)
        broker.start()

    def the_broker_is_cut_off(place: World) -> None:
        proxy.refusing = True
        proxy.cut()
        faults.nap(place, 0.3, 2)
        proxy.refusing = False

    kinds = (*faults.ALL, the_broker_is_killed, the_broker_is_killed, the_broker_is_cut_off, the_broker_is_cut_off)
    address = f"127.0.0.1:{proxy.port}"
    # The log's identity is the broker's own here.
    with world.running(tmp_path, address, 100 + seed, log_id="") as place:
        happened = suffer(place, 12, kinds)
        the_broker_is_killed(place)
        place.settle()
        assert len(place.check()) > 500, happened
        assert "Traceback" not in place.log(), happened

    # Made anew under the same name, offsets begin at 0 again, and nothing is taken for what was there.
    delete_topics(broker)
    broker.create_topics(EVENTS_TOPIC, VIDEOS_TOPIC)
    before = None
    with world.running(
        tmp_path / "again", address, 200 + seed, log_id="", clickhouse_folder=tmp_path / "clickhouse"
    ) as place:
        before = place.ask("select count() from raw.playback_events")[0][0]
        place.start_ingest()
        place.publish(400)
        place.settle()
        stored = place.ask("select count() from raw.playback_events")[0][0] - before
        rejected = place.ask("select count() from raw.rejected_events")[0][0]
        assert before > 500
        assert stored == len(place.acknowledged)
        assert rejected >= len(place.refused_by_contract)
    delete_topics(broker)


def delete_topics(broker: Kafka) -> None:
    from confluent_kafka.admin import AdminClient

    admin = AdminClient({"bootstrap.servers": f"{broker.address}", "log_level": 0})
    for future in admin.delete_topics([EVENTS_TOPIC, VIDEOS_TOPIC]).values():
        future.result(30)
    world.wait_until(
        lambda: not {EVENTS_TOPIC, VIDEOS_TOPIC} & set(admin.list_topics(timeout=10).topics), "the topics to be gone"
    )
