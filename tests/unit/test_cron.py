"""Cron expressions mean what crontab(5) says."""

from __future__ import annotations

from datetime import datetime, timezone
from itertools import pairwise

import pytest

from vectorizer.errors import ConfigurationError
from vectorizer.worker._cron import cron_trigger, zone

_SUNDAY = datetime(2026, 3, 1, tzinfo=timezone.utc)  # a Sunday at midnight


def fires(expression: str, times: int = 3) -> list[str]:
    trigger = cron_trigger(expression, timezone.utc)
    found, last = [], None
    now = _SUNDAY
    for _ in range(times):
        last = now = trigger.get_next_fire_time(last, now)
        found.append(now.strftime("%a %d %H:%M"))
    return found


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("*/20 * * * *", ["Sun 01 00:00", "Sun 01 00:20", "Sun 01 00:40"]),
        ("0 3 * * 0", ["Sun 01 03:00", "Sun 08 03:00", "Sun 15 03:00"]),
        ("0 3 * * 7", ["Sun 01 03:00", "Sun 08 03:00", "Sun 15 03:00"]),
        ("0 3 * * 1-2", ["Mon 02 03:00", "Tue 03 03:00", "Mon 09 03:00"]),
        ("0 3 * * 5-7", ["Sun 01 03:00", "Fri 06 03:00", "Sat 07 03:00"]),
        ("0 3 * * mon,Fri", ["Mon 02 03:00", "Fri 06 03:00", "Mon 09 03:00"]),
        ("0 3 * * */3", ["Sun 01 03:00", "Wed 04 03:00", "Sat 07 03:00"]),
        ("0 3 * * 4/2", ["Thu 05 03:00", "Sat 07 03:00", "Thu 12 03:00"]),
        ("@daily", ["Sun 01 00:00", "Mon 02 00:00", "Tue 03 00:00"]),
    ],
)
def test_weekdays_are_those_of_cron(expression: str, expected: list[str]) -> None:
    assert fires(expression) == expected


def test_a_trigger_goes_on_in_its_time_zone() -> None:
    trigger = cron_trigger("30 2 * * *", zone("Europe/Berlin"))
    times = [
        trigger.get_next_fire_time(None, datetime(2026, 3, d, tzinfo=timezone.utc))
        for d in (26, 27)
    ]
    assert all(later > earlier for earlier, later in pairwise(times))
    assert {time.strftime("%H:%M") for time in times} == {"02:30"}


@pytest.mark.parametrize(
    "expression",
    ["", "* * * *", "61 * * * *", "* * * * 8", "* * * * sunny", "* * * * 5-2", "@often"],
)
def test_what_is_no_cron_expression_is_refused(expression: str) -> None:
    with pytest.raises(ConfigurationError, match="such as"):
        cron_trigger(expression, timezone.utc)


def test_an_unknown_time_zone_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="IANA"):
        zone("Mars/Olympus")
