"""The shipped configuration of ClickHouse's Kafka Connect sink writes what ingest writes, where ingest writes it.

The sink itself is on no registry that the tests could take it from.
"""

from __future__ import annotations

import json
from pathlib import Path

from retention_platform.contract import EVENTS_TOPIC, VIDEOS_TOPIC
from retention_platform.ingest.batch import INBOX_COLUMNS
from retention_platform.ingest.sink import INSERT_SETTINGS
from tests.conftest import Warehouse

CONFIG = json.loads((Path(__file__).parents[1] / "deploy" / "kafka-connect" / "retention.json").read_text())["config"]


def test_both_topics_end_in_the_inbox_whose_columns_are_all_given_and_no_others(empty_warehouse: Warehouse) -> None:
    assert set(CONFIG["topics"].split(",")) == {EVENTS_TOPIC, VIDEOS_TOPIC}
    assert dict(pair.split("=") for pair in CONFIG["topic2TableMap"].split(",")) == {
        EVENTS_TOPIC: "inbox",
        VIDEOS_TOPIC: "inbox",
    }
    given = [value for name, value in CONFIG.items() if name.startswith("transforms.") and name.endswith("field")]
    assert sorted(given) == sorted(INBOX_COLUMNS)
    stored = empty_warehouse.rows(
        f"select name from system.columns where database = '{CONFIG['database']}' and table = 'inbox' "
        "and default_expression = '' order by position"
    )
    assert [name for (name,) in stored] == list(INBOX_COLUMNS)


def test_every_transformation_that_is_named_is_there_and_every_one_that_is_there_is_named() -> None:
    there = {name.split(".")[1] for name in CONFIG if name.startswith("transforms.")}
    assert set(CONFIG["transforms"].split(",")) == there
    assert {CONFIG[f"transforms.{name}.type"].split("$")[0].rsplit(".", 1)[1] for name in there} == {
        *("Filter", "HoistField", "InsertField", "KeyToValue")
    }


def test_its_inserts_carry_the_settings_of_ingest_and_no_password_is_in_the_file() -> None:
    given = dict(pair.split("=") for pair in CONFIG["clickhouseSettings"].split(","))
    assert given == {name: str(value) for name, value in INSERT_SETTINGS.items()}
    assert CONFIG["password"].startswith("${env:")
