"""Where batches go: raw.inbox of ClickHouse, and what its answers mean for the batch."""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Sequence
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any, Protocol

from clickhouse_connect.driver.exceptions import Error

from retention_platform.errors import ServiceError
from retention_platform.ingest.batch import INBOX_COLUMNS, Row, Source, encode_rows
from retention_platform.ingest.quarantine import Fault, Probe, find_poison
from retention_platform.settings import Settings
from retention_platform.warehouse.client import connect, first_line
from retention_platform.warehouse.cluster import quorum, stored

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client

#: The settings every insert carries; one insert is one block, so that its token covers all of it. To compile the views'
#: expressions takes a quarter of a small insert's time and gains a large one nothing.
INSERT_SETTINGS = {
    "async_insert": 0,
    "compile_expressions": 0,
    "deduplicate_blocks_in_dependent_materialized_views": 1,
    "max_insert_block_size": 2_000_000,
    "min_insert_block_size_rows": 0,
    "min_insert_block_size_bytes": 0,
    "max_partitions_per_insert_block": 0,
    "wait_end_of_query": 1,
    # On shards: an insert is done when every shard has its part.
    "distributed_foreground_insert": 1,
}

#: ClickHouse's codes for what is wrong with the server, its load, its disk or our rights, never with a row: tables
#: not there (60, 81, 218), files and disk (74, 75, 76, 243, 425), timeouts and network (159, 209, 210, 279), cancelled
#: (236, 394, 734), the driver's own second try while the first still runs (216), too much at once (202, 241, 252,
#: 439, 473), read-only (164, 242, 497, 516), too few replicas (285, 286), unknown outcome (319), shutdown and keeper
#: (598, 600, 999), a setting it does not know (115).
_NOT_THE_ROWS = {
    *(60, 74, 75, 76, 81, 115, 159, 164, 202, 209, 210, 216, 218, 236, 241, 242, 243, 252, 319, 394, 425, 439, 473),
    *(279, 285, 286, 497, 516, 598, 600, 734, 999),
}

_EPOCH = datetime.fromtimestamp(0, timezone.utc)
#: The latest time that ClickHouse keeps; a producer may claim any.
_LATEST_MS = 10_413_791_999_999
#: A statement's parameters travel in its address, which servers allow a limited length.
_OFFSETS_A_DELETE = 5_000

_REJECTED_COLUMNS = (
    *("log_id", "topic", "partition", "offset", "message_time", "key", "payload"),
    *("field", "reason", "rejected_at"),
)


class Refused(ServiceError):
    """ClickHouse is there and says no, by an error that a row may have caused."""


class Sink(Protocol):
    """Where batches go."""

    def prepare(self) -> None:
        """Do ahead of this thread's first batch what needs no batch. Raises ServiceError, as that batch then would."""

    def insert(self, source: Source, rows: Sequence[Row], token: str) -> None:
        """Insert messages into raw.inbox.

        Raises ServiceError when it may not have happened, and Refused where a row may be why.
        """

    def poison(self, source: Source, rows: Sequence[Row]) -> list[Fault]:
        """Which of the rows cannot be stored, and why, without storing any. Raises ServiceError when nobody can say."""

    def reject(self, source: Source, rows: Sequence[Row], reasons: Sequence[str], token: str) -> None:
        """Store rows among the rejected, and nowhere else; of erased viewers only their places.

        Raises ServiceError when it may not have happened.
        """

    def rejects(self, source: Source, first: int, end: int) -> int:
        """How many of the offsets ``first`` to before ``end`` are among the rejected. Raises ServiceError."""


class ClickHouseSink:
    """Inserts into raw.inbox; connects on first use and again after a failure. For use from several threads."""

    def __init__(self, settings: Settings) -> None:
        self._told = _Told(settings)
        # Another token for each try would not do: the driver sends an insert again by itself, under the same one.
        self._settings = INSERT_SETTINGS | (
            {} if settings.ingest_deduplicate else {"deduplicate_blocks_in_dependent_materialized_views": 0}
        )

    def prepare(self) -> None:
        """See `Sink`: connect, which takes longer than a batch may wait. Raises ServiceError."""
        with self._told:
            pass

    def insert(self, source: Source, rows: Sequence[Row], token: str) -> None:
        """See `Sink`."""
        settings = {**self._settings, "insert_deduplication_token": token}
        with self._told as client:
            _insert(client, "raw.inbox", source, rows, settings)

    def poison(self, source: Source, rows: Sequence[Row]) -> list[Fault]:
        """See `Sink`."""
        with self._told as client, Probe(client) as probe:

            def fault(some: Sequence[Row]) -> str | None:
                try:
                    _insert(client, probe.inbox, source, some, INSERT_SETTINGS)
                except Error as error:
                    if error.code is None or error.code in _NOT_THE_ROWS:
                        raise
                    return first_line(error)
                return None

            return find_poison(rows, fault)

    def reject(self, source: Source, rows: Sequence[Row], reasons: Sequence[str], token: str) -> None:
        """See `Sink`. What a view further down broke may be in the raw tables already: there it is taken out again."""
        now = datetime.now(timezone.utc)
        rejected = []
        for (offset, time_ms, key, payload), reason in zip(rows, reasons, strict=True):
            when = _EPOCH + timedelta(milliseconds=min(time_ms, _LATEST_MS))
            place = (source.log_id, source.topic, source.partition, offset)
            rejected.append([*place, when, key, payload, "message", f"message: cannot be stored: {reason}", now])
        offsets = [offset for offset, *_ in rows]
        # Of one batch others may follow: which rows they are belongs to what must not be stored twice.
        which = hashlib.sha256(repr(offsets).encode()).hexdigest()[:16]
        settings = {**self._settings, "insert_deduplication_token": f"{token}/poison/{which}"}
        # Told by this clock, since no mutation of a replicated table may ask for the time.
        day_ago = int((time.time() - 86_400) * 1000)
        batch = {"since": day_ago, "log": source.log_id, "topic": source.topic, "partition": source.partition}
        with self._told as client:
            client.insert("raw.put_aside", rejected, column_names=_REJECTED_COLUMNS, settings=settings)
            for table in ("raw.playback_events", "raw.videos"):
                for first in range(0, len(offsets), _OFFSETS_A_DELETE):
                    some = offsets[first : first + _OFFSETS_A_DELETE]
                    client.command(
                        f"delete from {stored(client, table)} where "
                        "ingested_at > fromUnixTimestamp64Milli({since:Int64}, 'UTC') "
                        "and log_id = {log:String} and topic = {topic:String} and partition = {partition:Int32} "
                        "and offset in {offsets:Array(Int64)}",
                        parameters={**batch, "offsets": some},
                    )

    def rejects(self, source: Source, first: int, end: int) -> int:
        """See `Sink`."""
        with self._told as client:
            found = client.query(
                "select count() from raw.rejected_events where topic = {topic:String} and log_id = {log:String} "
                "and partition = {partition:Int32} and offset >= {first:Int64} and offset < {end:Int64}",
                parameters={
                    **{"topic": source.topic, "log": source.log_id, "partition": source.partition},
                    **{"first": first, "end": end},
                },
            )
            return int(found.result_rows[0][0])


def _insert(client: Client, table: str, source: Source, rows: Sequence[Row], settings: dict[str, Any]) -> None:
    """Insert into ``table``, which is raw.inbox or like it."""
    # Told the table, the client would copy the block to put the statement before it.
    statement = f"insert into {table} ({', '.join(INBOX_COLUMNS)}) format Native\n".encode()
    client.raw_insert("", insert_block=b"".join((statement, *encode_rows(source, rows))), settings=settings)


class _Told:
    """Each thread's client; what goes wrong with it is a ServiceError, and the thread's next use connects again."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._threads = threading.local()

    def __enter__(self) -> Client:
        client: Client | None = getattr(self._threads, "client", None)
        if client is None:
            client = self._threads.client = self._connected()
        return client

    def _connected(self) -> Client:
        seconds = self._settings.ingest_answer_seconds
        client = connect(self._settings, answer_timeout=seconds, client_name="retention-ingest")
        try:
            replicated = quorum(client)
        except Exception as error:
            raise ServiceError(f"ClickHouse does not say how many replicas it has ({first_line(error)})") from error
        for name, value in replicated.items():
            client.set_client_setting(name, value)
            # Longer than that nobody waits for the answer.
            client.set_client_setting("insert_quorum_timeout", seconds * 1000)
        return client

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if error is None or isinstance(error, ServiceError) or not isinstance(error, Exception):
            return
        self._threads.client = None
        code = error.code if isinstance(error, Error) else None
        hint = ": run `retention migrate`" if code == 60 else ""
        meaning = ServiceError if code is None or code in _NOT_THE_ROWS else Refused
        raise meaning(f"ClickHouse did not take the batch ({first_line(error)}){hint}") from error
