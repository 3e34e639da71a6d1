"""Which partition of a time-partitioned table holds a time, and what it is called."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from vectorizer.identifiers import from_pg_time
from vectorizer.naming import fitted

__all__ = ["Partition", "partition_of"]

_WHOLE_DAY = timedelta(days=1)
# Ranges are counted from Monday, 2000-01-03: weekly partitions then begin on Mondays.
_ORIGIN_MICROSECONDS = 2 * 86_400_000_000


@dataclass(frozen=True, slots=True)
class Partition:
    """A half-open range of time, `start <= time < end`, in UTC."""

    start: datetime
    end: datetime

    def name(self, parent: str) -> str:
        """Return the partition's table name, `<parent>_<start>`, within 63 bytes."""
        return fitted(parent, f"_{self.start.strftime(self._form())}")

    def _form(self) -> str:
        if self.start.microsecond:
            return "%Y%m%d_%H%M%S_%f"
        if self.start.second:
            return "%Y%m%d_%H%M%S"
        whole_days = (self.end - self.start) % _WHOLE_DAY == timedelta(0)
        at_midnight = (self.start.hour, self.start.minute) == (0, 0)
        return "%Y%m%d" if whole_days and at_midnight else "%Y%m%d_%H%M"

    def without(self, taken: Iterable[tuple[datetime | None, datetime | None]]) -> list[Partition]:
        """Return what is left of the range beside others, in order; None is an open end."""
        left = [self]
        for start, end in taken:
            left = [piece for part in left for piece in _beside(part, start, end)]
        return left


def _beside(whole: Partition, start: datetime | None, end: datetime | None) -> list[Partition]:
    before = Partition(whole.start, whole.start if start is None else min(start, whole.end))
    after = Partition(whole.end if end is None else max(end, whole.start), whole.end)
    if before.end >= whole.end or after.start <= whole.start:
        return [whole]  # the other lies outside
    return [piece for piece in (before, after) if piece.start < piece.end]


def partition_of(time: int, interval: timedelta) -> Partition:
    """Return the partition for a time in microseconds since 2000-01-01 UTC."""
    length = interval // timedelta(microseconds=1)
    start = (time - _ORIGIN_MICROSECONDS) // length * length + _ORIGIN_MICROSECONDS
    return Partition(from_pg_time(start), from_pg_time(start + length))
