"""The server that benchmarks run on."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from vectorizer import embedded


@contextmanager
def database(url: str | None) -> Iterator[str]:
    """Yield the given URL, or that of a fresh embedded server with its usual durability."""
    if url is not None:
        yield url
        return
    with tempfile.TemporaryDirectory() as folder:
        server = embedded.start(Path(folder) / "postgres")
        try:
            yield server.url
        finally:
            server.stop()
