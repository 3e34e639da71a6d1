"""Times in ids, and ranges of them."""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final
from uuid import UUID

from psycopg import sql

from vectorizer.conditions import Clock, Parameters, all_of, time_condition
from vectorizer.errors import InvalidArgument
from vectorizer.identifiers import MAX_TIME

if TYPE_CHECKING:
    from typing import Any

__all__ = ["UUIDTimeRange", "id_time", "parsed_moment", "range_condition"]

# Of UUIDs since their epoch, 1582-10-15, to 2000-01-01, in steps of 100 ns; and from 1970.
_SINCE_1582: Final = 0x01B21DD213814000 + 946_684_800 * 10_000_000
_SINCE_1970: Final = 946_684_800_000
_TIME_BASED: Final = 1
_UNIX_BASED: Final = 7

_FRACTION: Final = re.compile(r"\.\d+")
# As PostgreSQL writes it.
_SHORT_OFFSET: Final = re.compile(r":\d\d(\.\d+)?[+-]\d\d$")


def id_time(identifier: UUID) -> int:
    """Return the time in a UUID of version 1 or 7, in microseconds since 2000-01-01 UTC.

    Raises ValueError for another version, and for a time after 5236.
    """
    if identifier.version == _TIME_BASED:
        return (identifier.time - _SINCE_1582) // 10
    if identifier.version != _UNIX_BASED:
        raise ValueError(
            f"id {identifier} is a UUID of version {identifier.version}; a time-partitioned "
            f"collection needs version 1, made by uuid_from_time, or 7"
        )
    time = ((identifier.int >> 80) - _SINCE_1970) * 1000
    if time > MAX_TIME:
        raise ValueError(f"the time in id {identifier} is beyond what a partition can hold")
    return time


def parsed_moment(moment: datetime | str | None) -> datetime | None:
    """Return a moment with its zone; text is ISO 8601, a naive moment local time.

    None and the text "None" mean no moment. Raises InvalidArgument for anything else.
    """
    if moment is None or moment == "None":
        return None
    if isinstance(moment, str):
        try:
            moment = datetime.fromisoformat(_spelled_out(moment.strip()))
        except ValueError as error:
            raise InvalidArgument(
                f"{moment!r} is not a time; write it as 2024-01-31 or 2024-01-31T12:00:00+00:00"
            ) from error
    if not isinstance(moment, datetime):
        raise InvalidArgument(f"expected a datetime or a text, got {moment!r}")
    try:
        return moment if moment.tzinfo is not None else moment.astimezone()
    except (OverflowError, ValueError) as error:
        raise InvalidArgument(f"{moment} is no local time: {error}") from error


def _spelled_out(text: str) -> str:
    """Return a time as Python 3.10 reads it: six digits of a second, minutes in the offset."""
    text = _FRACTION.sub(lambda digits: digits[0][:7].ljust(7, "0"), text.replace("Z", "+00:00"))
    return f"{text}:00" if _SHORT_OFFSET.search(text) else text


class UUIDTimeRange:
    """A range of the times in ids, from `start_date` to `end_date`; one of them may be open.

    Both are datetimes or texts in ISO 8601; a naive one is local time. `time_delta` gives the
    length of a range of which one end is known. The start belongs to the range unless
    `start_inclusive` is False, the end only if `end_inclusive` is True.

    Raises InvalidArgument if both ends are missing, or the start is after the end.
    """

    def __init__(
        self,
        start_date: datetime | str | None = None,
        end_date: datetime | str | None = None,
        time_delta: timedelta | None = None,
        start_inclusive: bool = True,
        end_inclusive: bool = False,
    ) -> None:
        start, end = _ends(parsed_moment(start_date), parsed_moment(end_date), time_delta)
        if start is not None and end is not None and start > end:
            raise InvalidArgument(f"start_date {start} must be before end_date {end}")
        self.start_date = start
        self.end_date = end
        self.start_inclusive = start_inclusive
        self.end_inclusive = end_inclusive

    def __str__(self) -> str:
        opening, closing = "[" if self.start_inclusive else "(", "]" if self.end_inclusive else ")"
        return f"UUIDTimeRange {opening}{self.start_date}, {self.end_date}{closing}"

    def __repr__(self) -> str:
        return f"<{self}>"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, UUIDTimeRange) and vars(self) == vars(other)

    def __hash__(self) -> int:
        return hash(tuple(vars(self).values()))

    def build_query(self, params: list[Any]) -> tuple[str, list[Any]]:
        """Return the condition in SQL, for ids in a hypertable, and the values with its own."""
        parameters = Parameters(params)
        condition = range_condition(self, Clock.FUNCTION, parameters)
        return condition.as_string(None), parameters.values


def _ends(
    start: datetime | None, end: datetime | None, delta: timedelta | None
) -> tuple[datetime | None, datetime | None]:
    if start is None and end is None:
        raise InvalidArgument("start_date and end_date cannot both be None")
    if delta is None:
        return start, end
    if start is not None and end is not None:
        raise InvalidArgument("give two of start_date, end_date and time_delta, not all three")
    try:
        return start or (end and end - delta), end or (start and start + delta)
    except OverflowError as error:
        raise InvalidArgument(f"time_delta {delta} leads beyond the years 1 to 9999") from error


def range_condition(wanted: UUIDTimeRange, clock: Clock, parameters: Parameters) -> sql.Composable:
    """Return the condition that the time of a record lies in a range."""
    conditions = []
    if wanted.start_date is not None:
        after = ">=" if wanted.start_inclusive else ">"
        conditions.append(time_condition(clock, after, wanted.start_date, parameters))
    if wanted.end_date is not None:
        before = "<=" if wanted.end_inclusive else "<"
        conditions.append(time_condition(clock, before, wanted.end_date, parameters))
    return all_of(conditions)
