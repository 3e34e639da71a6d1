"""The server's clock steps back by hours while rows wait and workers run (fault 20)."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import psycopg
import pytest
from posts import Background, Gate, Rule, check, create, posts
from servers import own_database

from vectorizer.errors import SyncTimeout

_FAKETIME = next(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"), None)
_HOURS = 5 * 3600


@pytest.fixture
def clock() -> Iterator[Path]:
    """File that says by how much the server's clock is off."""
    with TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)  # the server runs as another user, who may not see tmp_path
        file = Path(folder) / "clock"
        file.write_text("+0\n")
        yield file


@pytest.fixture
def url(tmp_path: Path, clock: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """URL of a database on a server whose clock can be set."""
    if _FAKETIME is None:
        pytest.skip("libfaketime is not there: apt-get install faketime")
    with monkeypatch.context() as patch:
        for name, value in {
            "LD_PRELOAD": str(_FAKETIME),
            "FAKETIME_TIMESTAMP_FILE": str(clock),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }.items():
            patch.setenv(name, value)
        context = own_database(tmp_path / "server")
        made = context.__enter__()
    try:
        yield made
    finally:
        context.__exit__(None, None, None)


def _step_back(connection: psycopg.Connection, clock: Path) -> None:
    clock.write_text("-5h\n")
    (ahead,) = connection.execute(
        "select extract(epoch from clock_timestamp())::float8 - %s::float8", [time.time()]
    ).fetchone() or (0,)
    assert abs(ahead + _HOURS) < 60


@pytest.mark.needs_apt
def test_a_server_whose_clock_steps_back(
    url: str, clock: Path, eventually: Callable[[Callable[[], object]], None]
) -> None:
    gate, embedder = Gate(), Rule()
    with (
        create(url, rows=30) as connection,
        posts(url, gate, batch_size=10, lease_seconds=2.0) as slow,
        posts(url, embedder, batch_size=10, lease_seconds=2.0) as vectorizer,
    ):
        vectorizer.install()
        worker = Background(slow.process)
        assert gate.reached.wait(20)
        connection.execute("update posts set body = 'before ' || id where id > 20")
        _step_back(connection, clock)
        connection.execute("update posts set body = 'after ' || id where id > 25")
        # The lease of the batch in flight is not over: its heartbeats go on by the new clock.
        drain = Background(vectorizer.run)
        eventually(lambda: len(embedder.seen) >= 20)
        gate.open()
        assert worker.result() == 10
        drain.result()
        assert len(gate.seen) + len(embedder.seen) <= 40
        vectorizer.wait_for_sync(20)
        check(connection, vectorizer)


@pytest.mark.needs_apt
def test_a_lease_of_before_ends_all_the_same(url: str, clock: Path) -> None:
    """Later by as much as the clock stepped: nobody can tell it from one that was just extended."""
    with create(url, rows=10) as connection, posts(url, lease_seconds=2.0) as vectorizer:
        vectorizer.install()
        queue = vectorizer._generations._ready()[0].queue
        assert queue.claim(100) is not None
        _step_back(connection, clock)
        assert queue.claim(100) is None
        seconds = queue.in_flight_seconds()
        assert seconds is not None
        assert _HOURS - 60 < seconds < _HOURS + 60
        clock.write_text("+0\n")
        connection.execute("select pg_sleep(2.1)")
        vectorizer.run()
        check(connection, vectorizer)


@pytest.mark.needs_apt
def test_what_was_logged_by_the_clock_of_before_is_waited_for(url: str, clock: Path) -> None:
    with create(url, rows=3) as connection, posts(url) as vectorizer:
        vectorizer.install()
        vectorizer.run()
        connection.execute("update posts set body = 'newest' where id = 1")
        _step_back(connection, clock)
        with pytest.raises(SyncTimeout):
            vectorizer.wait_for_sync(0.3)
        vectorizer.run()
        vectorizer.wait_for_sync(20)
        check(connection, vectorizer)
