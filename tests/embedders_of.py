"""Embedders as a user would write them, named by module:name in the conformance tests."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import numpy as np
from openai_server import vector

DIMENSIONS = 6

__all__ = [
    "AsyncClass",
    "PlainClass",
    "asynchronous",
    "awaited",
    "lists",
    "plain",
    "ready",
    "text_in",
]


def plain(texts: Sequence[str]) -> Any:
    return np.array([vector(text, DIMENSIONS) for text in texts]).reshape(-1, DIMENSIONS)


def lists(texts: Sequence[str]) -> list[list[float]]:
    return [[float(value) for value in vector(text, DIMENSIONS)] for text in texts]


async def asynchronous(texts: Sequence[str]) -> Any:
    await asyncio.sleep(0)
    return plain(texts)


def awaited(texts: Sequence[str]) -> Any:
    """Return something to await without being a coroutine function itself."""
    return asynchronous(texts)


class PlainClass:
    model = "class"
    dimensions = DIMENSIONS

    def __init__(self, factor: float = 1.0) -> None:
        self.factor = factor

    def embed(self, texts: Sequence[str]) -> Any:
        return plain(texts) * self.factor


class AsyncClass:
    """Keeps something that belongs to the event loop it was first used on."""

    model = "async class"
    dimensions = DIMENSIONS

    def __init__(self) -> None:
        self._lock: asyncio.Lock | None = None
        self._loop: object = None

    async def embed(self, texts: Sequence[str]) -> Any:
        loop = asyncio.get_running_loop()
        if self._lock is None:
            self._lock, self._loop = asyncio.Lock(), loop
        assert loop is self._loop, "called on another event loop than before"
        async with self._lock:
            await asyncio.sleep(0)
            return plain(texts)


ready = PlainClass()
text_in = "not callable"
