"""Rejected messages: finding them, writing them out to be mended, and sending them again.

A message is known by its place: log, topic, partition, offset. What was sent again is marked, and not sent a second
time; a crash between the two sends it twice with one event_id, which counts once.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from typing import IO, TYPE_CHECKING, Any, Protocol

from retention_platform.contract import VIDEOS_TOPIC, parse_event, parse_video
from retention_platform.errors import ContractError, RetentionError

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client

#: (log_id, topic, partition, offset)
Place = tuple[str, str, int, int]

_NOT_REPLAYED = (
    "(topic, log_id, partition, offset) not in (select topic, log_id, partition, offset from raw.replayed_rejects)"
)


@dataclass(frozen=True)
class Filter:
    """Which rejected messages; an empty text or None is no condition."""

    field: str = ""
    reason: str = ""
    topic: str = ""
    since: datetime | None = None
    replayed: bool = False

    def sql(self) -> tuple[str, dict[str, Any]]:
        """The condition, and its parameters."""
        conditions, parameters = ["1"], dict[str, Any]()
        for column, wanted in (("field", self.field), ("topic", self.topic)):
            if wanted:
                conditions.append(f"{column} = {{{column}:String}}")
                parameters[column] = wanted
        if self.reason:
            conditions.append("positionCaseInsensitive(reason, {reason:String}) > 0")
            parameters["reason"] = self.reason
        if self.since is not None:
            conditions.append("rejected_at >= fromUnixTimestamp64Milli({since:Int64}, 'UTC')")
            parameters["since"] = int(self.since.timestamp() * 1000)
        if not self.replayed:
            conditions.append(_NOT_REPLAYED)
        return " and ".join(conditions), parameters


@dataclass(frozen=True)
class Reject:
    """One rejected message, whole."""

    log_id: str
    topic: str
    partition: int
    offset: int
    rejected_at: datetime
    field: str
    reason: str
    key: bytes
    payload: bytes

    @property
    def place(self) -> Place:
        """Where it is in the log; nothing else is there."""
        return self.log_id, self.topic, self.partition, self.offset


def count(client: Client, wanted: Filter) -> int:
    """How many there are."""
    where, parameters = wanted.sql()
    sql = f"select count() from raw.rejected_events final where {where}"
    return int(client.query(sql, parameters=parameters).result_rows[0][0])


def find(client: Client, wanted: Filter, limit: int | None = None) -> Iterator[Reject]:
    """Rejected messages, the newest first when there is a limit, else in the order of their places."""
    where, parameters = wanted.sql()
    order = "topic, log_id, partition, offset" if limit is None else "rejected_at desc, topic, partition, offset"
    sql = (
        "select log_id, topic, partition, offset, rejected_at, field, reason, base64Encode(key), base64Encode(payload) "
        f"from raw.rejected_events final where {where} order by {order}{'' if limit is None else f' limit {limit:d}'}"
    )
    with client.query_rows_stream(sql, parameters=parameters) as rows:
        for log_id, topic, partition, offset, at, field, reason, key, payload in rows:
            moment = at if at.tzinfo else at.replace(tzinfo=timezone.utc)
            content = base64.b64decode(key), base64.b64decode(payload)
            yield Reject(log_id, topic, partition, offset, moment, field, reason, *content)


def export(rejects: Iterable[Reject], out: IO[str]) -> int:
    """Write them as JSON lines to be edited and sent again; how many. Bytes that are no text go as base64."""
    written = 0
    for reject in rejects:
        line = asdict(reject) | {"rejected_at": reject.rejected_at.isoformat()}
        for name in ("key", "payload"):
            value = line.pop(name)
            try:
                line[name] = value.decode()
            except UnicodeDecodeError:
                line[f"{name}_base64"] = base64.b64encode(value).decode()
        out.write(json.dumps(line, ensure_ascii=False) + "\n")
        written += 1
    return written


def read_export(lines: Iterable[str], name: str) -> Iterator[Reject]:
    """What `export` wrote, edited or not. Raises RetentionError naming the line that cannot be used."""
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            value = json.loads(line)
            yield Reject(
                log_id=str(value["log_id"]),
                topic=str(value["topic"]),
                partition=int(value["partition"]),
                offset=int(value["offset"]),
                rejected_at=datetime.fromisoformat(value["rejected_at"]),
                field=str(value.get("field", "")),
                reason=str(value.get("reason", "")),
                key=_bytes(value, "key"),
                payload=_bytes(value, "payload"),
            )
        except (ValueError, KeyError, TypeError) as error:
            raise RetentionError(
                f"{name}, line {number}: not a line of `retention rejects --export` ({type(error).__name__}: {error})"
            ) from None


def _bytes(value: dict[str, Any], name: str) -> bytes:
    if f"{name}_base64" in value:
        return base64.b64decode(value[f"{name}_base64"], validate=True)
    content = value[name]
    # A payload edited into an object of its own, in place of a text that holds one, is meant the same.
    return (content if isinstance(content, str) else json.dumps(content)).encode()


def fault_of(reject: Reject) -> str | None:
    """Why a message would be rejected again, sent now; None when it is the contract."""
    try:
        if reject.topic == VIDEOS_TOPIC:
            parse_video(reject.payload)
        else:
            parse_event(reject.payload, datetime.now(timezone.utc))
    except ContractError as error:
        return str(error)
    return None


class Publisher(Protocol):
    """Sends messages; `flush` returns when all are acknowledged."""

    def send(self, topic: str, key: str, value: bytes) -> None:
        """Hand over one message."""

    def flush(self, seconds: float = ...) -> None:
        """Wait for the acknowledgements."""


@dataclass
class Replay:
    """What came of sending again."""

    sent: int = 0
    still_wrong: int = 0
    sent_before: int = 0
    unknown: int = 0


#: Messages sent, acknowledged and marked together.
CHUNK = 1000


def replay(
    client: Client, publisher: Publisher, rejects: Iterable[Reject], on_fault: Callable[[Reject, str], None]
) -> Replay:
    """Send those that are the contract, and mark them; ``on_fault`` is told of the others.

    Raises what the publisher raises; what was acknowledged until then is marked.
    """
    result = Replay()
    chunk: list[Reject] = []
    for reject in rejects:
        fault = fault_of(reject)
        if fault is not None:
            result.still_wrong += 1
            on_fault(reject, fault)
            continue
        chunk.append(reject)
        if len(chunk) == CHUNK:
            _send(client, publisher, chunk, result)
            chunk = []
    if chunk:
        _send(client, publisher, chunk, result)
    return result


def _send(client: Client, publisher: Publisher, chunk: list[Reject], result: Replay) -> None:
    known = _places(client, "raw.rejected_events", chunk)
    done = _places(client, "raw.replayed_rejects", chunk)
    fresh: dict[Place, Reject] = {}
    for reject in chunk:
        if reject.place not in known:
            result.unknown += 1
        elif reject.place in done or reject.place in fresh:
            result.sent_before += 1
        else:
            fresh[reject.place] = reject
    for reject in fresh.values():
        publisher.send(reject.topic, _key(reject), reject.payload)
    publisher.flush()
    if fresh:
        client.insert("raw.replayed_rejects", list(fresh), column_names=["log_id", "topic", "partition", "offset"])
    result.sent += len(fresh)


def _key(reject: Reject) -> str:
    """The key that the contract asks for, of the message as it is now."""
    message = json.loads(reject.payload)
    return str(message["video_id"] if reject.topic == VIDEOS_TOPIC else message["session_id"])


def _places(client: Client, table: str, chunk: list[Reject]) -> set[Place]:
    rows = client.query(
        f"select distinct log_id, topic, partition, offset from {table} "
        "where (log_id, topic, partition, offset) in {places:Array(Tuple(String, String, Int32, Int64))}",
        parameters={"places": [reject.place for reject in chunk]},
    ).result_rows
    return {(log_id, topic, partition, offset) for log_id, topic, partition, offset in rows}
