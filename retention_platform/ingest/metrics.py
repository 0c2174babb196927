"""What ingest did, for Prometheus and for `retention status`."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, start_http_server

from retention_platform.errors import RetentionError
from retention_platform.ingest.batch import Batch


class Metrics:
    """One process's figures."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._messages = self._counter("retention_ingest_messages", "Messages stored or rejected.", "topic")
        self._bytes = self._counter("retention_ingest_bytes", "Bytes of those messages.", "topic")
        self._retries = self._counter("retention_ingest_retries", "Inserts that had to be tried again.")
        self._poison = self._counter("retention_ingest_poison", "Messages that parse and cannot be stored.")
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
