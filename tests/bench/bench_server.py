"""The server that benchmarks run on."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg

from vectorizer import embedded


@contextmanager
def database(url: str | None, **settings: str) -> Iterator[str]:
    """Yield the given URL, or that of a fresh embedded server with its usual durability.

    settings: of the server, such as need a restart; one of your own has to have them already.
    """
    if url is not None:
        yield url
        return
    with tempfile.TemporaryDirectory() as folder:
        server = embedded.start(Path(folder) / "postgres")
        if settings:
            with psycopg.connect(server.url, autocommit=True) as connection:
                for name, value in settings.items():
                    connection.execute(f"alter system set {name} = '{value}'")
            server.stop()
            server = embedded.start(Path(folder) / "postgres")
        try:
            yield server.url
        finally:
            server.stop()
