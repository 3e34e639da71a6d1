"""A worker in a thread of its own, as it runs beside an application.

Not in the test's own event loop: there a statement of the test that waits for a lock of the
worker's would hold up the worker, too, for ever.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine, Iterator
from contextlib import AsyncExitStack, contextmanager
from typing import TypeVar

from waiting import SECONDS

from vectorizer.metrics import Metrics
from vectorizer.worker import Worker, serving_http

__all__ = ["Working", "working"]

T = TypeVar("T")


class Working:
    """A worker that runs, and the event loop in which it does.

    With `metrics` it is served over HTTP as well, at `port`.
    """

    def __init__(self, worker: Worker, metrics: Metrics | None = None) -> None:
        self.worker = worker
        self.port = 0
        self._metrics = metrics
        self._loop = asyncio.new_event_loop()
        self._begun = threading.Event()
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._error: BaseException | None = None

    def start(self) -> None:
        """Run it; return when it has begun."""
        self._thread.start()
        assert self._begun.wait(SECONDS)

    def stop(self) -> None:
        """Tell it to stop."""
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self.worker.stop)

    def join(self) -> None:
        """Wait for its end; raise what it raised."""
        self._thread.join(SECONDS)
        assert not self._thread.is_alive(), "it does not stop"
        if self._error is not None:
            raise self._error

    def do(self, coroutine: Coroutine[object, object, T]) -> T:
        """Run a coroutine in its event loop, and return what that returns."""
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(SECONDS)

    def _work(self) -> None:
        try:
            self._loop.run_until_complete(self._serve())
        except BaseException as error:  # noqa: BLE001 - `join` raises it
            self._error = error
        finally:
            self._begun.set()
            self._loop.run_until_complete(self._loop.shutdown_default_executor())
            self._loop.close()

    async def _serve(self) -> None:
        async with AsyncExitStack() as stack:
            if self._metrics is not None:
                served = serving_http(self.worker, self._metrics, "127.0.0.1", 0)
                self.port = await stack.enter_async_context(served)
            self._begun.set()
            await self.worker.run()


@contextmanager
def working(worker: Worker, metrics: Metrics | None = None) -> Iterator[Working]:
    """Let a worker run while the block does."""
    running = Working(worker, metrics)
    running.start()
    try:
        yield running
    finally:
        running.stop()
        running.join()
