"""Leaving a process that has something under way: signals, and threads that do not end."""

from __future__ import annotations

import asyncio
import atexit
import os
import signal
import sys
from collections.abc import Coroutine
from typing import Any, NoReturn, TypeVar

from vectorizer.cli._shared import complain

__all__ = ["interruptible", "leave"]

Result = TypeVar("Result")

_INTERRUPTED = 130


def interruptible(work: Coroutine[Any, Any, Result]) -> Result:
    """Run a coroutine that SIGTERM and Ctrl-C cancel; a second one leaves at once.

    When it was cancelled and has tidied up, the process ends with 130.
    """
    try:
        return asyncio.run(_cancelled_by_signals(work))
    except asyncio.CancelledError:
        complain("interrupted; nothing is lost, run it again")
        leave(_INTERRUPTED)


async def _cancelled_by_signals(work: Coroutine[Any, Any, Result]) -> Result:
    loop, task = asyncio.get_running_loop(), asyncio.ensure_future(work)
    stopping: list[signal.Signals] = []

    def stop(number: signal.Signals) -> None:
        if stopping:
            complain("interrupted again: leaving now; leases run out by themselves")
            leave(128 + number)
        stopping.append(number)
        task.cancel()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop, number)
    return await task


def leave(code: int) -> NoReturn:
    """End the process though a model that does not answer holds up one of its threads."""
    atexit._run_exitfuncs()  # noqa: SLF001 - what `sys.exit` does after it has waited for them
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
