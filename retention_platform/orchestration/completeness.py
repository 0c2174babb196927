"""Is everything that the broker has stored? Counted offset by offset, per partition.

A hole in the stored offsets is not yet a loss: of a message that a client sent twice one copy remains, and transaction
markers and compaction leave holes of their own. So the messages at the holes are read from the broker again, and only
one that is stored nowhere counts as missing.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

import orjson
from confluent_kafka import KafkaException, TopicPartition

from retention_platform.contract import EVENTS_TOPIC
from retention_platform.ingest.broker import PartitionLag, broker_away, lag_of, log_identity, watching
from retention_platform.orchestration.raw_mark import unreadable

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client
    from confluent_kafka import Consumer

    from retention_platform.settings import Settings

#: How many of a partition's newest offsets are compared; a bound on time and memory for topics kept for months.
OFFSETS_COMPARED = 1_000_000
#: How many holes of a partition, the newest first, are looked up on the broker.
HOLES_LOOKED_UP = 2_000
#: How many of a partition's missing offsets are named.
OFFSETS_TOLD = 20
#: How long one partition's messages are read at most, and after how much silence there are no more.
READING_SECONDS = 10.0
SILENCE_SECONDS = 2.0

#: Where the messages of a topic may be stored.
_TABLES = {EVENTS_TOPIC: ("playback_events", "rejected_events", "erased_messages")}
_OTHER_TABLES = ("videos", "rejected_events")

_HOLES = """
select toInt64({first:Int64} + number) as missing
from numbers({length:UInt64})
where missing not in ({stored})
order by missing desc
limit {limit:UInt32}
"""
_STORED = (
    "select offset from raw.{table} where log_id = {{log:String}} and topic = {{topic:String}} "
    "and partition = {{partition:Int32}} and offset >= {{first:Int64}}"
)

#: Copies of events, and of videos, among which a message is looked for.
_COPIES = {
    True: "select distinct video_id, session_id, lower(toString(event_id)) from raw.playback_events "
    "where video_id in {first:Array(String)} and session_id in {second:Array(String)}",
    False: "select distinct video_id, title, '' from raw.videos "
    "where video_id in {first:Array(String)} and title in {second:Array(String)}",
}
#: Longer parameters travel in another form, which not every server in between lets pass.
PARAMETER_CHARACTERS = 4_000

#: Video, session and event; video, title and nothing for a video's description.
Key = tuple[str, str, str]


@dataclass(frozen=True)
class Coverage:
    """One partition: the broker's offsets from ``first`` to ``end``; up to ``committed`` they should be stored.

    ``stored`` and ``holes`` count in [first, committed); ``missing`` are holes whose message is stored nowhere.
    """

    topic: str
    partition: int
    first: int
    committed: int
    end: int
    stored: int
    holes: int
    missing: tuple[int, ...]

    @property
    def waiting(self) -> int:
        """Messages that ingest has not stored yet."""
        return self.end - max(self.committed, self.first)

    def told(self) -> str:
        """The offsets that are missing, the newest first: the first of many, and how many more there are."""
        more = len(self.missing) - OFFSETS_TOLD
        return ", ".join(map(str, self.missing[:OFFSETS_TOLD])) + (f" and {more:,} more" if more > 0 else "")


@dataclass(frozen=True)
class Verdict:
    """The check's answer."""

    passed: bool
    reason: str


def judge(coverages: Sequence[Coverage], oldest_waiting_s: float | None, patience_s: float) -> Verdict:
    """Passed when no message is missing, and none has waited longer than ``patience_s`` seconds to be stored."""
    missing = [coverage for coverage in coverages if coverage.missing]
    if missing:
        where = "; ".join(f"{each.topic}/{each.partition} at {each.told()}" for each in missing)
        return Verdict(False, f"{sum(len(each.missing) for each in missing)} messages are not stored: {where}")
    waiting = sum(coverage.waiting for coverage in coverages)
    if waiting and oldest_waiting_s is not None and oldest_waiting_s > patience_s:
        return Verdict(
            False, f"{waiting} messages wait to be stored, the oldest for {oldest_waiting_s:.0f} s: is ingest up?"
        )
    holes = sum(coverage.holes for coverage in coverages)
    compared = sum(coverage.stored + coverage.holes for coverage in coverages)
    return Verdict(True, f"{compared} offsets compared: all stored, {holes} of them as copies; {waiting} still to come")


def survey(client: Client, settings: Settings) -> tuple[list[Coverage], float | None]:
    """Each partition's coverage, and the seconds that the oldest message still to be stored has waited (None: none).

    Raises ServiceError when the broker or ClickHouse is away, SettingsError when no broker is known.
    """
    with watching(settings) as consumer:
        # In this order: what is committed now was stored before.
        lags = lag_of(consumer, settings)
        log_ids = log_identity(settings)
        try:
            coverages = [_coverage(client, consumer, settings, lag, log_ids[lag.topic]) for lag in lags]
            return coverages, _oldest_waiting(consumer, lags)
        except KafkaException as error:
            raise broker_away(settings, error) from None


def _coverage(client: Client, consumer: Consumer, settings: Settings, lag: PartitionLag, log_id: str) -> Coverage:
    first = max(lag.low, lag.committed - OFFSETS_COMPARED, 0)
    length = max(0, lag.committed - first)
    tables = _TABLES.get(lag.topic, _OTHER_TABLES)
    parameters: dict[str, Any] = {"log": log_id, "topic": lag.topic, "partition": lag.partition, "first": first}
    stored_offsets = " union all ".join(_STORED.format(table=table) for table in tables)
    try:
        stored = client.query(
            f"select uniqExact(offset) from ({stored_offsets}) where offset < {{beyond:Int64}}",
            parameters={**parameters, "beyond": first + length},
        ).result_rows[0][0]
        holes: list[int] = []
        if stored < length:
            text = _HOLES.replace("{stored}", stored_offsets)
            answer = client.query(text, parameters={**parameters, "length": length, "limit": HOLES_LOOKED_UP})
            holes = [int(row[0]) for row in answer.result_rows]
    except Exception as error:
        raise unreadable(error) from None
    messages = messages_at(consumer, lag.topic, lag.partition, holes)
    missing = not_stored(client, lag.topic, messages, settings.raw_ttl_days)
    return Coverage(
        topic=lag.topic,
        partition=lag.partition,
        first=first,
        committed=first + length,
        end=max(lag.end, lag.committed),
        stored=int(stored),
        holes=length - int(stored),
        missing=tuple(sorted(missing, reverse=True)),
    )


def messages_at(consumer: Consumer, topic: str, partition: int, offsets: Sequence[int]) -> dict[int, bytes]:
    """Offset to message, of those offsets that the broker has a message at; as many as can be read in time.

    One pass from the lowest to the highest: asking for each alone takes the broker's waiting time each time.
    """
    wanted, found = set(offsets), dict[int, bytes]()
    if wanted:
        for message in _messages_from(consumer, topic, partition, min(wanted)):
            offset = message.offset()
            if offset in wanted:
                found[offset] = message.value() or b""
            if offset >= max(wanted):
                break
    return found


def _messages_from(consumer: Consumer, topic: str, partition: int, offset: int) -> Iterator[Any]:
    """Messages from an offset on; ends when none comes for a while, or the time for reading is over."""
    consumer.assign([TopicPartition(topic, partition, offset)])
    try:
        heard = began = time.monotonic()
        while (now := time.monotonic()) < min(began + READING_SECONDS, heard + SILENCE_SECONDS):
            for message in consumer.consume(5_000, timeout=0.1):
                if message.error() is not None:
                    raise KafkaException(message.error())
                yield message
                heard = now
    finally:
        consumer.unassign()


def not_stored(client: Client, topic: str, messages: Mapping[int, bytes], ttl_days: int) -> set[int]:
    """The offsets among ``messages`` that are stored nowhere, under no offset, and not old enough to be gone by TTL."""
    keys = {offset: key_of(topic, message) for offset, message in messages.items()}
    stored = set[Key]()
    for group in in_groups(sorted({key for key in keys.values() if key})):
        try:
            rows = client.query(
                _COPIES[topic == EVENTS_TOPIC],
                parameters={"first": sorted({key[0] for key in group}), "second": sorted({key[1] for key in group})},
            ).result_rows
        except Exception as error:
            raise unreadable(error) from None
        stored |= {(str(first), str(second), str(third)) for first, second, third in rows}
    return {
        offset
        for offset, key in keys.items()
        if key not in stored and not is_expired(messages[offset], ttl_days, datetime.now(timezone.utc))
    }


def key_of(topic: str, message: bytes) -> Key | None:
    """What a copy of the message is found by; None when it is no message of the contract."""
    try:
        value = orjson.loads(message)
        if topic == EVENTS_TOPIC:
            return str(value["video_id"]), str(value["session_id"]), str(value["event_id"]).lower()
        return str(value["video_id"]), str(value["title"]), ""
    except (ValueError, KeyError, TypeError):
        return None


def in_groups(keys: Iterable[Key]) -> Iterator[list[Key]]:
    """The keys in groups small enough for one query's parameters."""
    group, size = list[Key](), 0
    for key in keys:
        length = sum(map(len, key))
        if group and size + length > PARAMETER_CHARACTERS:
            yield group
            group, size = [], 0
        group.append(key)
        size += length
    if group:
        yield group


def is_expired(message: bytes, ttl_days: int, now: datetime) -> bool:
    """Whether the raw table's TTL may have taken the message's row; never without a TTL."""
    if not ttl_days:
        return False
    try:
        when = orjson.loads(message)["event_time"]
        moment = (
            datetime.fromtimestamp(when / 1000, timezone.utc)
            if isinstance(when, (int, float))
            else datetime.fromisoformat(str(when).replace("Z", "+00:00"))
        )
    except (ValueError, KeyError, TypeError):
        return False
    moment = moment if moment.tzinfo else moment.replace(tzinfo=timezone.utc)
    return moment < now - timedelta(days=ttl_days)


def _oldest_waiting(consumer: Consumer, lags: Iterable[PartitionLag]) -> float | None:
    """Seconds since the oldest message after the committed offsets was written; None when all is stored."""
    ages = []
    for lag in lags:
        if lag.lag:
            first = next(_messages_from(consumer, lag.topic, lag.partition, max(lag.committed, lag.low)), None)
            if first is not None:
                ages.append(time.time() - first.timestamp()[1] / 1000)
    return max(ages, default=None)
