"""The raw tables as observed sources: Dagster does not make them, it sees how far they are stored."""

# No `from __future__ import annotations`: Dagster looks at the annotations of decorated functions.

import json
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

import dagster as dg

from retention_platform.orchestration.failures import told_in_one_line
from retention_platform.orchestration.models import MANIFEST_PATH, PROJECT, TRANSLATOR
from retention_platform.orchestration.raw_mark import PartitionMark, data_version, unreadable, utc
from retention_platform.orchestration.resources import Warehouse

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client

#: Table to the column that says when a row was stored.
RAW_TABLES = {"playback_events": "ingested_at", "videos": "ingested_at", "rejected_events": "rejected_at"}


@dataclass(frozen=True)
class Seen:
    """What a raw table holds; rows count each stored copy."""

    rows: int
    newest: datetime | None
    partitions: tuple[PartitionMark, ...]

    @property
    def version(self) -> str:
        """Differs when any partition of any log is stored further."""
        return data_version(self.partitions)


def look_at(client: "Client", table: str) -> Seen:
    """How far every log's every partition is stored in a raw table. Raises ServiceError."""
    column = RAW_TABLES[table]
    try:
        rows = client.query(
            f"select log_id, topic, partition, max(offset), count(), max({column}) from raw.{table} "
            "group by log_id, topic, partition order by log_id, topic, partition"
        ).result_rows
    except Exception as error:
        raise unreadable(error) from None
    return Seen(
        rows=sum(int(row[4]) for row in rows),
        newest=max((utc(row[5]) for row in rows), default=None),
        partitions=tuple(PartitionMark(str(r[0]), str(r[1]), int(r[2]), int(r[3])) for r in rows),
    )


def source_specs() -> list[dg.AssetSpec]:
    """The dbt sources as assets, described and with their columns as in the dbt project."""
    manifest = json.loads(MANIFEST_PATH.read_bytes())
    specs = []
    for unique_id in sorted(manifest["sources"]):
        spec = TRANSLATOR.get_asset_spec(manifest, unique_id, PROJECT)
        columns = {key: value for key, value in spec.metadata.items() if key == "dagster/column_schema"}
        specs.append(
            dg.AssetSpec(
                key=spec.key,
                description=spec.description,
                group_name=spec.group_name,
                owners=spec.owners,
                kinds={"clickhouse", "kafka"},
                metadata=columns,
            )
        )
    return specs


# Dagster still calls it beta, which is no news for whoever starts this; our tests run it.
warnings.filterwarnings("ignore", category=dg.BetaWarning, message=".*multi_observable_source_asset")


@dg.multi_observable_source_asset(  # type: ignore[untyped-decorator]
    specs=source_specs(), name="raw_tables", can_subset=True
)
def raw_tables(context: dg.AssetExecutionContext, warehouse: Warehouse) -> Iterator[dg.ObserveResult]:
    """Look at the selected raw tables."""
    with told_in_one_line(), warehouse.client() as client:
        for key in sorted(context.selected_asset_keys):
            seen = look_at(client, key.path[-1])
            yield dg.ObserveResult(
                asset_key=key,
                data_version=dg.DataVersion(seen.version),
                metadata={
                    "dagster/row_count": seen.rows,
                    "newest": seen.newest.isoformat() if seen.newest else "nothing stored",
                    "stored_to": {f"{p.log_id}/{p.topic}/{p.partition}": p.offset for p in seen.partitions},
                },
            )
