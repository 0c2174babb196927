"""With a key set, ingest stores pseudonyms in place of viewer ids, and the verdict on a message stays the same."""

from __future__ import annotations

import hashlib
import hmac
import json
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from confluent_kafka import Producer

from retention_platform.contract import EVENTS_TOPIC, VIDEOS_TOPIC, parse_event
from retention_platform.errors import ContractError, SettingsError
from retention_platform.ingest.consumer import Ingest
from retention_platform.ingest.pseudonym import Pseudonyms
from retention_platform.ingest.sink import ClickHouseSink
from retention_platform.settings import load_settings
from tests.conftest import unique
from tests.messages import EVENT
from tests.test_contract_sql import OPTIONAL_EVENT, RECEIVED, messages

if TYPE_CHECKING:
    from tests.conftest import Warehouse

KEY = "0123456789abcdef0123456789abcdef"


def expected(viewer: str) -> str:
    """As anybody with the key would compute it."""
    return "hmac:" + hmac.new(KEY.encode(), viewer.encode(), hashlib.sha256).hexdigest()


def verdict(payload: bytes) -> str:
    try:
        parse_event(payload, RECEIVED)
    except ContractError as error:
        return str(error)
    return ""


@pytest.fixture
def pseudonyms() -> Pseudonyms:
    return Pseudonyms(KEY.encode())


def test_of_an_event_only_the_viewer_changes(pseudonyms: Pseudonyms) -> None:
    changed = json.loads(pseudonyms.message(EVENTS_TOPIC, json.dumps(EVENT).encode()))
    assert changed == {**EVENT, "viewer_id": expected("viewer-1")}


@pytest.mark.parametrize("viewer", ["é😀", 'a"b\\c', "\t", "x" * 256, "play", "viewer_id", "1"])
def test_ids_of_every_kind_become_the_same_pseudonym_however_they_are_written(
    pseudonyms: Pseudonyms, viewer: str
) -> None:
    for ascii_only in (True, False):
        message = {**EVENT, "viewer_id": viewer}
        changed = pseudonyms.message(EVENTS_TOPIC, json.dumps(message, ensure_ascii=ascii_only).encode())
        found = json.loads(changed)
        assert found["viewer_id"] == expected(viewer)
        assert found.keys() == EVENT.keys()


def test_a_pseudonym_stays_what_it_is_so_that_mended_rejects_can_be_sent_again(pseudonyms: Pseudonyms) -> None:
    once = pseudonyms.message(EVENTS_TOPIC, json.dumps(EVENT).encode())
    assert pseudonyms.message(EVENTS_TOPIC, once) == once


def test_videos_pass_as_they_are(pseudonyms: Pseudonyms) -> None:
    assert pseudonyms.message(VIDEOS_TOPIC, b'{"viewer_id": "v"}') == b'{"viewer_id": "v"}'


def test_every_message_is_judged_as_it_would_be_without_a_key(pseudonyms: Pseudonyms) -> None:
    judged = 0
    for payload in messages(EVENT, OPTIONAL_EVENT, seed=5):
        changed = pseudonyms.message(EVENTS_TOPIC, payload)
        assert verdict(changed) == verdict(payload), payload
        judged += 1
    assert judged > 2000


@pytest.mark.parametrize(
    "payload",
    [
        b'{"viewer_id": "secret-viewer"',
        b'["secret-viewer"]',
        b'"secret-viewer"',
        b'{"viewerId": "secret-viewer", "schema_version": 1}',
        b'{"viewer_id": {"name": "secret-viewer"}}',
        b'{"viewer_id": "secret-viewer", "user": {"mail": "secret-viewer"}}',
        b'{"viewer_id": "secret-viewer", "player": "secret-viewer"}',
        b'{"viewer_id": "' + b"secret-viewer" * 30 + b'"}',
        b'{"viewer_id": "secret-viewer", "os": "' + b"x" * 70_000 + b'"}',
        b'{"viewer_id": "secret-viewer", "viewer_id": "secret-viewer-2"}',
    ],
)
def test_what_is_refused_names_nobody_either(pseudonyms: Pseudonyms, payload: bytes) -> None:
    changed = pseudonyms.message(EVENTS_TOPIC, payload)
    assert b"secret-viewer" not in changed
    assert verdict(changed) == verdict(payload) != ""


def test_a_key_too_short_or_given_twice_is_told(tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text(KEY + "\n", encoding="utf-8")
    assert load_settings(viewer_id_hmac_key_file=file).viewer_id_key() == KEY.encode()
    assert load_settings().viewer_id_key() is None
    with pytest.raises(SettingsError, match="openssl rand"):
        load_settings(viewer_id_hmac_key="short")
    with pytest.raises(SettingsError, match="set one of them"):
        load_settings(viewer_id_hmac_key=KEY, viewer_id_hmac_key_file=file)
    with pytest.raises(SettingsError, match="cannot be read"):
        load_settings(viewer_id_hmac_key_file=tmp_path / "nowhere")


def test_ingest_stores_pseudonyms_in_raw_and_rejects_and_the_same_again_when_the_topic_is_read_again(
    empty_warehouse: Warehouse, broker: str, tmp_path: Path
) -> None:
    viewer, session = unique("secret-viewer"), unique("session")
    good = {**EVENT, "viewer_id": viewer, "session_id": session}
    wrong = {**good, "position_ms": -1}
    producer = Producer({"bootstrap.servers": broker})
    producer.list_topics(VIDEOS_TOPIC, timeout=10)
    for message in (good, wrong):
        producer.produce(EVENTS_TOPIC, key=session, value=json.dumps(message).encode())
    assert producer.flush(30) == 0

    def read_all(log_id: str) -> tuple[set[str], set[str]]:
        settings = load_settings(
            retention_home=tmp_path,
            clickhouse_port=empty_warehouse.settings.clickhouse_port,
            kafka_bootstrap_servers=broker,
            kafka_group=unique("pseudonyms"),
            kafka_log_id=log_id,
            viewer_id_hmac_key=KEY,
        )
        ingest = Ingest(settings, ClickHouseSink(settings))
        thread = threading.Thread(target=ingest.run)
        thread.start()
        try:
            deadline = time.monotonic() + 120
            while True:
                events = empty_warehouse.rows(
                    "select viewer_id from raw.playback_events where session_id = {session:String} "
                    "and log_id = {log:String}",
                    session=session,
                    log=log_id,
                )
                rejects = empty_warehouse.rows(
                    "select payload from raw.rejected_events where key = {session:String} and log_id = {log:String}",
                    session=session,
                    log=log_id,
                )
                if events and rejects:
                    return {row[0] for row in events}, {row[0] for row in rejects}
                assert time.monotonic() < deadline, "nothing is stored"
                time.sleep(0.1)
        finally:
            ingest.stop()
            thread.join(60)

    events, rejects = read_all(unique("log"))
    assert events == {expected(viewer)}
    assert [json.loads(payload)["viewer_id"] for payload in rejects] == [expected(viewer)]
    assert read_all(unique("log")) == (events, rejects)
