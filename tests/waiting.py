"""Waiting for what another thread, process or server does."""

from __future__ import annotations

import time
from collections.abc import Callable

__all__ = ["SECONDS", "until"]

SECONDS = 20  # many times what anything here takes, on a busy machine too


def until(condition: Callable[[], object], seconds: float = SECONDS) -> None:
    """Wait until a condition holds: `until(lambda: queue.empty())`."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come true in time"
        time.sleep(0.005)
