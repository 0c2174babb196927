"""`retention erase`: takes viewers out of what is stored, so that no repetition of the stream brings them back.

Order matters. First the viewer's hash is noted where the stream's views look (``raw.erased_viewers``); then inserts
that began before it are waited for; then what is stored is deleted for good, by mutations, which rewrite the files. The
id itself never reaches ClickHouse, nor its logs: statements carry the hash.

The marts and dbt's intermediate tables are not touched here: they are built anew from raw, whole, by who calls this.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from clickhouse_connect.driver.exceptions import DatabaseError

from retention_platform.errors import ServiceError
from retention_platform.warehouse.client import first_line
from retention_platform.warehouse.cluster import quorum, stored

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client

#: How long inserts that began before the note are waited for.
INSERT_SECONDS = 120.0

_IS_THEIRS = "lower(hex(SHA256(viewer_id))) in {hashes:Array(String)}"
#: As raw.reject_events judges it.
_NAMES_THEM = r"""hasAny(
    arrayMap(word -> lower(hex(SHA256(word))), arrayConcat(
        [JSONExtractString(payload, 'viewer_id')],
        extractAll(payload, '"([^"\\\\]*)"'),
        extractAll(payload, '[\\w.@+:-]{6,}')
    )),
    {hashes:Array(String)}
)"""
_NOW = {"mutations_sync": 2}
#: On shards: an insert is done when every shard has its part.
_EVERY_SHARD = {"distributed_foreground_insert": 1}

#: A statement's parameters travel in its address, which servers allow a limited length.
_IDS_A_DELETE = 2_000


@dataclass(frozen=True)
class Erased:
    """How many rows went; of events as stored, copies that ClickHouse had not merged yet included."""

    events: int
    rejects: int


def viewer_hash(stored_id: str) -> str:
    """What an erased viewer is known by; ``stored_id`` is the id as raw.playback_events holds it."""
    return hashlib.sha256(stored_id.encode()).hexdigest()


def erase(client: Client, stored_ids: Sequence[str], *, cluster: str = "") -> Erased:
    """Take viewers out of the raw and live tables, for good. Doing it twice changes nothing more.

    Every node of ``cluster`` has to be there, or one of them would let a viewer in again.

    Raises ServiceError when one is not, or inserts from before do not end; doing it again then goes on.
    """
    asked: dict[str, Any] = {"hashes": sorted({viewer_hash(one) for one in stored_ids})}
    noted, everywhere = [[one] for one in asked["hashes"]], _on_every_node(client, cluster)
    try:
        client.insert("raw.erased_viewers", noted, column_names=["viewer_hash"], settings=everywhere)
    except DatabaseError as error:
        if not everywhere:
            raise
        raise ServiceError(
            f"not every node of {cluster} took note ({first_line(error)}): "
            "nothing is deleted yet, erase again when all are up"
        ) from error
    _wait_for_inserts(client, cluster)

    events = _count(client, f"raw.playback_events where {_IS_THEIRS}", asked)
    rejects = _count(client, f"raw.rejected_events where topic = 'playback_events' and {_NAMES_THEM}", asked)
    if events:
        _erase_events(client, asked, cluster)
    if rejects:
        places = "select log_id, topic, partition, offset from raw.rejected_events"
        _insert(
            client,
            "raw.erased_messages (log_id, topic, partition, offset) "
            f"{places} where topic = 'playback_events' and {_NAMES_THEM}",
            asked,
        )
        _delete(client, f"raw.rejected_events delete where topic = 'playback_events' and {_NAMES_THEM}", asked)
    return Erased(events, rejects)


def _erase_events(client: Client, asked: dict[str, Any], cluster: str) -> None:
    """Events, and what the stream's other views made of them; raw.playback_events last, since all is told from it."""
    theirs = f"from raw.playback_events where {_IS_THEIRS}"
    videos = [row[0] for row in client.query(f"select distinct video_id {theirs}", parameters=asked).result_rows]
    _insert(
        client,
        f"raw.erased_messages (log_id, topic, partition, offset) select log_id, topic, partition, offset {theirs}",
        asked,
    )
    # No mutation of a replicated table may look elsewhere, so the ids are read before.
    live = f"select distinct event_id from live.events where event_id global in (select event_id {theirs})"
    ids = [row[0] for row in client.query(live, parameters=asked).result_rows]
    for first in range(0, len(ids), _IDS_A_DELETE):
        some = {"ids": ids[first : first + _IDS_A_DELETE]}
        _delete(client, "live.events delete where event_id in {ids:Array(UUID)}", some)
    # Signed, since what is taken away is added like the rest: the sums are of numbers modulo 2 to the 64.
    _insert(
        client,
        "raw.deliveries select video_id, toDate(event_time), toUInt64(-toInt64(count())), "
        f"toUInt64(-toInt64(countIf(ingested_at > event_time + toIntervalHour(1)))) {theirs} group by 1, 2",
        asked,
    )
    _delete(client, f"raw.playback_events delete where {_IS_THEIRS}", asked)
    # Sets of sessions cannot be taken apart: they are made anew from the events that remain.
    of_them = {"videos": videos}
    _delete(client, "live.ticks delete where video_id in {videos:Array(String)}", of_them)
    # An insert that runs now may have had its sets deleted and its events not seen yet.
    _wait_for_inserts(client, cluster)
    _insert(client, _TICKS, of_them)


#: As live.judge and live.store_ticks make them.
_TICKS = """live.ticks
select
    toDateTime(arrayJoin(range(
        toUInt64(intDiv(toUnixTimestamp64Milli(event_time) * 1000 - wall_us + 9999999, 10000000)),
        toUInt64(intDiv(toUnixTimestamp64Milli(event_time) * 1000 + 9999999, 10000000))
    )) * 10, 'UTC') as at,
    video_id,
    uniqExactState(session_id) as sessions
from
(
    select
        video_id, session_id, event_time,
        ifNull(played_from_ms, -1) as from_ms,
        ifNull(played_to_ms, -1) as to_ms,
        ifNull(duration_ms, 604800000) as limit_ms,
        toInt64(round((least(to_ms, limit_ms) - from_ms) * 1000 / playback_rate)) as wall_us
    from raw.playback_events
    where video_id in {videos:Array(String)}
        and event_time between now64(3) - interval 3 hour and now64(3) + interval 10 minute
        and from_ms >= 0 and from_ms < to_ms and from_ms < limit_ms and to_ms <= limit_ms + 1000
        and to_ms - from_ms <= 3600000 * playback_rate
)
where wall_us > 0
group by at, video_id
"""


def _count(client: Client, what: str, asked: dict[str, Any]) -> int:
    return int(client.query(f"select count() from {what}", parameters=asked).result_rows[0][0])


def _insert(client: Client, what: str, asked: dict[str, Any]) -> None:
    """Insert what is selected; returns when it is where it stays."""
    client.command(f"insert into {what}", parameters=asked, settings={**_EVERY_SHARD, **quorum(client)})


def _delete(client: Client, what: str, asked: dict[str, Any]) -> None:
    """Delete for good; returns when it is done."""
    client.command(stored(client, f"alter table {what}"), parameters=asked, settings=_NOW)


def _on_every_node(client: Client, cluster: str) -> dict[str, Any]:
    """Settings by which an insert is done when every node of the cluster has it."""
    if not cluster:
        return {}
    nodes = _count(client, "system.clusters where cluster = {cluster:String}", {"cluster": cluster})
    return {"insert_quorum": nodes, "insert_quorum_timeout": 60_000} if nodes > 1 else {}


def _wait_for_inserts(client: Client, cluster: str) -> None:
    """Return when every insert that runs now has ended: those after it see what was noted before."""
    processes = f"clusterAllReplicas('{cluster}', system.processes)" if cluster else "system.processes"
    running = f"select query_id from {processes} where query_kind = 'Insert' or query ilike 'insert%'"
    before = {str(row[0]) for row in client.query(running).result_rows}
    deadline = time.monotonic() + INSERT_SECONDS
    while before:
        if time.monotonic() >= deadline:
            raise ServiceError(
                f"inserts that began before do not end within {INSERT_SECONDS:.0f} s: "
                "see system.processes, then erase again"
            )
        time.sleep(0.1)
        before &= {str(row[0]) for row in client.query(running).result_rows}
