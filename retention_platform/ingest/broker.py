"""What ingest and its watchers ask the broker: the log's identity, topics, and how far behind a group is."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from dataclasses import dataclass
from typing import Any

from confluent_kafka import Consumer, KafkaException, TopicCollection, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from retention_platform.contract import EVENTS_TOPIC, VIDEOS_TOPIC
from retention_platform.errors import ServiceError
from retention_platform.settings import Settings
from retention_platform.warehouse.client import first_line

TOPICS = (EVENTS_TOPIC, VIDEOS_TOPIC)
_NO_TOPIC_ID = "AAAAAAAAAAAAAAAAAAAAAA"


@dataclass(frozen=True)
class PartitionLag:
    """How far the group is in one partition; offsets are the next to read and one past the last written."""

    topic: str
    partition: int
    committed: int
    low: int
    end: int

    @property
    def lag(self) -> int:
        """Messages written and not yet stored."""
        return max(0, self.end - max(self.committed, self.low))


@contextlib.contextmanager
def watching(settings: Settings) -> Iterator[Consumer]:
    """A consumer that never joins the group: it only asks for offsets."""
    consumer = Consumer(
        {
            **settings.kafka_config(),
            "group.id": settings.kafka_group,
            "enable.auto.commit": False,
            "log_level": 0,
        }
    )
    try:
        yield consumer
    finally:
        consumer.close()


def group_lag(settings: Settings, *, timeout: float = 5.0) -> list[PartitionLag]:
    """The ingest group's place in every partition of our topics. Raises ServiceError when the broker is away."""
    with watching(settings) as consumer:
        return lag_of(consumer, settings, timeout=timeout)


def lag_of(consumer: Consumer, settings: Settings, *, timeout: float = 5.0) -> list[PartitionLag]:
    """As `group_lag`, over a consumer that is already open."""
    try:
        known = consumer.list_topics(timeout=timeout).topics
        places = [TopicPartition(t, p) for t in TOPICS if t in known for p in sorted(known[t].partitions)]
        lags = []
        for place in consumer.committed(places, timeout=timeout) if places else []:
            low, end = consumer.get_watermark_offsets(TopicPartition(place.topic, place.partition), timeout=timeout)
            lags.append(PartitionLag(place.topic, place.partition, max(place.offset, 0), low, end))
        return lags
    except KafkaException as error:
        raise broker_away(settings, error) from None


def broker_away(settings: Settings, error: BaseException) -> ServiceError:
    """The one line for a broker that does not answer, or does not let us in: librdkafka calls both a timeout."""
    hint = "start it with `retention up`, or check KAFKA_BOOTSTRAP_SERVERS"
    if settings.kafka_security_protocol != "PLAINTEXT":
        hint = (
            f"check KAFKA_BOOTSTRAP_SERVERS, KAFKA_SECURITY_PROTOCOL ({settings.kafka_security_protocol}), "
            "and the user, password and certificates of KAFKA_SASL_* and KAFKA_SSL_*"
        )
    return ServiceError(
        f"Kafka broker at {settings.kafka_bootstrap_servers} does not answer ({first_line(error)}): {hint}"
    )


def ensure_topics(settings: Settings, *, partitions: int = 4, timeout: float = 15.0) -> list[str]:
    """Create those of our topics that the broker does not have; their names. Raises ServiceError."""
    admin = AdminClient({**settings.kafka_config(), "log_level": 0})
    try:
        known = admin.list_topics(timeout=timeout).topics
        missing = [topic for topic in TOPICS if topic not in known]
        if missing:
            made = admin.create_topics(
                [NewTopic(topic, num_partitions=partitions) for topic in missing], operation_timeout=timeout
            )
            for future in made.values():
                future.result(timeout)
        return missing
    except (KafkaException, TimeoutError, FutureTimeout) as error:
        raise broker_away(settings, error) from None


def log_identity(settings: Settings, topics: tuple[str, ...] = TOPICS, *, timeout: float = 10.0) -> dict[str, str]:
    """Topic to the identity of its log: cluster id and topic id, which change when a topic is made anew.

    ``KAFKA_LOG_ID`` replaces the question, for brokers that know no topic ids. Raises ServiceError.
    """
    if settings.kafka_log_id:
        return dict.fromkeys(topics, settings.kafka_log_id)
    admin = AdminClient({**settings.kafka_config(), "log_level": 0})
    try:
        cluster = str(admin.list_topics(timeout=timeout).cluster_id)
        described = admin.describe_topics(TopicCollection(list(topics)), request_timeout=timeout)
        identities = {}
        for topic, future in described.items():
            topic_id = str(future.result(timeout).topic_id)
            identities[topic] = cluster if topic_id == _NO_TOPIC_ID else f"{cluster}.{topic_id}"
        return identities
    except (KafkaException, TimeoutError, FutureTimeout) as error:
        raise broker_away(settings, error) from None


class LogQuestion:
    """Whether topics still are the logs they were, asked and perhaps not answered yet."""

    def __init__(self, futures: Mapping[str, Future[Any]]) -> None:
        self._futures = futures

    @property
    def answered(self) -> bool:
        """Whether `changed` knows."""
        return all(future.done() for future in self._futures.values())

    def changed(self, known: Mapping[str, str]) -> set[str]:
        """The topics whose log is another than the identity in ``known`` says. Raises KafkaException, if it was said
        of none, where the broker could not tell of one.
        """
        changed = set()
        failure: KafkaException | None = None
        for topic, future in self._futures.items():
            try:
                topic_id = str(future.result(0).topic_id)
            except KafkaException as error:
                failure = error
                continue
            if topic_id != _NO_TOPIC_ID and not known[topic].endswith(f".{topic_id}"):
                changed.add(topic)
        if failure is not None and not changed:
            raise failure
        return changed


class LogWatch:
    """Asks a running broker again and again which logs its topics are, without ever waiting for it."""

    def __init__(self, settings: Settings) -> None:
        # A log that was named for us is never another.
        self._admin = None if settings.kafka_log_id else AdminClient({**settings.kafka_config(), "log_level": 0})

    def ask(self, topics: Iterable[str], *, timeout: float = 5.0) -> LogQuestion:
        """Ask now; what is answered was so at some time after this call. ``timeout`` in seconds."""
        names = sorted(set(topics))
        if self._admin is None or not names:
            return LogQuestion({})
        return LogQuestion(self._admin.describe_topics(TopicCollection(names), request_timeout=timeout))
