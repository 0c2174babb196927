"""The schema's SQL for a cluster, from the same SQL that makes it on one server: replicas, and shards cut by video.

Replicas: databases become Replicated ones, which repeat every later statement about their tables on all replicas by
themselves, and tables that store something become replicated. They remember tokens of inserts by settings of their own.

Shards: what the stream fills is moved into `raw_local` and `live_local`, of which each shard has a part of its own,
whole for the videos in it; under the names that everybody uses there are Distributed tables over all of them. The rest
(what the views look up, the marts and what they are made of) every node holds whole. A message's shard depends on
nothing but its video, so copies of an event meet where `final` finds them, and a repeated batch is cut as it was the
first time: each shard drops the part that it has.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client

#: Databases of the stream, and where a shard's own part of each is.
LOCAL = {"raw": "raw_local", "live": "live_local"}
#: Tables of the stream's databases that every node holds whole.
WHOLE = frozenset({"erased_viewers", "replayed_rejects", "schema_migrations"})

_DATABASE = re.compile(r"^create database if not exists (?P<name>\w+)$", re.IGNORECASE)
_ENGINE = re.compile(r"^(?P<before>engine = )(?P<engine>\w*MergeTree)\b", re.IGNORECASE | re.MULTILINE)
_WINDOW = re.compile(r"\bnon_replicated_deduplication_window = (?P<inserts>\d+)")
#: Replicated tables forget tokens by age as well, by default after an hour: so late that their number decides.
_TOKEN_SECONDS = 30 * 86_400
_NAME = re.compile(rf"(?<![\w.`])({'|'.join(LOCAL)})\.(\w+)")

#: Of a message that names no video the shard is chosen by all of it, so that nonsense does not fill one shard.
_BY_MESSAGE = "cityHash64(coalesce(nullIf(JSONExtractString(payload, 'video_id'), ''), payload))"


def for_cluster(statement: str, cluster: str, *, sharded: bool = False) -> str:
    """A statement of the schema as ``cluster`` needs it; unchanged when that is empty.

    The databases' place in Keeper is named after them, so that a replica that joins later finds them there.
    """
    if not cluster:
        return statement
    if database := _DATABASE.match(statement.strip()):
        name = database["name"]
        # To a database that is whole everywhere all nodes are replicas of one shard.
        place = "'all', '{shard}-{replica}'" if sharded and name not in LOCAL.values() else "'{shard}', '{replica}'"
        return (
            f"create database if not exists {name} on cluster `{cluster}` "
            f"engine = Replicated('/clickhouse/retention/{name}', {place})"
        )
    replicated = _ENGINE.sub(r"\g<before>Replicated\g<engine>", on_shard(statement) if sharded else statement)
    return _WINDOW.sub(
        r"replicated_deduplication_window = \g<inserts>, "
        f"replicated_deduplication_window_seconds = {_TOKEN_SECONDS}",
        replicated,
    )


def on_shard(statement: str) -> str:
    """The statement about a shard's own part of the stream."""
    return _NAME.sub(
        lambda name: name[0] if name[2] in WHOLE else f"{LOCAL[name[1]]}.{name[2]}",
        statement,
    )


def over_shards(cluster: str, database: str, table: str, columns: frozenset[str]) -> str:
    """The statement that makes the Distributed table over every shard's ``table``, which is in a local ``database``."""
    if "payload" in columns:
        key = _BY_MESSAGE
    elif "video_id" in columns:
        key = "cityHash64(video_id)"
    else:
        key = "cityHash64(topic, log_id, partition, offset)"
    everywhere = next(name for name, local in LOCAL.items() if local == database)
    return (
        f"create table if not exists {everywhere}.{table} as {database}.{table} "
        f"engine = Distributed(`{cluster}`, {database}, {table}, {key})"
    )


def is_sharded(client: Client) -> bool:
    """Whether the schema there was made for shards."""
    known = client.query(
        "select count() from system.databases where name = {name:String}", parameters={"name": LOCAL["raw"]}
    )
    return bool(known.result_rows[0][0])


def stored(client: Client, statement: str) -> str:
    """A statement that changes or deletes stored rows, about where they are stored: no Distributed table takes it.

    The databases that shards have their own part of repeat it on every shard.
    """
    return on_shard(statement) if is_sharded(client) else statement


def replicated(client: Client, tables: Sequence[str]) -> list[str]:
    """Which of the tables have replicas, by the names under which each shard stores its part."""
    found = client.query(
        "select database || '.' || name as place from system.tables "
        "where place in {places:Array(String)} and engine like 'Replicated%' order by place",
        parameters={"places": [stored(client, table) for table in tables]},
    )
    return [str(place) for (place,) in found.result_rows]


def quorum(client: Client) -> dict[str, Any]:
    """Settings by which an insert into the stream's tables is done when most replicas of its shard have it.

    None where a shard has one replica alone: ClickHouse's ``auto`` then waits for a second. A Replicated database is
    a cluster of its own name.
    """
    database = stored(client, "raw.inbox").split(".")[0]
    fewest = client.query(
        "select min(replicas) from (select count() as replicas from system.clusters "
        "where cluster = {name:String} group by shard_num)",
        parameters={"name": database},
    )
    return {"insert_quorum": "auto"} if fewest.result_rows[0][0] > 1 else {}
