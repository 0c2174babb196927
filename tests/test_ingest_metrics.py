"""What ingest tells of itself: its figures are those of what went through it."""

from __future__ import annotations

import httpx
import pytest

from retention_platform.embedded.up import free_port
from retention_platform.errors import RetentionError
from retention_platform.ingest.batch import Batch
from retention_platform.ingest.metrics import Figures, Metrics, Rate, read_figures


def batch_of(rows: int, topic: str = "playback_events") -> Batch:
    batch = Batch(topic, 0, 0, 0.0)
    for offset in range(rows):
        batch.add((offset, 0, b"", b"row"))
    return batch


def test_what_is_served_is_what_went_through() -> None:
    metrics, port = Metrics(lambda: 0.0), free_port()
    for rows, topic in ((100, "playback_events"), (300, "playback_events"), (5, "videos")):
        metrics.inserted(batch_of(rows, topic), 0.1)
        metrics.stored(batch_of(rows, topic))
    metrics.rejected("playback_events", 3)
    metrics.rejected("videos", 1)
    metrics.retried()
    with metrics.serving("127.0.0.1", port):
        figures = read_figures(httpx.get(f"http://127.0.0.1:{port}/metrics").text)
    assert figures == Figures(40.5, 3, 135.0, 4, 1)
    assert str(figures) == "40 messages/s, 135 a batch, 4 rejected, 1 retries"


def test_the_rate_is_of_the_last_seconds_only() -> None:
    now = 0.0
    rate = Rate(lambda: now)
    rate.add(1000)
    now = 4.0
    rate.add(500)
    assert rate() == 150
    now = 10.0
    assert rate() == 50
    now = 14.0
    assert rate() == 0


def test_a_process_that_did_nothing_yet_has_figures() -> None:
    metrics, port = Metrics(), free_port()
    with metrics.serving("127.0.0.1", port):
        figures = read_figures(httpx.get(f"http://127.0.0.1:{port}/metrics").text)
        taken = metrics.serving("127.0.0.1", port)
        with pytest.raises(RetentionError, match="choose another INGEST_METRICS_PORT"), taken:
            pass
    assert str(figures) == "0 messages/s, 0 rejected, 0 retries"
