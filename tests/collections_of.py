"""Clients of collections for tests: sync, and async ones whose coroutines are run to their end."""

from __future__ import annotations

import asyncio
import inspect
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from vectorizer import client

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

KINDS = ("Sync", "Async")


class Blocking:
    """An Async whose coroutines are run to their end."""

    def __init__(self, store: client.Async, loop: asyncio.AbstractEventLoop) -> None:
        self._store = store
        self._loop = loop

    def __getattr__(self, name: str) -> Any:
        attribute = getattr(self._store, name)
        if not callable(attribute):
            return attribute

        def call(*args: Any, **named: Any) -> Any:
            result = attribute(*args, **named)
            if inspect.isasyncgen(result):
                return self._loop.run_until_complete(_gathered(result))
            return self._loop.run_until_complete(result)

        return call


async def _gathered(results: Any) -> list[Any]:
    return [result async for result in results]


@contextmanager
def clients(kind: str, url: str) -> Iterator[Callable[..., Any]]:
    """Make clients of a kind: `make(table, dimensions, **options)`; they are closed at the end."""
    loop = asyncio.new_event_loop()
    opened: list[Any] = []

    def make(table: str = "items", dimensions: int = 3, **options: Any) -> Any:
        if kind == "Sync":
            store: Any = client.Sync(url, table, dimensions, **options)
        else:
            store = Blocking(client.Async(url, table, dimensions, **options), loop)
        opened.append(store)
        return store

    try:
        yield make
    finally:
        for store in opened:
            store.close()
        loop.close()
