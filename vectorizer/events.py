"""What happens to batches, for metrics and logs: one protocol, and frozen events.

An observer is any callable that takes one event::

    def observer(event):
        match event:
            case BatchFinished(vectorizer=name, counts=counts):
                print(name, counts.rows)

    AsyncVectorizer(..., observer=observer)

A batch is named by the token of its lease. The observer is called in the thread or event loop
that does the work, so it should be quick. What it raises is logged and goes no further. Events
hold names, counts and durations, never contents, keys or secrets.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import datetime, timezone
from time import perf_counter
from types import MappingProxyType
from typing import Protocol, TypeAlias

from vectorizer.batch import Batch, Counts

__all__ = [
    "BatchClaimed",
    "BatchFailed",
    "BatchFinished",
    "Event",
    "LeaseWasLost",
    "Observer",
    "RequestFinished",
    "RequestRetried",
    "current_batch",
    "emit",
    "note_lost_lease",
    "note_retry",
    "recorded",
    "stage",
]

log = logging.getLogger("vectorizer")


@dataclass(frozen=True, slots=True)
class BatchClaimed:
    """A batch was claimed; oldest: when the first change in it was made, if it holds any."""

    vectorizer: str
    batch: str
    rows: int
    oldest: datetime | None


@dataclass(frozen=True, slots=True)
class BatchFinished:
    """A batch is done: what was made of it, and where the time went.

    stages: seconds spent in claim, load, prepare, embed and finish.
    lag_seconds: from the first change in the batch until it could be searched; None where it
    held no new change.
    """

    vectorizer: str
    batch: str
    counts: Counts
    stages: Mapping[str, float]
    lag_seconds: float | None


@dataclass(frozen=True, slots=True)
class BatchFailed:
    """A batch ended with an error that did not lie in a row; error: the name of its class."""

    vectorizer: str
    batch: str
    rows: int
    error: str


@dataclass(frozen=True, slots=True)
class LeaseWasLost:
    """The lease of a batch was lost; nothing of it was written."""

    vectorizer: str
    batch: str


@dataclass(frozen=True, slots=True)
class RequestFinished:
    """A request to a model has ended.

    outcome: ok, or the name of the error's class; tokens: as the embedder counts or estimates.
    """

    vectorizer: str
    outcome: str
    texts: int
    tokens: int
    seconds: float


@dataclass(frozen=True, slots=True)
class RequestRetried:
    """A provider did not answer as it should, and is asked again; error: the class's name."""

    vectorizer: str
    error: str


Event: TypeAlias = (
    BatchClaimed | BatchFinished | BatchFailed | LeaseWasLost | RequestFinished | RequestRetried
)


class Observer(Protocol):
    """Whatever takes an event."""

    def __call__(self, event: Event, /) -> None:
        """Take note of an event."""


@dataclass(slots=True)
class _Record:
    """What is known so far of the batch that is being worked on."""

    observer: Observer | None
    vectorizer: str
    stages: dict[str, float] = field(default_factory=dict)
    batch: Batch | None = None
    lost: bool = False

    @property
    def token(self) -> str:
        return "" if self.batch is None else str(self.batch.token)

    def claimed(self, batch: Batch) -> None:
        self.batch = batch
        self.tell(BatchClaimed(self.vectorizer, self.token, batch.size, batch.oldest))

    def finished(self, counts: Counts) -> Counts:
        if not self.lost:
            stages = MappingProxyType(self.stages)
            self.tell(BatchFinished(self.vectorizer, self.token, counts, stages, self._lag()))
        return counts

    def failed(self, error: BaseException) -> None:
        if self.batch is not None:
            self.tell(
                BatchFailed(self.vectorizer, self.token, self.batch.size, type(error).__name__)
            )

    def tell(self, event: Event) -> None:
        if self.observer is None:
            return
        try:
            self.observer(event)
        except Exception:
            log.exception("the observer %r failed", self.observer)

    def _lag(self) -> float | None:
        if self.batch is None or self.batch.oldest is None:
            return None
        return max(0.0, (datetime.now(timezone.utc) - self.batch.oldest).total_seconds())


# Of the context, not of the process: each task and each thread works on a batch of its own.
_current: ContextVar[_Record | None] = ContextVar("vectorizer_batch", default=None)


@contextmanager
def recorded(observer: Observer | None, vectorizer: str) -> Iterator[_Record]:
    """Collect what happens to one batch, and tell the observer."""
    record = _Record(observer, vectorizer)
    token = _current.set(record)
    try:
        yield record
    except BaseException as error:
        record.failed(error)
        raise
    finally:
        _current.reset(token)


@contextmanager
def stage(name: str) -> Iterator[None]:
    """Count the time of the block to a stage of the batch that is being worked on."""
    record = _current.get()
    started = perf_counter()
    try:
        yield
    finally:
        if record is not None:
            spent = record.stages.get(name, 0.0)
            record.stages[name] = spent + perf_counter() - started


def emit(outcome: str, *, texts: int, tokens: int, seconds: float) -> None:
    """Tell of a request to a model, if it belongs to a batch that is observed."""
    record = _current.get()
    if record is not None:
        record.tell(RequestFinished(record.vectorizer, outcome, texts, tokens, seconds))


def current_batch() -> Mapping[str, str | int]:
    """Return vectorizer, batch and number of keys of what this task works on; empty outside."""
    record = _current.get()
    if record is None:
        return {}
    if record.batch is None:
        return {"vectorizer": record.vectorizer}
    return {
        "vectorizer": record.vectorizer,
        "batch": record.token,
        "keys": record.batch.size,
    }


def note_lost_lease() -> None:
    """Tell that the batch being worked on was lost to another worker."""
    record = _current.get()
    if record is not None:
        record.lost = True
        record.tell(LeaseWasLost(record.vectorizer, record.token))


def note_retry(error: BaseException | None) -> None:
    """Tell that a request is made again after an error, if it belongs to an observed batch."""
    record = _current.get()
    if record is not None:
        record.tell(RequestRetried(record.vectorizer, type(error).__name__))
