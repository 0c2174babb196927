"""What ingest did, for Prometheus and for `retention status`."""

from __future__ import annotations

import contextlib
import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, start_http_server
from prometheus_client.parser import text_string_to_metric_families

from retention_platform.errors import RetentionError
from retention_platform.ingest.batch import Batch

#: Of how many seconds the rate tells.
RATE_SECONDS = 10.0


class Rate:
    """How many a second, over the last `RATE_SECONDS`. For use from several threads."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._recent: deque[tuple[float, int]] = deque()

    def add(self, count: int) -> None:
        """So many now."""
        with self._lock:
            self._recent.append((self._clock(), count))
            self._forget()

    def __call__(self) -> float:
        """Of now, a second."""
        with self._lock:
            self._forget()
            return sum(count for _, count in self._recent) / RATE_SECONDS

    def _forget(self) -> None:
        while self._recent and self._recent[0][0] <= self._clock() - RATE_SECONDS:
            self._recent.popleft()


class Metrics:
    """One process's figures; ``clock`` in seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.registry = CollectorRegistry()
        self._messages = self._counter("retention_ingest_messages", "Messages stored or rejected.", "topic")
        self._bytes = self._counter("retention_ingest_bytes", "Bytes of those messages.", "topic")
        self._retries = self._counter("retention_ingest_retries", "Inserts that had to be tried again.")
        self._poison = self._counter("retention_ingest_poison", "Messages that parse and cannot be stored.")
        self._rejects = self._counter("retention_ingest_rejects", "Messages put among the rejected.", "topic")
        self._rate = Rate(clock)
        Gauge(
            "retention_ingest_messages_per_second",
            f"Messages stored or rejected, a second, over the last {RATE_SECONDS:.0f} s.",
            registry=self.registry,
        ).set_function(self._rate)
        self._rows = Histogram(
            "retention_ingest_batch_rows",
            "Messages in a batch.",
            buckets=(1, 10, 100, 1_000, 10_000, 50_000, 100_000),
            registry=self.registry,
        )
        self._seconds = Histogram(
            "retention_ingest_insert_seconds",
            "How long ClickHouse took for a batch, retries included.",
            buckets=(0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30),
            registry=self.registry,
        )
        self._offset = Gauge(
            "retention_ingest_committed_offset",
            "One past the last message stored.",
            ("topic", "partition"),
            registry=self.registry,
        )
        self._lag = Gauge(
            "retention_ingest_lag_messages",
            "Messages in the log that are not stored yet, of the partitions this process reads.",
            ("topic", "partition"),
            registry=self.registry,
        )

    def stored(self, batch: Batch) -> None:
        """A batch was inserted, and its end committed."""
        self._messages.labels(batch.topic).inc(len(batch.rows))
        self._bytes.labels(batch.topic).inc(batch.size)
        self._offset.labels(batch.topic, str(batch.partition)).set(batch.range_end)
        self._rate.add(len(batch.rows))

    def inserted(self, batch: Batch, seconds: float) -> None:
        """ClickHouse took a batch."""
        self._rows.observe(len(batch.rows))
        self._seconds.observe(seconds)

    def retried(self) -> None:
        """An insert failed and is tried again."""
        self._retries.inc()

    def poisoned(self, messages: int) -> None:
        """So many messages were put aside."""
        self._poison.inc(messages)

    def rejected(self, topic: str, messages: int) -> None:
        """So many messages of a batch are among the rejected: not the contract, or poison."""
        self._rejects.labels(topic).inc(messages)

    def behind(self, topic: str, partition: int, messages: int | None) -> None:
        """How far behind a partition is; None when it is another's now."""
        if messages is not None:
            self._lag.labels(topic, str(partition)).set(messages)
            return
        with contextlib.suppress(KeyError):
            self._lag.remove(topic, str(partition))

    @contextlib.contextmanager
    def serving(self, host: str, port: int) -> Iterator[None]:
        """Serve them on ``/metrics``; not at all when ``port`` is 0. Raises RetentionError on a taken port."""
        if port == 0:
            yield
            return
        try:
            server, thread = start_http_server(port, host, self.registry)
        except OSError as error:
            raise RetentionError(
                f"cannot serve metrics on {host}:{port} ({error.strerror}): "
                "choose another INGEST_METRICS_PORT, 0 for none"
            ) from None
        try:
            yield
        finally:
            server.shutdown()
            thread.join()

    def _counter(self, name: str, what: str, *labels: str) -> Counter:
        return Counter(name, what, labels, registry=self.registry)


@dataclass(frozen=True)
class Figures:
    """What one process said on ``/metrics``, summed over topics."""

    messages_per_second: float
    batches: int
    #: Messages in a batch, on average.
    batch_rows: float
    rejects: int
    retries: int

    def __str__(self) -> str:
        batches = f"{self.batch_rows:,.0f} a batch, " if self.batches else ""
        faults = f"{self.rejects:,} rejected, {self.retries:,} retries"
        return f"{self.messages_per_second:,.0f} messages/s, {batches}{faults}"


def read_figures(text: str) -> Figures:
    """The figures in what ``/metrics`` answers; what is not there is 0. Raises ValueError where it is nothing such."""
    found: defaultdict[str, float] = defaultdict(float)
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found[sample.name] += sample.value
    batches = int(found["retention_ingest_batch_rows_count"])
    return Figures(
        found["retention_ingest_messages_per_second"],
        batches,
        found["retention_ingest_batch_rows_sum"] / max(batches, 1),
        int(found["retention_ingest_rejects_total"]),
        int(found["retention_ingest_retries_total"]),
    )
