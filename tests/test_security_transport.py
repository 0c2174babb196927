"""Encryption and credentials: settings that contradict each other are told, and real servers are reached with them."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from confluent_kafka import Consumer, Producer

from retention_platform.api.warehouse import Warehouse as ApiWarehouse
from retention_platform.api.warehouse import WarehouseAway
from retention_platform.contract import EVENTS_TOPIC, VIDEOS_TOPIC
from retention_platform.errors import ServiceError, SettingsError
from retention_platform.ingest.broker import ensure_topics, group_lag, log_identity
from retention_platform.orchestration import dbt_run
from retention_platform.settings import Settings, load_settings
from retention_platform.warehouse.client import connect
from tests.delivery.kafka import Kafka, unavailable
from tests.tls import Authority, in_front_of

needs_openssl = pytest.mark.skipif(shutil.which("openssl") is None, reason="certificates are made by openssl")


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"kafka_ssl_ca": __file__}, "KAFKA_SSL_CA has no effect"),
        ({"kafka_security_protocol": "SSL", "kafka_ssl_cert": __file__}, "belong together"),
        ({"kafka_security_protocol": "SSL", "kafka_ssl_ca": "/nowhere/ca.pem"}, "there is no file"),
        ({"kafka_security_protocol": "SASL_SSL"}, "needs KAFKA_SASL_MECHANISM"),
        (
            {"kafka_security_protocol": "SASL_SSL", "kafka_sasl_mechanism": "PLAIN", "kafka_sasl_user": "u"},
            "needs KAFKA_SASL_PASSWORD",
        ),
        ({"kafka_sasl_user": "u"}, "KAFKA_SASL_USER has no effect"),
        ({"kafka_security_protocol": "TLS"}, "KAFKA_SECURITY_PROTOCOL='TLS' cannot be used"),
        ({"clickhouse_ca": __file__}, "set CLICKHOUSE_SECURE=true"),
        ({"clickhouse_verify": False}, "set CLICKHOUSE_SECURE=true"),
        ({"clickhouse_secure": True, "clickhouse_verify": False, "clickhouse_ca": __file__}, "unset one of them"),
    ],
)
def test_settings_that_contradict_each_other_are_told_in_one_line(values: dict[str, object], words: str) -> None:
    with pytest.raises(SettingsError, match=words) as caught:
        load_settings(**values)
    assert "\n" not in str(caught.value)


def test_an_empty_variable_is_one_that_is_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KAFKA_SSL_CA", "")
    monkeypatch.setenv("KAFKA_SECURITY_PROTOCOL", "")
    assert load_settings().kafka_ssl_ca is None
    assert load_settings().kafka_security_protocol == "PLAINTEXT"


@needs_openssl
def test_every_client_of_clickhouse_speaks_tls_with_an_authority_of_ones_own(
    clickhouse_port: int, authority: Authority, tmp_path: Path
) -> None:
    def settings(**values: object) -> Settings:
        where = {"clickhouse_host": "127.0.0.1", "clickhouse_port": port, "clickhouse_secure": True}
        return load_settings(retention_home=tmp_path, **where, **values)

    async def asked(chosen: Settings) -> list[dict[str, object]]:
        warehouse = ApiWarehouse(chosen)
        try:
            return await warehouse.rows("select 40 + 2 as answer")
        finally:
            await warehouse.close()

    question = ["show", "--inline", "select 40 + 2"]
    with in_front_of(clickhouse_port, authority) as port:
        # First, since a connection that somebody has verified may be used again by others of this process.
        unknown = settings()
        with pytest.raises(ServiceError, match="CLICKHOUSE_CA"):
            connect(unknown)
        with pytest.raises(WarehouseAway):
            asyncio.run(asked(unknown))
        with pytest.raises(dbt_run.DbtError):
            list(dbt_run.stream(question, unknown, tmp_path / "unknown"))

        known = settings(clickhouse_ca=authority.ca)
        assert connect(known).query("select 40 + 2").result_rows == [(42,)]
        assert asyncio.run(asked(known)) == [{"answer": 42}]
        list(dbt_run.stream(question, known, tmp_path / "known"))

        unverified = settings(clickhouse_verify=False)
        assert connect(unverified).query("select 40 + 2").result_rows == [(42,)]
        assert asyncio.run(asked(unverified)) == [{"answer": 42}]


@pytest.fixture(scope="module")
def secured_kafka(tmp_path_factory: pytest.TempPathFactory, authority: Authority) -> Iterator[Kafka]:
    reason = unavailable()
    if reason is not None:
        pytest.skip(reason)
    broker = Kafka(tmp_path_factory.mktemp("kafka") / "broker", secured=authority)
    try:
        broker.start()
        yield broker
    finally:
        broker.stop()


@needs_openssl
def test_a_broker_with_sasl_ssl_is_read_and_written_and_a_wrong_password_is_told(
    secured_kafka: Kafka, authority: Authority, tmp_path: Path
) -> None:
    def settings(password: str) -> Settings:
        return load_settings(
            retention_home=tmp_path,
            kafka_bootstrap_servers=secured_kafka.address,
            kafka_security_protocol="SASL_SSL",
            kafka_ssl_ca=authority.ca,
            kafka_sasl_mechanism="PLAIN",
            kafka_sasl_user="retention",
            kafka_sasl_password=password,
        )

    right = settings("right")
    assert sorted(ensure_topics(right)) == sorted([EVENTS_TOPIC, VIDEOS_TOPIC])
    assert set(log_identity(right)) == {EVENTS_TOPIC, VIDEOS_TOPIC}
    producer = Producer({**right.kafka_config(), "acks": "all"})
    producer.produce(EVENTS_TOPIC, value=b"hello", partition=0)
    assert producer.flush(30) == 0
    assert sum(place.lag for place in group_lag(right)) == 1
    consumer = Consumer({**right.kafka_config(), "group.id": "reader", "auto.offset.reset": "earliest"})
    consumer.subscribe([EVENTS_TOPIC])
    message = consumer.poll(30)
    consumer.close()
    assert message is not None and message.value() == b"hello"

    with pytest.raises(ServiceError, match="KAFKA_SASL_"):
        group_lag(settings("wrong"), timeout=3)
