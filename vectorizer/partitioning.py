"""Which partition of a time-partitioned table holds a time, and what it is called."""

from __future__ import annotations

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
        form = "%Y%m%d" if (self.end - self.start) % _WHOLE_DAY == timedelta(0) else "%Y%m%d_%H%M"
        return fitted(parent, f"_{self.start.strftime(form)}")


def partition_of(time: int, interval: timedelta) -> Partition:
    """Return the partition for a time in microseconds since 2000-01-01 UTC."""
    length = interval // timedelta(microseconds=1)
    start = (time - _ORIGIN_MICROSECONDS) // length * length + _ORIGIN_MICROSECONDS
    return Partition(from_pg_time(start), from_pg_time(start + length))
