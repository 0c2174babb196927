"""What pseudonyms and erased viewers cost the stream: CPU time of making rows, and of ClickHouse taking them in."""

from __future__ import annotations

import secrets
import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from benchmarks.report import Report
from benchmarks.simulator import END
from producer.simulator import history, in_sending_order
from retention_platform.contract import EVENTS_TOPIC
from retention_platform.embedded import clickhouse as embedded_clickhouse
from retention_platform.ingest.batch import Source
from retention_platform.ingest.erase import viewer_hash
from retention_platform.ingest.pseudonym import Pseudonyms
from retention_platform.ingest.sink import ClickHouseSink
from retention_platform.settings import load_settings
from retention_platform.warehouse.client import connect
from retention_platform.warehouse.migrate import migrate

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client

BATCH = 50_000


@dataclass(frozen=True)
class Way:
    """How the stream is taken in."""

    name: str
    key: bytes | None = None
    erased: int = 0


WAYS = (
    Way("viewer ids as they come"),
    Way("as pseudonyms", key=secrets.token_bytes(32)),
    Way("1 viewer erased", erased=1),
    Way("10,000 viewers erased", erased=10_000),
)


def run(report: Report, events: int = 200_000, rounds: int = 3) -> None:
    """Measure; each way has its turn in each round, into empty tables."""
    sessions = in_sending_order(history(1, events // 10, 1, END))
    messages = [(session.session_id.encode(), message) for session, message in islice(sessions, events)]
    assert len(messages) == events, "the simulated history is too short"
    taken: dict[str, list[tuple[float, float]]] = {way.name: [] for way in WAYS}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with embedded_clickhouse.running(folder / "clickhouse") as server:
            settings = load_settings(retention_home=folder, clickhouse_port=server.port)
            client = connect(settings)
            for number in range(rounds):
                for way in WAYS if number % 2 else WAYS[::-1]:
                    _empty(client, way)
                    taken[way.name].append(_turn(ClickHouseSink(settings), server.pid, way, messages))
                    stored = client.command("select sum(messages) from raw.deliveries")
                    assert stored == events, f"{way.name}: {stored} of {events} are stored"
            client.close()
    report.text(
        f"{events:,} simulated events in batches of {BATCH:,}, into empty tables, {rounds} rounds in which each way "
        "has a turn; CPU seconds a million events, medians. None of the erased is a viewer: the same is stored."
    )
    report.table(
        ("CPU s a million events", "making rows, one core", "ClickHouse"),
        [
            (name, *(f"{statistics.median(turn[part] for turn in turns):.2f}" for part in range(2)))
            for name, turns in taken.items()
        ],
    )


def _empty(client: Client, way: Way) -> None:
    for database in ("raw", "live"):
        client.command(f"drop database if exists {database} sync")
    migrate(client)
    if way.erased:
        hashes = [[viewer_hash(f"nobody-{number}")] for number in range(way.erased)]
        client.insert("raw.erased_viewers", hashes, column_names=["viewer_hash"])


def _turn(sink: ClickHouseSink, server: int, way: Way, messages: Sequence[tuple[bytes, bytes]]) -> tuple[float, float]:
    """CPU seconds a million events: of this process making rows as ingest does, and of the server."""
    pseudonyms = None if way.key is None else Pseudonyms(way.key)
    source, making = Source("log", EVENTS_TOPIC, 0), 0.0
    before = _cpu(server)
    for start in range(0, len(messages), BATCH):
        begin = time.process_time()
        rows = []
        for offset, (key, message) in enumerate(messages[start : start + BATCH], start):
            payload = message if pseudonyms is None else pseudonyms.message(EVENTS_TOPIC, message)
            rows.append((offset, 0, key, payload))
        making += time.process_time() - begin
        sink.insert(source, rows, f"{way.name}/{start}")
    return making / len(messages) * 1e6, (_cpu(server) - before) / len(messages) * 1e6


def _cpu(pid: int) -> float:
    times = psutil.Process(pid).cpu_times()
    return float(times.user + times.system)
