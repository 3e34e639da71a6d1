"""The few things that differ between asynchronous and synchronous code, in pairs.

`_async` uses the first of each pair; the generator of `_sync` puts in the second.
"""

from __future__ import annotations

import asyncio
import inspect
import threading
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from types import TracebackType
from typing import Any, TypeVar

from typing_extensions import Self

__all__ = [
    "AsyncHeartbeat",
    "AsyncLock",
    "Heartbeat",
    "Lock",
    "call_async",
    "call_sync",
    "sleep_async",
    "sleep_sync",
]

Result = TypeVar("Result")


AsyncLock = asyncio.Lock
Lock = threading.Lock


async def call_async(function: Callable[..., Result | Awaitable[Result]], *args: Any) -> Result:
    """Call a user's function, sync or async, without holding up the event loop."""
    result: Result | Awaitable[Result]
    if inspect.iscoroutinefunction(function):
        result = function(*args)
    else:
        result = await asyncio.to_thread(partial(function, *args))
    # A plain function may return something to await, too.
    return await result if isinstance(result, Awaitable) else result


def call_sync(function: Callable[..., Result | Awaitable[Result]], *args: Any) -> Result:
    """Call a user's function, sync or async, and wait for its result."""
    result = function(*args)
    if not isinstance(result, Awaitable):
        return result

    async def wait() -> Result:
        return await result

    # In a thread of its own, because this one may be running an event loop already.
    with ThreadPoolExecutor(1) as executor:
        return executor.submit(asyncio.run, wait()).result()


async def sleep_async(seconds: float) -> None:
    """Wait without holding up the event loop."""
    await asyncio.sleep(seconds)


def sleep_sync(seconds: float) -> None:
    """Wait."""
    time.sleep(seconds)


class AsyncHeartbeat:
    """Calls `beat` every `seconds` in the background until the block ends.

    It stops as soon as `beat` returns False. An exception of `beat` is not the end: the next
    beat may succeed, and if none does the fence decides.
    """

    def __init__(self, beat: Callable[[], Awaitable[bool]], seconds: float) -> None:
        self._beat = beat
        self._seconds = seconds
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._run())
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        alive = True
        while alive:
            await asyncio.sleep(self._seconds)
            try:
                alive = await self._beat()
            except Exception:  # noqa: BLE001 - see the class
                alive = True


class Heartbeat:
    """The same with a thread."""

    def __init__(self, beat: Callable[[], bool], seconds: float) -> None:
        self._beat = beat
        self._seconds = seconds
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="vectorizer-heartbeat", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        alive = True
        while alive and not self._stop.wait(self._seconds):
            try:
                alive = self._beat()
            except Exception:  # noqa: BLE001 - see AsyncHeartbeat
                alive = True
