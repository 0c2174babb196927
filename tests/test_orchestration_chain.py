"""Dagster over the real engine: the job builds the marts, observations tell of news, checks go red when they should."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg
import pytest
from confluent_kafka import Consumer, Producer, TopicPartition

from retention_platform.contract import EVENTS_TOPIC
from retention_platform.definitions import defs
from retention_platform.ingest.broker import log_identity
from retention_platform.orchestration.completeness import OFFSETS_COMPARED
from retention_platform.orchestration.raw_tables import RAW_TABLES
from retention_platform.orchestration.refresh import MARK_TAG, new_events
from retention_platform.orchestration.resources import Warehouse as WarehouseResource
from retention_platform.settings import load_settings
from tests import oracle
from tests.api_support import describe, free_port, watch
from tests.conftest import unique
from tests.dbt_support import Chain

if TYPE_CHECKING:
    from tests.conftest import Warehouse

VIDEOS = [describe(f"video-{number}", duration_ms=120_000) for number in range(3)]
EVENTS = [
    event
    for number in range(45)
    for event in watch(f"video-{number % 3}", number, leaves_at=(number * 7 % 100) / 100 * 120, duration=120)
]


@pytest.fixture
def warehouse(empty_warehouse: Warehouse, monkeypatch: pytest.MonkeyPatch) -> Warehouse:
    """An empty warehouse that the environment names, as it does for Dagster's processes."""
    monkeypatch.setenv("CLICKHOUSE_HOST", empty_warehouse.settings.clickhouse_host)
    monkeypatch.setenv("CLICKHOUSE_PORT", str(empty_warehouse.settings.clickhouse_port))
    monkeypatch.setenv("RETENTION_HOME", str(empty_warehouse.settings.retention_home))
    return empty_warehouse


@pytest.fixture
def chain(warehouse: Warehouse, tmp_path: Path) -> Iterator[Chain]:
    chain = Chain(warehouse.settings, tmp_path)
    yield chain
    chain.client.close()


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as instance:
        yield instance


def execute(job: str, instance: dg.DagsterInstance, **options: Any) -> dg.ExecuteInProcessResult:
    """Run a job in this process, whatever comes of it."""
    return defs.resolve_job_def(job).execute_in_process(instance=instance, raise_on_error=False, **options)


def checks(result: dg.ExecuteInProcessResult) -> dict[str, dg.AssetCheckEvaluation]:
    """A run's check results by name."""
    return {evaluation.check_name: evaluation for evaluation in result.get_asset_check_evaluations()}


def reason(result: dg.ExecuteInProcessResult) -> str:
    """What the failed step said to the user."""
    data = next(event for event in result.all_events if event.is_step_failure).step_failure_data
    assert data.user_failure_data is not None
    return str(data.user_failure_data.description)


def look_for_news(instance: dg.DagsterInstance) -> dg.RunRequest | dg.SkipReason:
    """What the sensor says."""
    context = dg.build_sensor_context(instance=instance, resources={"warehouse": WarehouseResource()})
    answer = new_events(context)
    assert isinstance(answer, (dg.RunRequest, dg.SkipReason))
    return answer


def test_the_job_builds_marts_that_equal_the_oracle_and_wakes_only_for_news(
    chain: Chain, instance: dg.DagsterInstance
) -> None:
    chain.send_videos(VIDEOS)
    chain.send_events(EVENTS)
    request = look_for_news(instance)
    assert isinstance(request, dg.RunRequest)

    result = execute("marts", instance)

    assert result.success
    expected = oracle.marts(EVENTS, VIDEOS)
    summaries = chain.mart("engagement_summary")
    assert {video: row["views"] for video, row in summaries.items()} == {
        video: row["views"] for video, row in expected.engagement_summary.items()
    }
    made = {event.asset_key: event for event in result.get_asset_materialization_events()}
    rows = made[dg.AssetKey(["marts", "retention_curve"])].materialization.metadata["dagster/row_count"].value
    assert rows == len(expected.retention_curve)
    evaluated = result.get_asset_check_evaluations()
    assert len(evaluated) > 10 and all(evaluation.passed for evaluation in evaluated)

    run = instance.get_run_by_id(result.run_id)
    assert run is not None and MARK_TAG in run.tags
    assert "no news" in str(getattr(look_for_news(instance), "skip_message", ""))
    chain.send_events(watch("video-0", 1000, leaves_at=30, duration=120))
    # The run took some seconds, and the marts rest as long: news is seen, and waits.
    assert "there is news; resting" in str(getattr(look_for_news(instance), "skip_message", ""))


def test_a_full_reconciliation_mends_what_an_increment_would_not_look_at(
    chain: Chain, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch, broker: str
) -> None:
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", broker)
    monkeypatch.setenv("KAFKA_GROUP", unique("group"))
    chain.send_videos(VIDEOS)
    chain.send_events(EVENTS)
    # Long before the rest, so that no increment looks at it again.
    chain.client.command(
        "alter table raw.playback_events update ingested_at = ingested_at - interval 1 hour "
        "where video_id = 'video-1' settings mutations_sync = 2"
    )
    chain.build()
    truth = chain.mart("engagement_summary")
    for table in ("int_sessions", "int_views"):
        chain.client.command(
            f"alter table staging.{table} delete where video_id = 'video-1' settings mutations_sync = 2"
        )
    chain.dbt("run")
    assert chain.mart("engagement_summary") != truth

    result = execute("reconcile", instance)

    evaluated = checks(result)
    assert evaluated["agrees_with_raw"].passed and evaluated["fresh"].passed
    assert chain.mart("engagement_summary") == truth


def test_what_the_ttl_dropped_from_raw_stays_in_the_marts_through_a_reconciliation(
    chain: Chain, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    chain.send_videos(VIDEOS)
    chain.send_events(EVENTS)
    chain.build()
    truth = chain.mart("engagement_summary")
    chain.client.command(
        "alter table raw.playback_events delete where video_id = 'video-1' settings mutations_sync = 2"
    )
    monkeypatch.setenv("RAW_TTL_DAYS", "30")
    execute("reconcile", instance)
    assert chain.mart("engagement_summary") == truth


def test_marts_that_lost_a_view_do_not_agree_with_raw(chain: Chain, instance: dg.DagsterInstance) -> None:
    chain.send_videos(VIDEOS)
    chain.send_events(EVENTS)
    chain.build()
    chain.client.command(
        "alter table marts.engagement_summary update views = views - 1 where video_id = 'video-2' "
        "settings mutations_sync = 2"
    )
    result = execute("watch", instance)
    agreement = checks(result)["agrees_with_raw"]
    assert not agreement.passed
    assert agreement.description is not None and "1 of 3 videos differ; video-2: raw has" in agreement.description


def test_marts_are_stale_when_an_event_has_waited_too_long(chain: Chain, instance: dg.DagsterInstance) -> None:
    chain.send_videos(VIDEOS)
    chain.send_events(EVENTS)
    chain.build()
    age = "alter table {} update {} = {} - interval {} minute where 1 settings mutations_sync = 2"
    chain.client.command(age.format("marts.engagement_summary", "computed_at", "computed_at", 30))
    assert checks(execute("watch", instance))["fresh"].passed, "events of just now may wait"
    chain.client.command(age.format("raw.playback_events", "ingested_at", "ingested_at", 10))
    fresh = checks(execute("watch", instance))["fresh"]
    assert not fresh.passed and fresh.severity == dg.AssetCheckSeverity.WARN
    assert fresh.metadata["events_after"].value == len(EVENTS)


def test_a_row_that_ingest_committed_and_that_is_not_stored_makes_raw_incomplete(
    chain: Chain, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch, broker: str
) -> None:
    group = unique("group")
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", broker)
    monkeypatch.setenv("KAFKA_GROUP", group)
    monkeypatch.setenv("KAFKA_LOG_ID", unique("log"))
    chain.send_videos(VIDEOS)
    publish(broker, EVENTS)
    store_all(chain, broker, group)
    execute("marts", instance)
    whole = checks(execute("watch", instance))["complete"]
    assert whole.passed, whole.description

    lost = ", ".join(f"'{EVENTS[number]['event_id']}'" for number in (17, 18, 30, 41))
    where = chain.ask(
        "select concat(topic, '/', toString(partition)) as place, arrayReverseSort(groupArray(offset)) "
        f"from raw.playback_events where event_id in ({lost}) group by place order by place"
    )
    chain.client.command(
        f"alter table raw.playback_events delete where event_id in ({lost}) settings mutations_sync = 2"
    )
    holed = checks(execute("watch", instance))["complete"]
    assert not holed.passed
    holes = "; ".join(f"{place} at {', '.join(map(str, offsets))}" for place, offsets in where)
    assert holed.description == f"4 messages are not stored: {holes}"


def test_an_event_sent_twice_leaves_a_hole_that_is_no_loss(
    chain: Chain, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch, broker: str
) -> None:
    group = unique("group")
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", broker)
    monkeypatch.setenv("KAFKA_GROUP", group)
    monkeypatch.setenv("KAFKA_LOG_ID", unique("log"))
    publish(broker, [*EVENTS[:20], *EVENTS[:20]])
    store_all(chain, broker, group)
    chain.client.command("optimize table raw.playback_events final")
    complete = checks(execute("watch", instance))["complete"]
    assert complete.passed and complete.description is not None
    assert "of them as copies" in complete.description and " 0 of them" not in complete.description


def test_an_observation_has_a_new_version_exactly_when_its_table_has_news(
    chain: Chain, instance: dg.DagsterInstance
) -> None:
    def versions() -> dict[str, str]:
        result = execute("observe", instance)
        assert result.success
        return {
            event.asset_observation_data.asset_observation.asset_key.path[-1]: str(
                event.asset_observation_data.asset_observation.data_version
            )
            for event in result.get_asset_observation_events()
        }

    chain.send_videos(VIDEOS)
    chain.send_events(EVENTS[:10])
    first, again = versions(), versions()
    chain.send_events(EVENTS[10:12])
    then = versions()
    assert first.keys() == RAW_TABLES.keys() and first == again
    assert {table for table in first if first[table] != then[table]} == {"playback_events"}


def test_without_clickhouse_a_run_fails_in_one_line_that_says_where_and_what_to_do(
    instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = free_port()
    monkeypatch.setenv("CLICKHOUSE_PORT", str(port))
    result = execute("observe", instance)
    assert not result.success
    assert reason(result) == (
        f"ClickHouse at 127.0.0.1:{port} does not answer: start it with `retention up`, or set CLICKHOUSE_HOST/PORT"
    )


def test_without_the_schema_a_run_names_the_table_and_the_command_that_makes_it(
    warehouse: Warehouse, instance: dg.DagsterInstance
) -> None:
    warehouse.command("drop database raw sync")
    result = execute("observe", instance)
    assert not result.success
    assert "retention migrate" in reason(result) and "\n" not in reason(result)


def publish(address: str, events: list[dict[str, Any]]) -> None:
    producer = Producer({"bootstrap.servers": address})
    for event in events:
        producer.produce(EVENTS_TOPIC, json.dumps(event).encode(), key=event["session_id"])
    assert producer.flush(30) == 0


def store_all(chain: Chain, address: str, group: str) -> None:
    """What ingest does, without its protocol: everything on the topic into the inbox, then the offsets committed."""
    settings = load_settings()
    log_id = log_identity(settings)[EVENTS_TOPIC]
    consumer = Consumer({"bootstrap.servers": address, "group.id": group, "enable.auto.commit": False})
    try:
        ends = []
        for partition in sorted(consumer.list_topics(EVENTS_TOPIC, timeout=10).topics[EVENTS_TOPIC].partitions):
            low, end = consumer.get_watermark_offsets(TopicPartition(EVENTS_TOPIC, partition), timeout=10)
            assert end - low < OFFSETS_COMPARED
            ends.append(TopicPartition(EVENTS_TOPIC, partition, end))
            consumer.assign([TopicPartition(EVENTS_TOPIC, partition, low)])
            rows: list[list[Any]] = []
            while len(rows) < end - low:
                for message in consumer.consume(1000, timeout=1.0):
                    assert message.error() is None
                    key, value = (message.key() or b"").decode(), (message.value() or b"").decode()
                    rows.append([log_id, EVENTS_TOPIC, partition, message.offset(), 0, key, value])
            columns = ["log_id", "topic", "partition", "offset", "message_time", "key", "payload"]
            if rows:
                chain.client.insert("raw.inbox", rows, column_names=columns)
        consumer.commit(offsets=ends, asynchronous=False)
    finally:
        consumer.close()
