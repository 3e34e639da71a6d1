"""What can be set about a worker."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, ClassVar

from pydantic import ConfigDict, Field

from vectorizer.errors import ConfigurationError

__all__ = ["WorkerOptions"]

# For whoever checks with pydantic, which tells more than the errors below.
_Count = Annotated[int, Field(ge=1)]
_Positive = Annotated[float, Field(gt=0)]


@dataclass(frozen=True, slots=True)
class WorkerOptions:
    """How a worker goes about its work; all times in seconds.

    concurrency: batches in flight at once, over all vectorizers; batch_size: rows in each, by
        default as many as suit its model.
    lease_seconds: how long a batch stays ours after the last sign of life.
    poll_seconds: between two looks for changes while they arrive; idle_seconds: between two
        looks while none do.
    grace_seconds: how long `stop` lets batches in flight go on before they are given back.
    schedules: cron expressions by the names of vectorizers; such a one is drained at those
        times only. timezone: that of these expressions and of `verify_schedule`.
    listen: channel on which a NOTIFY makes the worker look at once.
    verify_schedule: cron expression of a verification of everything that is served;
        verify_repair: whether it queues what it finds wrong.
    upkeep: whether this worker looks after partitions, retention and the queue's own tables.
    """

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    concurrency: _Count = 4
    batch_size: _Count | None = None
    lease_seconds: _Positive = 30.0
    poll_seconds: _Positive = 0.02
    idle_seconds: _Positive = 0.25
    grace_seconds: Annotated[float, Field(ge=0)] = 20.0
    schedules: Mapping[str, str] = field(default_factory=dict)
    timezone: str = "UTC"
    listen: str | None = None
    verify_schedule: str | None = None
    verify_repair: bool = False
    upkeep: bool = True

    def __post_init__(self) -> None:
        for name in ("concurrency", "batch_size"):
            given = getattr(self, name)
            if given is not None and given < 1:
                raise ConfigurationError(f"{name} must be 1 or more, got {given}")
        for name in ("lease_seconds", "poll_seconds", "idle_seconds"):
            if getattr(self, name) <= 0:
                raise ConfigurationError(f"{name} must be more than 0, got {getattr(self, name)}")
        if self.grace_seconds < 0:
            raise ConfigurationError(f"grace_seconds must be 0 or more, got {self.grace_seconds}")
