"""Connections end at every point, hang, or cannot be made (faults 3, 14, 15, 16, 19)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from posts import Background, Gate, check, contents, create, posts
from proxy import Proxy
from psycopg.conninfo import make_conninfo
from servers import crash, own_database

from vectorizer import Vectorizer, embedded
from vectorizer.errors import DatabaseUnavailable

_LEASE = 0.3


@pytest.fixture
def connection(vectorizer_url: str) -> Iterator[psycopg.Connection[Any]]:
    with create(vectorizer_url, rows=5) as connection:
        yield connection


def _work(connection: psycopg.Connection[Any], vectorizer: Vectorizer, round_: int) -> None:
    """Change a few rows in a few ways, drain, and take every loss of the connection in stride."""
    connection.execute("update posts set body = 'round ' || %s || ' of ' || id", [round_])
    connection.execute("delete from posts where id = 3")
    connection.execute("insert into posts values (3, %s)", [f"round {round_} anew"])
    connection.execute("delete from posts where id > 5")
    connection.execute("insert into posts values (%s, 'passing')", [100 + round_])
    for _ in range(20):
        try:
            vectorizer.run()
        except DatabaseUnavailable:
            continue
        return
    pytest.fail("it does not recover")


@pytest.mark.parametrize("how", ["drop", "swallow", "terminate"])
def test_losing_the_connection_at_any_statement_loses_nothing(
    vectorizer_url: str, connection: psycopg.Connection[Any], how: str
) -> None:
    """`drop`: before the server has it; `swallow`: after, but before we know, also a COMMIT."""
    with Proxy(vectorizer_url) as proxy:

        async def terminate(link: Any, data: bytes) -> None:
            ended = connection.execute("select pg_terminate_backend(%s, 5000)", [link.pid])
            assert ended.fetchone() == (True,)
            link.to_server.write(data)

        strike = terminate if how == "terminate" else getattr(proxy, how)
        with posts(proxy.url, lease_seconds=_LEASE) as vectorizer:
            vectorizer.install()
            vectorizer.run()
            proxy.strike(None)
            _work(connection, vectorizer, 0)
            statements = proxy.sent
            assert statements > 10
            for n in range(1, statements + 1):
                proxy.strike(n, strike)
                _work(connection, vectorizer, n)
                assert proxy.struck.is_set() or n > statements - 5
                proxy.strike(None)
                check(connection, vectorizer)
            assert vectorizer.dead_letters() == []


# What is sent just before: keys are taken; chunks are copied; the ledger is written.
_POINTS = {
    "claim": b".lease (token",
    "copy": b"from stdin",
    "finish": b"set lease = null, attempts",
}


@pytest.mark.parametrize("point", _POINTS)
def test_a_worker_whose_network_is_gone_holds_up_nobody(
    vectorizer_url: str, connection: psycopg.Connection[Any], point: str
) -> None:
    """Half-open TCP: nobody hears that the connection is dead; another worker takes over."""
    with (
        Proxy(vectorizer_url) as proxy,
        posts(proxy.url, lease_seconds=1.0) as lost,
        posts(vectorizer_url, lease_seconds=1.0) as other,
    ):
        other.install()
        proxy.strike(_POINTS[point], proxy.freeze)
        worker = Background(lost.process)
        assert proxy.struck.wait(20)
        connection.execute("update posts set body = 'newer' where id = 2")
        Background(other.run).result()
        assert len(contents(connection)) == 5
        proxy.cut()
        proxy.go_on()
        with suppress(DatabaseUnavailable):
            worker.result()
        lost.run()
        check(connection, other)


def test_a_server_that_crashes_in_the_middle_of_a_drain(tmp_path: Path) -> None:
    folder, gate = tmp_path / "server", Gate()
    with own_database(folder) as url, posts(url, gate, batch_size=10, lease_seconds=1.0) as worker:
        with create(url, rows=50) as connection:
            worker.install()
        drain = Background(worker.run)
        assert gate.reached.wait(20)
        crash(folder)
        embedded.start(folder, durable=False)
        gate.open()
        with suppress(DatabaseUnavailable):
            drain.result()
        worker.run()
        with psycopg.connect(url, autocommit=True) as connection:
            check(connection, worker)


def test_no_connection_to_be_had(
    vectorizer_url: str, connection: psycopg.Connection[Any], role: str
) -> None:
    """A role at its limit of connections: unavailable, and all goes on when there is room."""
    with posts(vectorizer_url) as owner:
        owner.install()
    connection.execute(f"grant all on schema vectorizer, public to {role}")
    for schema in ("vectorizer", "public"):
        connection.execute(f"grant all on all tables in schema {schema} to {role}")
    with posts(make_conninfo(vectorizer_url, user=role)) as worker:
        connection.execute(f"alter role {role} connection limit 0")
        with pytest.raises(DatabaseUnavailable, match="too many connections"):
            worker.process()
        # The session that was refused may not have ended yet, and counts as long.
        connection.execute(f"alter role {role} connection limit 2")
        worker.run()
        check(connection, worker)


@pytest.fixture
def role(connection: psycopg.Connection[Any]) -> Iterator[str]:
    """An ordinary role of this test's own that may log in."""
    name = f"role_{uuid4().hex[:12]}"
    connection.execute(f"create role {name} login")
    yield name
    connection.execute(f"drop owned by {name}")
    connection.execute(f"drop role {name}")
