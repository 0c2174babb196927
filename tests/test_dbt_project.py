"""The dbt project itself: documented to the last column, statistically sound, checked by tests that can fail."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.dbt_support import Chain
from tests.test_dbt_marts import Viewers

if TYPE_CHECKING:
    from tests.conftest import Warehouse

#: What int_curves holds of a video, a number a second.
CURVE_ARRAYS = (
    "watching_views",
    "segment_plays",
    "started_watching",
    "stopped_watching",
    "at_risk",
    "reached_views",
    "relative_retention_performance",
)


@pytest.fixture
def chain(empty_warehouse: Warehouse, tmp_path: Path) -> Iterator[Chain]:
    chain = Chain(empty_warehouse.settings, tmp_path)
    yield chain
    chain.client.close()


def test_every_table_and_column_that_is_there_is_described(chain: Chain) -> None:
    chain.dbt("run")
    catalog = chain.dbt("docs", "generate", "--no-compile")
    manifest = chain.manifest
    entries = {**catalog.nodes, **catalog.sources}
    described = {**manifest.nodes, **manifest.sources}
    tables = {
        key
        for key, node in described.items()
        if key.startswith(("model.", "source.")) and getattr(node.config, "materialized", "") != "parameterized_view"
    }
    assert tables == set(entries), "the catalogue and the project differ"
    missing = []
    for key in tables:
        node = described[key]
        if not node.description.strip():
            missing.append(key)
        columns = {name: column.description.strip() for name, column in node.columns.items()}
        missing += [f"{key}.{name}" for name in entries[key].columns if not columns.get(name)]
        missing += [f"{key}.{name} (not in the table)" for name in columns.keys() - entries[key].columns.keys()]
        # the page of documentation shows the declared types; ClickHouse quotes names in tuples, or does not
        missing += [
            f"{key}.{name} is {column.type}, not {node.columns[name].data_type}"
            for name, column in entries[key].columns.items()
            if name in node.columns and column.type != (node.columns[name].data_type or "").replace("`", "")
        ]
    assert not missing


def test_databases_are_staging_and_marts_exactly(chain: Chain) -> None:
    schemas = {node.name: node.schema for node in chain.manifest.nodes.values() if node.resource_type == "model"}
    assert {name for name, schema in schemas.items() if schema == "marts"} == {
        "videos",
        "retention_curve",
        "retention_curve_of",
        "retention_curve_by_segment",
        "engagement_of",
        "engagement_summary",
        "dropoff_points",
        "key_moments",
        "sessions",
        "engagement_daily",
        "engagement_by_segment",
        "concurrent_viewers",
        "concurrent_viewers_total",
        "data_quality",
    }
    assert set(schemas.values()) == {"staging", "marts"}


def test_the_unit_tests_of_the_models_hold(chain: Chain) -> None:
    chain.dbt("run")
    results = [
        result
        for result in chain.dbt("test", "--select", "test_type:unit").results
        if result.node.resource_type == "unit_test"
    ]
    assert {result.status for result in results} == {"pass"}
    assert len(results) >= 4


@pytest.mark.parametrize(
    ("damage", "test"),
    [
        ("insert into marts.videos select * from marts.videos", "videos_one_row_a_key"),
        (
            "alter table staging.int_curves update "
            + ", ".join(f"{column} = arrayPopBack({column})" for column in CURVE_ARRAYS)
            + " where 1",
            "curves_are_dense_and_agree_with_the_summary",
        ),
        (
            "alter table staging.int_curves update watching_views ="
            " arrayPushFront(arrayPopFront(watching_views), views + 1) where 1",
            "retention_curve_rows_are_sound",
        ),
        (
            "alter table marts.engagement_summary update average_view_percentage = 101 where 1",
            "engagement_summary_rows_are_sound",
        ),
        (
            "alter table staging.int_dropoffs update dropoffs ="
            " arrayMap(d -> (d.1, d.2, d.3, d.4, d.5, d.6, d.7, d.8, 0.06), dropoffs) where 1",
            "dropoff_points_rows_are_sound",
        ),
    ],
)
def test_data_tests_find_damage(chain: Chain, damage: str, test: str) -> None:
    chain.send_events(Viewers(1).cliff("v", 120, 40, {20: 0.3}))
    chain.build()
    chain.client.command(damage, settings={"mutations_sync": 2})
    with pytest.raises(AssertionError, match=test):
        chain.dbt("test", "--exclude-resource-type", "unit_test")


def test_readers_see_the_marts_before_or_after_a_run_and_nothing_between(chain: Chain) -> None:
    viewers = Viewers(2)
    question = "select count(), sum(stopped_watching), max(views) from marts.retention_curve"
    chain.send_events(viewers.cliff("v", 150, 60, {}))
    chain.build()
    before = chain.client.query(question).result_rows[0]
    chain.send_events(
        [event | {"session_id": f"again-{event['session_id']}"} for event in viewers.cliff("v", 90, 60, {})]
    )
    seen: list[Any] = []
    done = threading.Event()

    def read() -> None:
        while not done.is_set():
            seen.append(chain.ask(question)[0])

    reader = threading.Thread(target=read)
    reader.start()
    try:
        chain.build()
    finally:
        done.set()
        reader.join()
    after = chain.client.query(question).result_rows[0]
    assert before != after
    assert set(seen) <= {before, after}
    assert len(seen) > 10
