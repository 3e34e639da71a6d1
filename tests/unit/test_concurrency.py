from __future__ import annotations

import asyncio
import os
import threading
from contextvars import ContextVar

import pytest

from vectorizer.concurrency import call_async, call_sync, each_async, each_sync

_SECONDS = 20
_word: ContextVar[str] = ContextVar("word", default="none")


async def test_each_async_runs_as_many_at_once_as_allowed() -> None:
    running, most = 0, 0

    async def work(_: int) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0)
        running -= 1

    await each_async(3, work, range(20))
    assert most == 3


def test_each_sync_runs_as_many_at_once_as_allowed() -> None:
    together = threading.Barrier(3)
    each_sync(3, lambda _: together.wait(_SECONDS), range(9))
    threads: set[int] = set()
    each_sync(1, lambda _: threads.add(threading.get_ident()), range(5))
    assert threads == {threading.get_ident()}


async def test_each_async_raises_the_first_error_and_ends_the_others() -> None:
    ended: list[int] = []

    async def work(number: int) -> None:
        try:
            if number == 1:
                raise ValueError("one")
            await asyncio.sleep(_SECONDS)
        finally:
            ended.append(number)

    with pytest.raises(ValueError, match="one"):
        await each_async(3, work, range(3))
    assert sorted(ended) == [0, 1, 2]


def test_each_sync_raises_the_first_error_and_starts_no_others() -> None:
    started: list[int] = []

    def work(number: int) -> None:
        started.append(number)
        raise ValueError("all")

    with pytest.raises(ValueError, match="all"):
        each_sync(2, work, range(1000))
    assert len(started) < 1000


async def test_calls_see_the_context_of_the_caller() -> None:
    seen: list[str] = []
    _word.set("here")
    await call_async(lambda: seen.append(_word.get()))
    each_sync(2, lambda _: seen.append(_word.get()), range(2))
    assert seen == ["here"] * 3


async def test_more_calls_wait_at_once_than_asyncio_has_threads() -> None:
    together = threading.Barrier(60)
    await asyncio.gather(*(call_async(together.wait, _SECONDS) for _ in range(60)))


def test_coroutines_of_all_calls_run_on_one_loop() -> None:
    async def loop() -> asyncio.AbstractEventLoop:
        return asyncio.get_running_loop()

    first = call_sync(loop)
    assert call_sync(loop) is first
    with pytest.raises(ZeroDivisionError):
        call_sync(_fails)
    assert call_sync(lambda: 7) == 7


async def _fails() -> float:
    return 1 / 0


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_a_child_process_has_a_loop_of_its_own() -> None:
    async def answer() -> int:
        return 42

    assert call_sync(answer) == 42
    child = os.fork()
    if child == 0:
        os._exit(call_sync(answer))
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 42
