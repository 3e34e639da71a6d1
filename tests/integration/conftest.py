"""Tables with their vectorizers, for the tests of capture, drift, verify and waiting."""

from __future__ import annotations

from contextlib import ExitStack
from itertools import count
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from subject import Subject

from vectorizer.testing.pytest_plugin import database

if TYPE_CHECKING:
    from collections.abc import Iterator

    from subject import Attach

_numbers = count(1)


@pytest.fixture(scope="session")
def shared_url(vectorizer_server: str, vectorizer_template: str) -> Iterator[str]:
    """URL of a database that many tests use, each in a schema of its own."""
    with database(vectorizer_server, vectorizer_template) as url:
        yield url


@pytest.fixture
def attach(shared_url: str) -> Iterator[Attach]:
    """Make tables by a script and attach a vectorizer: `attach("create table post …")`.

    The script runs in a schema of the test's own; what `Subject` takes may follow. With
    `drained=False` the backfill is left to the test.
    """
    schema = f"test_{next(_numbers)}"
    with psycopg.connect(shared_url, autocommit=True) as connection:
        connection.execute(f"create schema {schema}")
    with ExitStack() as stack:

        def make(script: str = "", *, drained: bool = True, **options: Any) -> Subject:
            subject = Subject(shared_url, **{"schema": schema, **options})
            stack.enter_context(subject)
            if script:
                subject.db.execute(script)
            subject.vectorizer.install()
            if drained:
                subject.settle()
            return subject

        yield make
