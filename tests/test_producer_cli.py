"""`retention produce` as people run it: printed, published, stopped, cut short."""

from __future__ import annotations

import io
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections import defaultdict
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Consumer, TopicPartition
from rich.console import Console

from producer.catalogue import CATALOGUE
from producer.cli import publish_history
from producer.truth import TruthFile
from retention_platform.contract import EVENTS_TOPIC, VIDEOS_TOPIC, parse_event, parse_video
from retention_platform.embedded import broker as embedded_broker
from retention_platform.settings import Settings, load_settings
from tests.test_producer_publisher import SlowIngest

PRODUCE = (sys.executable, "-m", "retention_platform.cli", "produce")
PAST = ("--history", "3", "--sessions", "40", "--end", "2026-02-02T12:00:00Z")


@pytest.fixture
def own_broker(tmp_path: Path) -> Any:
    """Settings of a broker whose topics hold nothing but what the test sends."""
    with embedded_broker.running() as address:
        yield load_settings(retention_home=tmp_path, kafka_bootstrap_servers=address)


def printed(*options: str) -> list[bytes]:
    run = subprocess.run([*PRODUCE, *options, "--dry-run"], capture_output=True, check=True, timeout=60)
    assert run.stderr == b""
    return run.stdout.splitlines()


def refused(*options: str) -> str:
    run = subprocess.run([*PRODUCE, *options], capture_output=True, text=True, check=False, timeout=60)
    assert run.returncode == 1
    assert run.stdout == ""
    (line,) = run.stderr.splitlines()
    return line


def all_of(settings: Settings, topic: str, at_least: int) -> list[bytes]:
    """The values on a topic, once it holds so many."""
    consumer = Consumer({**settings.kafka_config(), "group.id": "reader", "enable.auto.commit": False})
    deadline = time.monotonic() + 20
    while True:
        ends = [consumer.get_watermark_offsets(TopicPartition(topic, p), timeout=5)[1] for p in range(4)]
        if sum(ends) >= at_least:
            break
        assert time.monotonic() < deadline, f"{topic} holds {sum(ends)} messages, not {at_least}"
        time.sleep(0.1)
    consumer.assign([TopicPartition(topic, p, 0) for p in range(4)])
    values: list[bytes] = []
    while len(values) < sum(ends) and time.monotonic() < deadline:
        values += [value for message in consumer.consume(1000, timeout=0.3) if (value := message.value()) is not None]
    consumer.close()
    return values


def truth_by_events(messages: list[bytes]) -> dict[str, tuple[str, int, list[list[int]]]]:
    """By session: viewer, distinct events and played intervals, from messages alone."""
    sessions: dict[str, dict[str, Any]] = defaultdict(dict)
    for event in map(json.loads, messages):
        sessions[event["session_id"]][event["event_id"]] = event
    found = {}
    for session_id, events in sessions.items():
        in_order = sorted(events.values(), key=lambda event: event["event_time"])
        intervals = [[e["played_from_ms"], e["played_to_ms"]] for e in in_order if "played_to_ms" in e]
        found[session_id] = (in_order[0]["viewer_id"], len(events), intervals)
    return found


def truth_by_file(path: Path) -> dict[str, tuple[str, int, list[list[int]]]]:
    lines = [json.loads(line) for line in path.read_bytes().splitlines()]
    assert len({line["session_id"] for line in lines}) == len(lines)
    return {line["session_id"]: (line["viewer_id"], line["events"], line["intervals"]) for line in lines}


def test_a_dry_run_prints_the_catalogue_and_the_same_events_every_time(tmp_path: Path) -> None:
    truth = tmp_path / "truth.jsonl"
    lines = printed(*PAST, "--truth", str(truth))
    videos, events = lines[:12], lines[12:]
    assert [parse_video(line) for line in videos] == [demo.video for demo in CATALOGUE]
    assert len({parse_event(line).session_id for line in events}) == 40
    assert truth_by_file(truth) == truth_by_events(events)
    assert printed(*PAST) == lines
    assert printed(*PAST, "--seed", "2")[12:] != events


def test_a_limit_cuts_the_events_and_the_truth_tells_only_of_those(tmp_path: Path) -> None:
    truth = tmp_path / "truth.jsonl"
    events = printed(*PAST, "--limit", "333", "--truth", str(truth))[12:]
    assert events == printed(*PAST)[12 : 12 + 333]
    assert truth_by_file(truth) == truth_by_events(events)
    assert not all(json.loads(line)["is_complete"] for line in truth.read_bytes().splitlines())


def test_a_reader_that_goes_away_ends_a_dry_run_without_a_traceback() -> None:
    with subprocess.Popen([*PRODUCE, *PAST, "--dry-run"], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as run:
        assert run.stdout is not None and run.stderr is not None
        run.stdout.readline()
        run.stdout.close()
        assert run.stderr.read() == b""


def test_history_is_published_whole_and_waits_until_it_is_stored(own_broker: Settings, tmp_path: Path) -> None:
    end = datetime(2026, 2, 2, 12, 0, tzinfo=timezone.utc)
    expected = printed("--history", "3", "--sessions", "200", "--end", end.isoformat())[12:]
    ingest = SlowIngest(own_broker, [VIDEOS_TOPIC, EVENTS_TOPIC], 12 + len(expected), 500, 0.01)
    ingest.start()
    shown = io.StringIO()
    with TruthFile(tmp_path / "truth.jsonl") as truth:
        published = publish_history(
            own_broker,
            seed=1,
            days=3,
            sessions=200,
            end=end,
            console=Console(file=shown, force_terminal=True, width=120),
            truth=truth,
        )
    ingest.join()
    assert published == len(expected)
    videos = [demo.video.to_json() for demo in CATALOGUE]
    assert sorted(value for _, _, _, value in ingest.read) == sorted(videos + expected)
    for _, _, key, value in ingest.read:
        message = json.loads(value)
        assert key == message.get("session_id", message["video_id"])
    assert "200 of 200 sessions" in shown.getvalue()
    assert truth_by_file(tmp_path / "truth.jsonl") == truth_by_events(expected)


def test_live_viewers_are_published_as_time_goes_and_end_quickly_on_sigterm(
    own_broker: Settings, tmp_path: Path
) -> None:
    truth = tmp_path / "truth.jsonl"
    environment = {**os.environ, "KAFKA_BOOTSTRAP_SERVERS": own_broker.kafka_bootstrap_servers}
    begun = datetime.now(timezone.utc)
    command = [*PRODUCE, "--rate", "60", "--truth", str(truth)]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as run:
        all_of(own_broker, EVENTS_TOPIC, 100)
        run.send_signal(signal.SIGTERM)
        asked = time.monotonic()
        output, errors = run.communicate(timeout=20)
        took = time.monotonic() - asked
    ended = datetime.now(timezone.utc)
    assert run.returncode == 0
    assert (output, errors) == (b"", b"")
    assert took < 2
    assert len(all_of(own_broker, VIDEOS_TOPIC, 12)) == 12
    events = all_of(own_broker, EVENTS_TOPIC, 100)
    for message in events:
        moment = parse_event(message).event_time
        assert begun - timedelta(seconds=1) <= moment <= ended
    assert truth_by_file(truth) == truth_by_events(events)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_live_producer_whose_broker_is_silent_ends_quickly_when_asked(number: signal.Signals) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        environment = {**os.environ, "KAFKA_BOOTSTRAP_SERVERS": address}
        with subprocess.Popen(PRODUCE, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as run:
            silent.settimeout(20)
            connection, _ = silent.accept()  # it publishes the catalogue now
            run.send_signal(number)
            asked = time.monotonic()
            output, errors = run.communicate(timeout=20)
            took = time.monotonic() - asked
            connection.close()
    assert (run.returncode, output, errors) == (0, b"", b"")
    assert took < 2


def test_what_cannot_be_used_is_said_in_one_line(tmp_path: Path) -> None:
    assert "--viewers '8..1' cannot be used: give MIN..MAX" in refused("--viewers", "8..1")
    assert "--viewers 'many' cannot be used" in refused("--viewers", "many")
    assert "--end 'yesterday' cannot be used" in refused("--history", "1", "--end", "yesterday")
    assert "cannot write" in refused("--truth", str(tmp_path / "no" / "truth.jsonl"), "--dry-run")
    assert "no Kafka broker is known" in refused()
