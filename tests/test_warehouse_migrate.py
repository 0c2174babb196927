"""The schema: applied in order, once, the same however often, with TTL as a setting."""

from __future__ import annotations

from pathlib import Path

import pytest

from retention_platform.errors import RetentionError, ServiceError
from retention_platform.settings import load_settings
from retention_platform.warehouse.client import connect
from retention_platform.warehouse.migrate import SQL_DIR, Migration, migrate, migrations
from tests.conftest import Warehouse


def structure(warehouse: Warehouse) -> list[tuple[object, ...]]:
    return warehouse.rows(
        "select database, name, create_table_query from system.tables "
        "where database in ('raw', 'live', 'staging', 'marts') order by all"
    )


def test_the_files_are_numbered_without_gaps_and_applied_in_that_order(empty_warehouse: Warehouse) -> None:
    names = [migration.name for migration in migrations()]
    assert [int(name[:3]) for name in names] == list(range(1, len(names) + 1))
    ledger = empty_warehouse.rows("select name from raw.schema_migrations order by applied_at, name")
    assert [row[0] for row in ledger] == names


def test_doing_it_again_changes_nothing_even_without_the_record_of_the_first_time(empty_warehouse: Warehouse) -> None:
    before = structure(empty_warehouse)
    client = connect(empty_warehouse.settings)
    assert migrate(client) == []
    client.command("truncate table raw.schema_migrations")
    assert len(migrate(client)) == len(migrations())
    client.close()
    assert structure(empty_warehouse) == before


def test_a_file_changed_after_it_was_applied_is_refused_by_name(empty_warehouse: Warehouse, tmp_path: Path) -> None:
    for path in SQL_DIR.glob("*.sql"):
        (tmp_path / path.name).write_text(path.read_text())
    changed = tmp_path / "002_raw_tables.sql"
    changed.write_text(changed.read_text() + "\nselect 1;\n")
    client = connect(empty_warehouse.settings)
    with pytest.raises(RetentionError, match=r"002_raw_tables\.sql was changed"):
        migrate(client, folder=tmp_path)
    client.close()


def test_a_warehouse_without_shards_stays_one(empty_warehouse: Warehouse) -> None:
    client = connect(empty_warehouse.settings)
    with pytest.raises(RetentionError, match="made without shards: set CLICKHOUSE_SHARDED to false"):
        migrate(client, cluster="retention", sharded=True)
    assert empty_warehouse.rows("select name from system.databases where name like '%local'") == []
    assert migrate(client) == []
    client.close()


def test_a_file_that_says_what_it_was_formerly_is_not_applied_again(empty_warehouse: Warehouse, tmp_path: Path) -> None:
    for path in SQL_DIR.glob("*.sql"):
        (tmp_path / path.name).write_text(path.read_text())
    changed = tmp_path / "002_raw_tables.sql"
    former = Migration(changed.name, changed.read_text()).checksum
    note = f"-- formerly {former}: nothing that a warehouse needs"
    changed.write_text(f"{note}\n{changed.read_text()}\nselect throwIf(1);\n")
    client = connect(empty_warehouse.settings)
    assert migrate(client, folder=tmp_path) == []
    client.close()


def test_the_ttl_is_what_the_setting_says_and_zero_removes_it(empty_warehouse: Warehouse) -> None:
    def ttl() -> list[bool]:
        rows = empty_warehouse.rows(
            "select create_table_query from system.tables "
            "where database = 'raw' and name in ('playback_events', 'rejected_events')"
        )
        return ["TTL" in str(row[0]) and "toIntervalDay(90)" in str(row[0]) for row in rows]

    client = connect(empty_warehouse.settings)
    migrate(client, raw_ttl_days=90)
    assert ttl() == [True, True]
    migrate(client, raw_ttl_days=90)
    assert ttl() == [True, True]
    migrate(client, raw_ttl_days=0)
    assert ttl() == [False, False]
    client.close()


def test_events_are_kept_by_month_with_a_window_for_deduplication(empty_warehouse: Warehouse) -> None:
    rows = empty_warehouse.rows(
        "select name, partition_key, engine_full from system.tables "
        "where database = 'raw' and name in ('playback_events', 'videos', 'rejected_events')"
    )
    assert len(rows) == 3
    for name, partition_key, engine in rows:
        assert "non_replicated_deduplication_window" in str(engine), name
        assert name == "videos" or "toYYYYMM" in str(partition_key)


def test_statements_are_split_at_semicolons_that_end_a_line() -> None:
    sql = "-- a; comment\nselect ';' as x;\n\nselect\n  2;\n"
    assert Migration("001_x.sql", sql).statements == ["select ';' as x", "select\n  2"]


def test_a_server_that_is_away_or_refuses_us_is_one_clear_line(tmp_path: Path) -> None:
    away = load_settings(retention_home=tmp_path, clickhouse_port=1)
    with pytest.raises(ServiceError) as caught:
        connect(away)
    assert "127.0.0.1:1 does not answer" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_wrong_password_names_the_variable_to_check(clickhouse_port: int, tmp_path: Path) -> None:
    wrong = load_settings(retention_home=tmp_path, clickhouse_port=clickhouse_port, clickhouse_password="wrong")
    with pytest.raises(ServiceError, match="CLICKHOUSE_PASSWORD"):
        connect(wrong)
