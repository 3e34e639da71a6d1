"""The few things that differ between asynchronous and synchronous code, in pairs.

`_async` uses the first of each pair; the generator of `_sync` puts in the second.
"""

from __future__ import annotations

import asyncio
import inspect
import os
import threading
import time
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from functools import cache, partial
from types import TracebackType
from typing import Any, TypeVar

from typing_extensions import Self

__all__ = [
    "AsyncHeartbeat",
    "AsyncLock",
    "AsyncSemaphore",
    "Heartbeat",
    "Lock",
    "Semaphore",
    "call_async",
    "call_sync",
    "each_async",
    "each_sync",
    "is_async",
    "sleep_async",
    "sleep_sync",
]

Result = TypeVar("Result")
Item = TypeVar("Item")


AsyncLock = asyncio.Lock
Lock = threading.Lock
AsyncSemaphore = asyncio.Semaphore
Semaphore = threading.Semaphore


# Threads for the functions of users and providers: asyncio's own are as few as the cores plus
# four, too few for requests that mostly wait. Threads are made when they are needed.
_THREADS = 256


@cache
def _executor() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(_THREADS, thread_name_prefix="vectorizer-call")


async def call_async(function: Callable[..., Result | Awaitable[Result]], *args: Any) -> Result:
    """Call a user's function, sync or async, without holding up the event loop."""
    result: Result | Awaitable[Result]
    if is_async(function):
        result = function(*args)
    else:
        context = copy_context()
        result = await asyncio.get_running_loop().run_in_executor(
            _executor(), partial(context.run, function, *args)
        )
    # A plain function may return something to await, too.
    return await result if isinstance(result, Awaitable) else result


def call_sync(function: Callable[..., Result | Awaitable[Result]], *args: Any) -> Result:
    """Call a user's function, sync or async, and wait for its result.

    What is to be awaited runs on one event loop, the same for all calls of this process, since
    a client that keeps connections open belongs to the loop that opened them.
    """
    result = function(*args)
    if not isinstance(result, Awaitable):
        return result

    async def wait() -> Result:
        return await result

    return asyncio.run_coroutine_threadsafe(wait(), _loop()).result()


def is_async(function: Callable[..., Any]) -> bool:
    """Whether calling a function, or an object with `__call__`, gives a coroutine."""
    call = getattr(function, "__call__", None)  # noqa: B004 - not whether, but which
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(call)


@cache
def _loop() -> asyncio.AbstractEventLoop:
    """Return an event loop that runs in a thread of its own as long as the process."""
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, name="vectorizer-loop", daemon=True).start()
    return loop


# The threads of a parent process do not live on in its child.
os.register_at_fork(after_in_child=_loop.cache_clear)
os.register_at_fork(after_in_child=_executor.cache_clear)


async def each_async(
    limit: int, function: Callable[[Item], Awaitable[object]], items: Sequence[Item]
) -> None:
    """Call a function for each item, at most `limit` at once; raise the first error of all."""
    slots = asyncio.Semaphore(limit)

    async def call(item: Item) -> None:
        async with slots:
            await function(item)

    tasks = [asyncio.ensure_future(call(item)) for item in items]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def each_sync(limit: int, function: Callable[[Item], object], items: Sequence[Item]) -> None:
    """Do the same in threads."""
    if limit == 1 or len(items) == 1:
        for item in items:
            function(item)
        return
    with ThreadPoolExecutor(max(1, min(limit, len(items))), "vectorizer-request") as threads:
        calls = [threads.submit(copy_context().run, function, item) for item in items]
        try:
            for call in calls:
                call.result()
        except BaseException:
            threads.shutdown(wait=False, cancel_futures=True)
            raise


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
