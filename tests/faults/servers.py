"""Servers of one's own, for what the shared one of the tests cannot be put through."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg

from vectorizer import embedded
from vectorizer.testing.pytest_plugin import database, template

__all__ = ["own_server"]


@contextmanager
def own_server(folder: Path, **settings: str) -> Iterator[str]:
    """Start a server with settings of one's own; yield the URL of its superuser."""
    server = embedded.start(folder, durable=False)
    try:
        with psycopg.connect(server.url, autocommit=True) as connection:
            for name, value in settings.items():
                connection.execute(f"alter system set {name} = '{value}'")
        server.stop()
        server = embedded.start(folder, durable=False)
        yield server.url
    finally:
        server.close(delete=True)


@contextmanager
def own_database(folder: Path, **settings: str) -> Iterator[str]:
    """Start a server with settings of one's own; yield the URL of a database with pgvector."""
    with (
        own_server(folder, **settings) as server,
        template(server) as name,
        database(server, name) as url,
    ):
        yield url
