"""Parts of a statement's WHERE: values go into parameters, and times are read from ids.

Statements of collections number their placeholders ($1, $2 …), because how many there are
depends on the search. A percent sign in a name is then just that.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from enum import Enum
from typing import TYPE_CHECKING, Any, Final

from psycopg import sql

from vectorizer.errors import InvalidArgument
from vectorizer.statements import compose

if TYPE_CHECKING:
    from typing_extensions import LiteralString

__all__ = ["Clock", "Parameters", "all_of", "any_of", "time_condition"]


class Parameters:
    """The values of a statement, in the order of their placeholders."""

    def __init__(self, values: list[Any] | None = None) -> None:
        self.values = [] if values is None else values

    def add(self, value: Any) -> sql.Composable:
        """Take a value; return its placeholder."""
        self.values.append(value)
        return sql.SQL(f"${len(self.values)}")


class Clock(Enum):
    """Where the time of a record is found."""

    COLUMN = "a column `time` beside the id"
    FUNCTION = "uuid_timestamp(id), by which a hypertable is partitioned"
    ID = "the id itself, a UUID of version 1 or 7"
    NONE = "nowhere: ids are text"


# Microseconds since 1970 in a UUID: version 1 counts 100 ns from 1582-10-15 in 60 bits, version 7
# milliseconds in its first 48 (RFC 9562, sections 5.1 and 5.7). Other versions hold no time.
_ID_TIME: Final = """(case substr(id::text, 15, 1)
  when '1' then (('x' || substr(id::text, 16, 3) || substr(id::text, 10, 4)
    || substr(id::text, 1, 8))::bit(60)::bigint - 122192928000000000) / 10
  when '7' then ('x' || substr(id::text, 1, 8) || substr(id::text, 10, 4))::bit(48)::bigint * 1000
  end)"""


def time_condition(
    clock: Clock, operator: LiteralString, moment: datetime | str, parameters: Parameters
) -> sql.Composable:
    """Compare the time of a record with a moment; a text is read by PostgreSQL.

    Raises InvalidArgument for a collection without times.
    """
    if isinstance(moment, datetime):
        # A naive one is local time: here, not where the server stands.
        value = compose("{}::timestamptz", parameters.add(moment.astimezone()))
    else:
        value = compose("{}::text::timestamptz", parameters.add(moment))
    names = {"operator": sql.SQL(operator), "value": value}
    match clock:
        case Clock.COLUMN:
            return compose("time {operator} {value}", **names)
        case Clock.FUNCTION:
            return compose("public.uuid_timestamp(id) {operator} {value}", **names)
        case Clock.ID:
            return compose(
                "{id_time} {operator} (extract(epoch from {value}) * 1000000)::bigint",
                id_time=sql.SQL(_ID_TIME),
                **names,
            )
    raise InvalidArgument("a collection with ids of type TEXT has no times to filter by")


def all_of(conditions: Iterable[sql.Composable]) -> sql.Composable:
    """Return the conjunction of conditions; of none, true."""
    return _joined(list(conditions), " and ", "true")


def any_of(conditions: Iterable[sql.Composable]) -> sql.Composable:
    """Return the disjunction of conditions; of none, false."""
    return _joined(list(conditions), " or ", "false")


def _joined(
    conditions: list[sql.Composable], by: LiteralString, none: LiteralString
) -> sql.Composable:
    if len(conditions) == 1:
        return conditions[0]
    parts = (compose("({})", condition) for condition in conditions)
    return sql.SQL(by).join(parts) if conditions else sql.SQL(none)
