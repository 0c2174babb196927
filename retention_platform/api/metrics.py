"""The API's figures for Prometheus: its own requests, and what the health check knows of the chain behind it."""

from __future__ import annotations

from datetime import datetime, timezone

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from retention_platform.api.models.service import Health

__all__ = ["CONTENT_TYPE_LATEST", "Metrics"]

#: Seconds; a curve takes some 10 ms, and the warehouse is given up on after 15 s.
_BUCKETS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 15)


class Metrics:
    """One application's figures."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        requests = ("method", "path", "status")
        self._requests = Counter(
            "retention_api_requests", "Requests answered, by route.", requests, registry=self._registry
        )
        self._seconds = Histogram(
            "retention_api_request_seconds",
            "From a request to the last byte of its answer.",
            ("path",),
            buckets=_BUCKETS,
            registry=self._registry,
        )
        self._up = Gauge("retention_up", "1 when the part answers.", ("part",), registry=self._registry)
        self._marts_lag = self._gauge("retention_marts_lag_seconds", "Stored events that the marts do not contain yet.")
        self._marts_age = self._gauge("retention_marts_age_seconds", "Since the marts were computed.")
        self._newest_age = self._gauge("retention_newest_event_age_seconds", "Since the newest event was stored.")
        self._ingest_lag = self._gauge("retention_ingest_lag_messages", "Messages in the topics not stored yet.")
        self._rejected = self._gauge("retention_rejected_messages", "Messages refused since the beginning.")

    def answered(self, method: str, path: str, status: int, seconds: float) -> None:
        """Count one request; ``path`` is the route's template, so that ids do not make a series each."""
        self._requests.labels(method if method in {"GET", "HEAD"} else "other", path, str(status)).inc()
        self._seconds.labels(path).observe(seconds)

    def render(self, health: Health, rejected: int | None) -> bytes:
        """All figures as Prometheus reads them; what nobody could say is NaN."""
        for part, state in health.dependencies:
            self._up.labels(part).set(state.status == "up")
        fresh, now = health.freshness, datetime.now(timezone.utc)
        for gauge, value in (
            (self._marts_lag, fresh.marts_lag_s),
            (self._marts_age, _age(fresh.marts_computed_at, now)),
            (self._newest_age, _age(fresh.newest_ingested_at, now)),
            (self._ingest_lag, fresh.ingest_lag_messages),
            (self._rejected, rejected),
        ):
            gauge.set(float("nan") if value is None else value)
        return generate_latest(self._registry)

    def _gauge(self, name: str, what: str) -> Gauge:
        return Gauge(name, what, registry=self._registry)


def _age(moment: datetime | None, now: datetime) -> float | None:
    return None if moment is None else (now - moment).total_seconds()
