"""A `vectorizer worker` in a process of its own, for the benchmarks, and what it uses."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from vectorizer import Vectorizer
from vectorizer.testing import FakeEmbedder

__all__ = ["cpu_seconds", "install", "memory_megabytes", "worker"]

_TICKS = os.sysconf("SC_CLK_TCK")


@contextmanager
def worker(url: str, *options: str) -> Iterator[subprocess.Popen[bytes]]:
    """Start a worker; stop it with SIGTERM at the end of the block."""
    program = [sys.executable, "-m", "vectorizer.cli", "worker", "--url", url, *options]
    with subprocess.Popen(program, stderr=subprocess.PIPE) as process:
        try:
            yield process
        finally:
            began = time.monotonic()
            process.send_signal(signal.SIGTERM)
            said = process.communicate(timeout=30)[1].decode()
            print(f"stopped in {time.monotonic() - began:.2f} s, exit code {process.returncode}")
            if process.returncode:
                print(said)


def install(url: str, table: str) -> None:
    """Attach a vectorizer with a free embedder to a table (id, body)."""
    with Vectorizer(url, table, embedder=FakeEmbedder(), chunk_column="body") as vectorizer:
        vectorizer.install()


def cpu_seconds(process: int) -> float:
    """Return how much processor time a process has used, from /proc."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def memory_megabytes(process: int) -> float:
    """Return the resident memory of a process, from /proc."""
    pages = int(Path(f"/proc/{process}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6
