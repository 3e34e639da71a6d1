"""Servers of one's own, for what the shared one of the tests cannot be put through."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from signal import SIGQUIT

import psycopg
from waiting import until

from vectorizer import embedded
from vectorizer.testing.pytest_plugin import database, template

__all__ = ["crash", "own_database", "own_server"]


def crash(folder: Path) -> None:
    """Kill a server and all its backends, as `pg_ctl stop -m immediate` does."""
    data = folder / "data"
    os.kill(int((data / "postmaster.pid").read_text().split()[0]), SIGQUIT)
    # Only when its files are gone may another one start.
    until(lambda: not (data / "postmaster.pid").exists())
    until(lambda: not list(data.glob(".s.PGSQL.*.lock")))


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
