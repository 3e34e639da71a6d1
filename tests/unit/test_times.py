from __future__ import annotations

from datetime import datetime, timedelta, timezone

import pytest

from vectorizer.errors import InvalidArgument
from vectorizer.times import parsed_moment

NOON = datetime(2024, 1, 31, 12, tzinfo=timezone.utc)


@pytest.mark.parametrize(
    ("text", "later"),
    [
        ("2024-01-31T12:00:00Z", 0),
        ("2024-01-31T12:00:00+00:00", 0),
        (" 2024-01-31 14:00:00+02 ", 0),
        ("2024-01-31 12:00:00.5+00", 500_000),
        ("2024-01-31T12:00:00.12345+00:00", 123_450),
        ("2024-01-31T06:30:00.123456-05:30", 123_456),
        ("2024-01-31T12:00:00.1234567Z", 123_456),
    ],
)
def test_times_as_postgresql_and_python_write_them(text: str, later: int) -> None:
    assert parsed_moment(text) == NOON + timedelta(microseconds=later)


def test_a_day_is_its_beginning_here() -> None:
    moment = parsed_moment("2024-01-31")
    assert moment is not None
    assert moment.replace(tzinfo=None) == datetime(2024, 1, 31)  # noqa: DTZ001 - local on purpose


@pytest.mark.parametrize("text", ["", "noon", "2024-13-01", "2024-01-31T12:00:00+99"])
def test_other_texts_are_refused(text: str) -> None:
    with pytest.raises(InvalidArgument, match="is not a time"):
        parsed_moment(text)
