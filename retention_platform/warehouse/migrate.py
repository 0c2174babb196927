"""Applies the numbered SQL of ``warehouse/sql`` in order, once each, and keeps the TTL setting true.

Every statement is idempotent, so a run that died in the middle is simply run again.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from retention_platform.errors import RetentionError
from retention_platform.warehouse.cluster import LOCAL, for_cluster, is_sharded, over_shards, stored

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client

SQL_DIR = Path(__file__).parent / "sql"

_LEDGER = """
create table if not exists raw.schema_migrations
(
    name String,
    checksum String,
    applied_at DateTime64(3, 'UTC') default now64(3, 'UTC')
)
engine = ReplacingMergeTree
order by name
comment 'Which files of warehouse/sql were applied, and when.'
"""

#: Tables that raw_ttl_days applies to, with the column that tells a row's age.
_TTL_COLUMNS = {"playback_events": "event_time", "rejected_events": "message_time"}


@dataclass(frozen=True)
class Migration:
    """One numbered SQL file."""

    name: str
    sql: str

    @property
    def checksum(self) -> str:
        """SHA-256 of the file's text."""
        return hashlib.sha256(self.sql.encode()).hexdigest()

    @property
    def former(self) -> set[str]:
        """Checksums of texts that this one replaced where a warehouse made by them needs no change."""
        return set(re.findall(r"^-- formerly ([0-9a-f]{64})\b", self.sql, flags=re.MULTILINE))

    @property
    def statements(self) -> list[str]:
        """The file's statements, without comment lines and closing semicolons."""
        text = re.sub(r"^\s*--.*$", "", self.sql, flags=re.MULTILINE)
        return [part.strip() for part in re.split(r";\s*(?:\n|$)", text) if part.strip()]


def migrations(folder: Path = SQL_DIR) -> list[Migration]:
    """All migrations in the order of their numbers."""
    return [Migration(path.name, path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.sql"))]


def migrate(
    client: Client, *, raw_ttl_days: int = 0, cluster: str = "", sharded: bool = False, folder: Path = SQL_DIR
) -> list[str]:
    """Bring the schema up to date; the names of the files applied now, none when it already was.

    With ``cluster`` every replica of it gets everything; with ``sharded`` each shard its part of the stream.

    Raises RetentionError when a file was changed after it had been applied, or the warehouse that is there was made
    with the other choice of ``sharded``.
    """
    _keep_choice(client, sharded)
    # What tells of shards first, so that a run that died does not look like one without.
    for database in (*(LOCAL.values() if sharded else ()), "raw"):
        client.command(for_cluster(f"create database if not exists {database}", cluster, sharded=sharded))
    client.command(for_cluster(_LEDGER, cluster, sharded=sharded))
    ledger = client.query("select name, checksum from raw.schema_migrations final").result_rows
    done = {str(name): str(checksum) for name, checksum in ledger}
    applied = []
    for migration in migrations(folder):
        known = done.get(migration.name)
        if known is not None and known in {migration.checksum, *migration.former}:
            continue
        if known is not None:
            raise RetentionError(
                f"{migration.name} was changed after it had been applied to this warehouse: "
                "restore the file and put the change into a new, higher-numbered one"
            )
        for statement in migration.statements:
            client.command(for_cluster(statement, cluster, sharded=sharded))
        client.insert(
            "raw.schema_migrations", [[migration.name, migration.checksum]], column_names=["name", "checksum"]
        )
        applied.append(migration.name)
    if sharded:
        _distribute(client, cluster)
    _keep_ttl(client, raw_ttl_days)
    return applied


def _keep_choice(client: Client, sharded: bool) -> None:
    """Raise RetentionError where ``sharded`` is not what the warehouse was made with."""
    there = is_sharded(client)
    made = there or client.query("exists table raw.schema_migrations").result_rows[0][0]
    if made and sharded != there:
        raise RetentionError(
            f"this warehouse was made {'with' if there else 'without'} shards: set CLICKHOUSE_SHARDED to "
            f"{str(there).lower()}, it is chosen when a warehouse is made"
        )


def _distribute(client: Client, cluster: str) -> None:
    """Make the tables over all shards, of what is read or written by others than the stream's own views."""
    found = client.query(
        "select database, table, groupArray(name) from system.columns where database in {local:Array(String)} "
        "and (database, table) in (select database, name from system.tables where engine != 'MaterializedView' "
        "and (engine != 'Null' or name in ('inbox', 'put_aside'))) group by all order by all",
        parameters={"local": list(LOCAL.values())},
    ).result_rows
    for database, table, columns in found:
        client.command(over_shards(cluster, database, table, frozenset(columns)))


def _keep_ttl(client: Client, days: int) -> None:
    """Make the raw tables' TTL what the setting says; touches nothing when it already is."""
    for table, column in _TTL_COLUMNS.items():
        place = stored(client, f"raw.{table}")
        rows = client.query(
            "select engine_full from system.tables where database || '.' || name = {place:String}",
            parameters={"place": place},
        ).result_rows
        match = re.search(r"TTL .*?toIntervalDay\((\d+)\)", rows[0][0])
        current = int(match.group(1)) if match else 0
        if current == days:
            continue
        change = f"modify ttl toDateTime({column}) + toIntervalDay({days})" if days else "remove ttl"
        client.command(f"alter table {place} {change}")
