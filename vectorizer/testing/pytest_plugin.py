"""pytest fixtures: a fresh database with pgvector for every test.

Installing pg-vectorizer is enough, pytest finds them::

    def test_posts_are_embedded(vectorizer_url):
        with psycopg.connect(vectorizer_url) as connection:
            ...

`vectorizer_url`
    URL of a database of this test's own that holds the extension `vector` and nothing
    else; it is dropped after the test. Takes about 50 ms.

`vectorizer_server`
    URL, as superuser, of the server it is made on. That is an embedded PostgreSQL (extra
    `embedded`), started on first use in 0.6 s, shared by all workers of pytest-xdist and
    deleted at the end: it is not durable, nothing else should live on it.

`vectorizer_template`
    Name of the database that `vectorizer_url` clones; override it to begin each test with
    tables of your own.

To test on another server, give the environment variable VECTORIZER_TEST_URL the URL of a
superuser, or of a role that may create databases and the extension, on it.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote, urlencode
from uuid import uuid4

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    import psycopg

_ROOM = 2 * 1024**3  # bytes of memory to be free for the tests' databases

__all__ = ["database", "template", "vectorizer_server", "vectorizer_template", "vectorizer_url"]


@pytest.fixture(scope="session")
def vectorizer_server(request: pytest.FixtureRequest) -> Iterator[str]:
    """URL of the superuser on the server that holds the tests' databases."""
    url = os.environ.get("VECTORIZER_TEST_URL")
    if url:
        yield url
        return
    from vectorizer import embedded  # noqa: PLC0415 - every pytest run imports this module

    server = embedded.start(_folder(request.config), durable=False)
    try:
        yield server.url
    finally:
        server.close(delete=True)


@pytest.fixture(scope="session")
def vectorizer_template(vectorizer_server: str) -> Iterator[str]:
    """Name of the database that every test's database is a copy of."""
    with template(vectorizer_server) as name:
        yield name


@pytest.fixture
def vectorizer_url(vectorizer_server: str, vectorizer_template: str) -> Iterator[str]:
    """URL of a fresh database with the extension `vector`."""
    with database(vectorizer_server, vectorizer_template) as url:
        yield url


@contextmanager
def template(server: str) -> Iterator[str]:
    """Make a database with the extension `vector` on a server; its name is for `database`."""
    with database(server) as url:
        with _connect(url) as connection:
            connection.execute("CREATE EXTENSION vector")
            name = connection.info.dbname
        yield name


@contextmanager
def database(server: str, template: str = "template0") -> Iterator[str]:
    """Copy a database of a server under a new name, and drop the copy afterwards."""
    from psycopg.sql import SQL, Identifier  # noqa: PLC0415

    name = Identifier(made := f"vectorizer_test_{uuid4().hex[:12]}")
    with _connect(server) as connection:
        connection.execute(SQL("CREATE DATABASE {} TEMPLATE {}").format(name, Identifier(template)))
    try:
        yield _with_database(server, made)
    finally:
        with _connect(server) as connection:
            _disconnect_all(connection, made)
            connection.execute(SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(name))


def _folder(config: pytest.Config) -> Path:
    """Return a folder that all workers of this run share, and no other run."""
    worker: dict[str, str] = getattr(config, "workerinput", {})  # given by pytest-xdist
    run = worker.get("testrunuid") or uuid4().hex
    # A database is copied in 15 ms in memory, in 30 to 300 on a disk that others use too.
    memory = Path("/dev/shm")  # noqa: S108 - nobody else can guess the name below
    roomy = memory.is_dir() and shutil.disk_usage(memory).free > _ROOM
    return (memory if roomy else Path(tempfile.gettempdir())) / f"vectorizer-{run}"


def _disconnect_all(connection: psycopg.Connection, name: str) -> None:
    # WITH (FORCE) would do, but it sleeps 100 ms if a connection is still on its way out, as
    # the test's own always is.
    others = (
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE datname = %s AND backend_type = 'client backend'"
    )
    deadline = time.monotonic() + 1
    while connection.execute(others, [name]).fetchone() and time.monotonic() < deadline:
        pass


def _connect(url: str) -> psycopg.Connection:
    import psycopg  # noqa: PLC0415

    return psycopg.connect(url, autocommit=True)


def _with_database(url: str, name: str) -> str:
    from psycopg.conninfo import conninfo_to_dict  # noqa: PLC0415

    others = {key: value for key, value in conninfo_to_dict(url).items() if key != "dbname"}
    return f"postgresql:///{name}?{urlencode(others, quote_via=quote, safe='')}"
