"""Prometheus metrics of what workers do and of what waits, in a registry of one's own.

`Metrics()` is an observer, see `vectorizer.events`; `Metrics.text` is what a scrape gets.
Counters and histograms are of this process. Gauges tell of the database, the same from every
worker: take their maximum, not their sum.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime, timezone
from importlib.metadata import version
from typing import Any, Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from vectorizer.events import (
    BatchClaimed,
    BatchFailed,
    BatchFinished,
    Event,
    LeaseWasLost,
    RequestFinished,
    RequestRetried,
)

__all__ = ["Metrics"]

_LAGS: Final = (0.01, 0.02, 0.04, 0.08, 0.15, 0.3, 0.6, 1, 2.5, 5, 10, 30, 60, 300, 1800, 7200)
_TIMES: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 120)

# Gauge, the column of the view `status` it shows, and what it says.
_GAUGES: Final = (
    ("queue_rows", "waiting", "Entries in the change log, counted up to a million."),
    ("in_flight_rows", "in_flight", "Rows in batches that some worker holds."),
    ("retrying_rows", "retrying", "Rows that wait for another attempt."),
    ("dead_letters", "dead_letters", "Rows that were given up."),
    ("backfill_claimed_rows", "backfill_claimed", "Rows the backfill has claimed so far."),
    ("backfill_expected_rows", "backfill_total", "Rows it is going to claim, about."),
    ("backfill_done", "backfill_done", "Whether the backfill is over."),
    ("embeddings", "embeddings", "Chunks in the destination, about."),
    ("log_bytes", "log_bytes", "What the change log takes on disk."),
    ("partitions", "partitions", "Partitions of the destination."),
    ("tokens_today", "tokens_today", "Tokens sent since midnight UTC, by all workers."),
    ("tokens_asked_today", "tokens_asked_today", "Tokens sent and saved since midnight UTC."),
    ("texts_today", "texts_today", "Texts sent since midnight UTC, by all workers."),
    ("texts_asked_today", "texts_asked_today", "Texts sent and saved since midnight UTC."),
    ("unserved", "unserved", "Whether a worker could not serve it, and none could since."),
    ("warnings", "warnings", "Warnings that vectorizer status shows."),
)


class Metrics:
    """Counts events, and shows the state of the queues that it was last told of."""

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        self.registry = registry = registry or CollectorRegistry()
        self._rows = Counter(
            "vectorizer_rows", "Rows processed.", ["vectorizer"], registry=registry
        )
        self._failures = Counter(
            "vectorizer_row_failures",
            "Rows that failed by themselves: tried again later, or given up.",
            ["vectorizer"],
            registry=registry,
        )
        self._chunks = Counter(
            "vectorizer_chunks",
            "Chunks, by what became of them: embedded, kept (saved), or deleted.",
            ["vectorizer", "outcome"],
            registry=registry,
        )
        self._batches = Counter(
            "vectorizer_batches",
            "Batches by outcome: ok, or the error that ended them.",
            ["vectorizer", "outcome"],
            registry=registry,
        )
        self._lost = Counter(
            "vectorizer_lease_losses",
            "Batches whose lease was lost; nothing of them was written.",
            ["vectorizer"],
            registry=registry,
        )
        self._requests = Counter(
            "vectorizer_requests",
            "Requests to models by outcome.",
            ["vectorizer", "outcome"],
            registry=registry,
        )
        self._retries = Counter(
            "vectorizer_request_retries",
            "Requests that were made again after an error.",
            ["vectorizer", "error"],
            registry=registry,
        )
        self._texts = Counter(
            "vectorizer_texts", "Texts sent to models.", ["vectorizer"], registry=registry
        )
        self._tokens = Counter(
            "vectorizer_tokens",
            "Tokens sent to models, as far as they count them.",
            ["vectorizer"],
            registry=registry,
        )
        self._request_seconds = Histogram(
            "vectorizer_request_seconds",
            "How long requests to models take.",
            ["vectorizer"],
            buckets=_TIMES,
            registry=registry,
        )
        self._stages = Histogram(
            "vectorizer_batch_stage_seconds",
            "How long a batch spends in each stage: claim, load, prepare, embed, finish.",
            ["vectorizer", "stage"],
            buckets=_TIMES,
            registry=registry,
        )
        self._lag = Histogram(
            "vectorizer_commit_to_searchable_seconds",
            "From the oldest change in a batch until it can be searched.",
            ["vectorizer"],
            buckets=_LAGS,
            registry=registry,
        )
        self._claimed = Counter(
            "vectorizer_claimed_rows", "Rows claimed.", ["vectorizer"], registry=registry
        )
        build = Gauge(
            "vectorizer_build_info",
            "1, with the versions of the program and of Python.",
            ["version", "python"],
            registry=registry,
        )
        build.labels(version("pg-vectorizer"), platform.python_version()).set(1)
        self._state = _State()
        registry.register(self._state)

    def __call__(self, event: Event, /) -> None:
        """Count an event."""
        name = event.vectorizer
        match event:
            case BatchClaimed():
                self._claimed.labels(name).inc(event.rows)
            case BatchFinished():
                self._finished(event)
            case BatchFailed():
                self._batches.labels(name, event.error).inc()
            case LeaseWasLost():
                self._lost.labels(name).inc()
            case RequestRetried():
                self._retries.labels(name, event.error).inc()
            case RequestFinished():
                self._requests.labels(name, event.outcome).inc()
                self._texts.labels(name).inc(event.texts)
                self._tokens.labels(name).inc(event.tokens)
                self._request_seconds.labels(name).observe(event.seconds)

    def _finished(self, event: BatchFinished) -> None:
        name, counts = event.vectorizer, event.counts
        self._batches.labels(name, "ok").inc()
        self._rows.labels(name).inc(counts.rows)
        self._failures.labels(name).inc(counts.failed)
        for outcome in ("embedded", "kept", "deleted"):
            self._chunks.labels(name, outcome).inc(getattr(counts, outcome))
        for stage, seconds in event.stages.items():
            self._stages.labels(name, stage).observe(seconds)
        if event.lag_seconds is not None:
            self._lag.labels(name).observe(event.lag_seconds)

    def show(self, status: Sequence[Mapping[str, Any]]) -> None:
        """Take over the rows of the view `status`, each with its number of partitions."""
        self._state.status = status

    def text(self, accept: str = "") -> tuple[str, bytes]:
        """Return the content type and the body for a scrape with this Accept header."""
        encode, content_type = choose_encoder(accept)
        return content_type, encode(self.registry)


class _State(Collector):
    """Gauges made from the view `status` at the time of a scrape."""

    def __init__(self) -> None:
        self.status: Sequence[Mapping[str, Any]] = ()

    def collect(self) -> Iterable[GaugeMetricFamily]:
        """Return all gauges."""
        labels = ["vectorizer", "generation"]
        for gauge, column, text in _GAUGES:
            family = GaugeMetricFamily(f"vectorizer_{gauge}", text, labels=labels)
            for row in self.status:
                value = row.get(column)
                if value is not None:
                    number = len(value) if isinstance(value, list) else float(value)
                    family.add_metric(_labels(row), number)
            yield family
        yield self._family("oldest_change_age_seconds", "Age of the oldest waiting change.", _age)
        yield self._family("paused", "Whether it is paused.", lambda row: row["state"] == "paused")

    def _family(
        self, name: str, text: str, value: Callable[[Mapping[str, Any]], float]
    ) -> GaugeMetricFamily:
        family = GaugeMetricFamily(f"vectorizer_{name}", text, labels=["vectorizer", "generation"])
        for row in self.status:
            family.add_metric(_labels(row), float(value(row)))
        return family


def _labels(row: Mapping[str, Any]) -> list[str]:
    return [row["name"], str(row.get("generation", 1))]


def _age(row: Mapping[str, Any]) -> float:
    oldest: datetime | None = row["oldest_change"]
    if oldest is None:
        return 0.0
    return max(0.0, (datetime.now(timezone.utc) - oldest).total_seconds())
