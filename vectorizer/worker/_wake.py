"""Waiting for a while, or until something happens."""

from __future__ import annotations

import asyncio

__all__ = ["rest"]

_LONGEST_SECONDS = 3600.0


async def rest(wake: asyncio.Event, seconds: float) -> None:
    """Wait until an event is set; it is set by itself after that time, an hour at most."""
    # Before Python 3.12 `asyncio.wait_for` swallows a cancellation that comes together with the
    # event.
    loop = asyncio.get_running_loop()
    alarm = loop.call_later(min(max(seconds, 0.0), _LONGEST_SECONDS), wake.set)
    try:
        await wake.wait()
    finally:
        alarm.cancel()
