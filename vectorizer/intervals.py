"""Lengths of time as people write them: 24h, 30d, 4w."""

from __future__ import annotations

import re
from datetime import timedelta

__all__ = ["format_interval", "parse_interval"]

_UNITS = {"h": "hours", "d": "days", "w": "weeks"}


def parse_interval(text: str) -> timedelta:
    """Return 24h, 30d or 4w as a timedelta; raise ValueError for anything else."""
    match = re.fullmatch(r"(\d{1,5})\s*([hdw])", text.strip())
    if match is None or not int(match[1]):
        raise ValueError("give hours, days or weeks, such as 24h, 30d or 4w")
    return timedelta(**{_UNITS[match[2]]: int(match[1])})


def format_interval(interval: timedelta) -> str:
    """Return a timedelta as `parse_interval` reads it; raise ValueError if that takes minutes."""
    hours, rest = divmod(int(interval.total_seconds()), 3600)
    if rest:
        raise ValueError(f"{interval} is no whole number of hours")
    return f"{hours // 24}d" if hours % 24 == 0 else f"{hours}h"
