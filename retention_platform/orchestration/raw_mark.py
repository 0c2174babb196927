"""The raw tables' high-water mark: how far each partition is stored, and what that says of "is there news?".

Offsets, not times: within a partition they only grow, so an insert that began earlier and became visible later moves
the mark as well. Row counts are no part of it, since merges of duplicates lower them without any news.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING

from retention_platform.errors import ServiceError
from retention_platform.warehouse.client import first_line

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client

#: Only partitions that stored something in so many seconds before the newest row are part of the mark: older logs
#: cannot change, and an insert that takes longer than this has given up.
WINDOW = timedelta(seconds=300)

#: `since` lets the index of ingested_at skip all but the newest granules; one millisecond-sized query at any volume.
_MARK = """
with
    (
        select greatest(
            (select max(ingested_at) from raw.playback_events where ingested_at >= {since:DateTime64(3, 'UTC')}),
            (select max(ingested_at) from raw.videos)
        )
    ) as newest
select log_id, topic, partition, max(offset), max(ingested_at)
from (
    select log_id, topic, partition, offset, ingested_at from raw.playback_events
    where ingested_at >= newest - toIntervalSecond({window:UInt32})
    union all
    select log_id, topic, partition, offset, ingested_at from raw.videos
    where ingested_at >= newest - toIntervalSecond({window:UInt32})
)
group by log_id, topic, partition
order by log_id, topic, partition
"""

_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)


@dataclass(frozen=True)
class PartitionMark:
    """How far one partition of one log is stored."""

    log_id: str
    topic: str
    partition: int
    offset: int


@dataclass(frozen=True)
class RawMark:
    """What is stored of the stream. Two marks are equal exactly when nothing arrived in between."""

    newest: datetime
    partitions: tuple[PartitionMark, ...]

    @property
    def digest(self) -> str:
        """The mark in 16 characters."""
        return data_version(self.partitions)

    def encode(self) -> str:
        """The text kept in a run's tag."""
        return json.dumps({"newest": self.newest.isoformat(), "digest": self.digest})


@dataclass(frozen=True)
class KnownMark:
    """The mark that a past run started from, as its tag tells."""

    newest: datetime
    digest: str

    @staticmethod
    def decode(text: str | None) -> KnownMark | None:
        """The mark in a tag; None when there is none, or it was written by another version."""
        try:
            value = json.loads(text or "")
            newest = datetime.fromisoformat(value["newest"])
            return KnownMark(newest, str(value["digest"])) if newest.tzinfo else None
        except (ValueError, TypeError, KeyError):
            return None


def data_version(partitions: Sequence[PartitionMark]) -> str:
    """16 hexadecimal characters that differ when any partition is further, or another log came."""
    text = "\n".join(f"{p.log_id}\t{p.topic}\t{p.partition}\t{p.offset}" for p in partitions)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def read_mark(client: Client, since: datetime | None = None) -> RawMark | None:
    """The mark of now; None when nothing is stored yet.

    ``since``, the time of the newest row known before, only makes it cheap. Raises ServiceError when ClickHouse does
    not answer, or the raw tables are missing.
    """
    try:
        rows = client.query(
            _MARK, parameters={"since": since or _EPOCH, "window": int(WINDOW.total_seconds())}
        ).result_rows
    except Exception as error:
        raise unreadable(error) from None
    if not rows:
        return None
    partitions = tuple(PartitionMark(str(log), str(topic), int(part), int(off)) for log, topic, part, off, _ in rows)
    return RawMark(max(utc(row[4]) for row in rows), partitions)


def utc(moment: datetime) -> datetime:
    """The driver gives naive UTC for some columns."""
    return moment if moment.tzinfo else moment.replace(tzinfo=timezone.utc)


def unreadable(error: Exception) -> ServiceError:
    """The one line for a query on the raw tables or marts that failed."""
    text = first_line(error)
    if "UNKNOWN_TABLE" in str(error) or "UNKNOWN_DATABASE" in str(error):
        return ServiceError(
            f"ClickHouse has no such table yet ({text}): run `retention migrate`, then `retention refresh`"
        )
    return ServiceError(f"ClickHouse did not answer: {text}")
