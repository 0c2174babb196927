"""`retention erase`: takes viewers out of what is stored, so that no repetition of the stream brings them back.

Order matters. First the viewer's hash is noted where the stream's views look (``raw.erased_viewers``); then inserts
that began before it are waited for; then what is stored is deleted for good, by mutations, which rewrite the files.
Their events and rejected messages, which all else is told from, go last: an erasure that died is done by the next. The
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
from retention_platform.warehouse.cluster import quorum, replicated, stored

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client

#: How long inserts that began before the note are waited for.
INSERT_SECONDS = 120.0

_IS_THEIRS = "lower(hex(SHA256(viewer_id))) in {hashes:Array(String)}"
_EVENTS = f"from raw.playback_events where {_IS_THEIRS}"
#: As raw.reject_events judges it.
_REJECTS = r"""from raw.rejected_events where topic = 'playback_events' and hasAny(
    arrayMap(word -> lower(hex(SHA256(word))), arrayConcat(
        [JSONExtractString(payload, 'viewer_id')],
        extractAll(payload, '"([^"\\\\]*)"'),
        extractAll(payload, '[\\w.@+:-]{6,}')
    )),
    {hashes:Array(String)}
)"""
#: What the live tables may have of them. A message that was put aside is in raw.playback_events no more, but had passed
#: some of the views behind it; what it was, its payload tells, read as raw.judge_events does.
_PASSED = f"""
select video_id, session_id, event_id {_EVENTS}
union all
select ifNull(e.video_id, ''), ifNull(e.session_id, ''), toUUIDOrZero(ifNull(e.event_id, ''))
from (
    select JSONExtract(
        payload, 'Tuple(video_id Nullable(String), session_id Nullable(String), event_id Nullable(String))'
    ) as e
    {_REJECTS}
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
    hashes = sorted({viewer_hash(one) for one in stored_ids})
    asked: dict[str, Any] = {"hashes": hashes}
    noted, everywhere = [[one] for one in hashes], _on_every_node(client, cluster)
    try:
        client.insert("raw.erased_viewers", noted, column_names=["viewer_hash"], settings=everywhere)
    except DatabaseError as error:
        if not everywhere:
            raise
        raise ServiceError(
            f"not every node of {cluster} took note ({first_line(error)}): "
            "nothing is deleted yet, erase again when all are up"
        ) from error
    _settle(client, cluster)

    found = Erased(_count(client, _EVENTS, asked), _count(client, _REJECTS, asked))
    if found.events or found.rejects:
        for theirs in (_EVENTS, _REJECTS):
            places = "raw.erased_messages (log_id, topic, partition, offset) select log_id, topic, partition, offset"
            _insert(client, f"{places} {theirs}", asked)
        _erase_live(client, asked, cluster)
        for one in hashes:
            _take_from_deliveries(client, one)
    if found.events:
        _delete(client, _EVENTS, asked)
    if found.rejects:
        # What is put aside is taken out of raw.playback_events by a mark alone, and is in its files until they merge.
        _change(client, "raw.playback_events apply deleted mask")
        _delete(client, _REJECTS, asked)
    return found


def _erase_live(client: Client, asked: dict[str, Any], cluster: str) -> None:
    """What the stream's other views made of their messages."""
    # No mutation of a replicated table may look elsewhere, so what goes is read before.
    live = f"select distinct event_id from live.events where (video_id, session_id, event_id) global in ({_PASSED})"
    ids = [row[0] for row in client.query(live, parameters=asked).result_rows]
    for first in range(0, len(ids), _IDS_A_DELETE):
        some = {"ids": ids[first : first + _IDS_A_DELETE]}
        _delete(client, "from live.events where event_id in {ids:Array(UUID)}", some)
    # Sets of sessions cannot be taken apart: they are made anew from the events that remain.
    found = client.query(f"select distinct video_id from ({_PASSED})", parameters=asked)
    of_them = {"videos": [row[0] for row in found.result_rows]}
    _delete(client, "from live.ticks where video_id in {videos:Array(String)}", of_them)
    # An insert that runs now may have had its sets deleted and its events not seen yet.
    _settle(client, cluster)
    _insert(client, _TICKS, {**asked, **of_them})


def _take_from_deliveries(client: Client, viewer: str) -> None:
    """Their events' part of raw.deliveries, once, however often it is asked for."""
    # What is taken away is added like the rest: the sums are of numbers modulo 2 to the 64.
    counted = client.query(
        "select video_id, toDate(event_time), toUInt64(-toInt64(count())), "
        f"toUInt64(-toInt64(countIf(ingested_at > event_time + toIntervalHour(1)))) {_EVENTS} group by 1, 2",
        parameters={"hashes": [viewer]},
    ).result_rows
    if counted:
        settings = {**_EVERY_SHARD, **quorum(client), "insert_deduplication_token": f"erased/{viewer}"}
        client.insert("raw.deliveries", counted, column_names="*", settings=settings)


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
        and lower(hex(SHA256(viewer_id))) not in {hashes:Array(String)}
        and event_time between now64(3) - interval 3 hour and now64(3) + interval 10 minute
        and from_ms >= 0 and from_ms < to_ms and from_ms < limit_ms and to_ms <= limit_ms + 1000
        and to_ms - from_ms <= 3600000 * playback_rate
)
where wall_us > 0
group by at, video_id
"""


def _count(client: Client, which: str, asked: dict[str, Any]) -> int:
    return int(client.query(f"select count() {which}", parameters=asked).result_rows[0][0])


def _insert(client: Client, what: str, asked: dict[str, Any]) -> None:
    """Insert what is selected; returns when it is where it stays."""
    client.command(f"insert into {what}", parameters=asked, settings={**_EVERY_SHARD, **quorum(client)})


def _delete(client: Client, which: str, asked: dict[str, Any]) -> None:
    """Delete for good ``from TABLE where CONDITION``; returns when it is done."""
    table, condition = which.removeprefix("from ").split(" where ", 1)
    _change(client, f"{table} delete where {condition}", asked)


def _change(client: Client, how: str, asked: dict[str, Any] | None = None) -> None:
    """Rewrite stored rows; returns when it is done on every replica."""
    client.command(stored(client, f"alter table {how}"), parameters=asked, settings=_NOW)


def _on_every_node(client: Client, cluster: str) -> dict[str, Any]:
    """Settings by which an insert is done when every node of the cluster has it."""
    if not cluster:
        return {}
    nodes = _count(client, "from system.clusters where cluster = {cluster:String}", {"cluster": cluster})
    return {"insert_quorum": nodes, "insert_quorum_timeout": 60_000} if nodes > 1 else {}


def _settle(client: Client, cluster: str) -> None:
    """Return when what was noted or deleted before is what every later insert and read goes by."""
    _wait_for_inserts(client, cluster)
    _catch_up(client, cluster)


def _catch_up(client: Client, cluster: str) -> None:
    """Have every replica fetch what others stored: one that lags would tell of fewer rows than there are."""
    everywhere = f"on cluster `{cluster}`" if cluster else ""
    for table in replicated(client, ("raw.playback_events", "raw.rejected_events", "live.events")):
        try:
            client.command(f"system sync replica {everywhere} {table} lightweight")
        except DatabaseError as error:
            raise ServiceError(
                f"not every replica of {table} caught up ({first_line(error)}): erase again when all are up"
            ) from error


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
