"""Cron expressions as crontab(5) means them, for APScheduler, which counts weekdays from Monday."""

from __future__ import annotations

from datetime import timezone as utc
from datetime import tzinfo
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from apscheduler.triggers.cron import CronTrigger

from vectorizer.errors import ConfigurationError

__all__ = ["cron_trigger", "zone"]

_DAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
_NICKNAMES = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}


def zone(name: str) -> tzinfo:
    """Return a time zone by its IANA name; raise ConfigurationError if there is none."""
    if name.upper() == "UTC":
        return utc.utc  # there also where no database of time zones is installed
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ConfigurationError(
            f"timezone {name!r} is unknown here: give an IANA name such as Europe/Berlin"
        ) from None


def cron_trigger(expression: str, timezone: tzinfo) -> CronTrigger:
    """Return the trigger of a cron expression of five fields, or @hourly, @daily and the like.

    Raises ConfigurationError if it is none.
    """
    fields = _NICKNAMES.get(expression.strip(), expression).split()
    try:
        if len(fields) != 5:  # noqa: PLR2004 - minute, hour, day, month, weekday
            raise ValueError(f"it has {len(fields)} fields, not 5")  # noqa: TRY301 - told below
        minute, hour, day, month, weekday = fields
        return CronTrigger(
            minute=minute,
            hour=hour,
            day=day,
            month=month.lower(),
            day_of_week=_weekdays(weekday.lower()),
            timezone=timezone,
        )
    except (ValueError, TypeError) as error:
        raise ConfigurationError(
            f"cron expression {expression!r} cannot be read: {error}; "
            f'expected minute, hour, day, month and weekday, such as "*/5 * * * *"'
        ) from None


def _weekdays(field: str) -> str:
    if field == "*":
        return field
    wanted = {day % 7 for part in field.split(",") for day in _days_of(part)}
    return ",".join(_DAYS[day] for day in sorted(wanted))


def _days_of(part: str) -> range:
    days, _, step = part.partition("/")
    first, dash, last = ("0", "-", "6") if days == "*" else days.partition("-")
    begin = _day(first)
    end = _day(last) if dash else (6 if step else begin)
    if end < begin:
        raise ValueError(f"the weekdays {part} run backwards")
    return range(begin, end + 1, int(step or 1))


def _day(text: str) -> int:
    if text in _DAYS:
        return _DAYS.index(text)
    if not text.isdigit() or int(text) > 7:  # noqa: PLR2004 - 0 and 7 are Sunday
        raise ValueError(f"{text!r} is no weekday")
    return int(text)
