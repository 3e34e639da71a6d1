"""Waiting that ends early, and is cancelled whatever else happens."""

from __future__ import annotations

import asyncio

import pytest

from vectorizer.worker._wake import rest


async def test_it_ends_after_its_time_or_by_the_event() -> None:
    wake = asyncio.Event()
    await rest(wake, 0.0)
    await rest(wake, -1.0)
    assert wake.is_set()
    wake.clear()
    resting = asyncio.create_task(rest(wake, float("inf")))
    await asyncio.sleep(0)
    wake.set()
    await asyncio.wait_for(resting, 20)


async def test_a_cancellation_counts_though_the_event_comes_with_it() -> None:
    wake = asyncio.Event()
    resting = asyncio.create_task(rest(wake, 20.0))
    for _ in range(3):
        await asyncio.sleep(0)
    wake.set()
    resting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await resting
