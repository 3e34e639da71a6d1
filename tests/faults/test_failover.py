"""The primary dies, its replica is promoted: a daemon with both hosts in its URL goes on there."""

from __future__ import annotations

import asyncio
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from servers import crash
from subject import Subject

from vectorizer import Worker, embedded
from vectorizer.embedded import _account, _cluster
from vectorizer.testing.pytest_plugin import database, template

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_SECONDS = 30


def replicate(url: str, folder: Path) -> None:
    """Copy the server into a folder from which a replica can be started."""
    data = folder / "data"
    data.mkdir(mode=0o700, parents=True)
    programs = _cluster._programs(18)
    _account.give(data)
    _account.admit(data, programs)
    parts = conninfo_to_dict(url)
    done = _account.run(
        programs / "pg_basebackup", "-D", str(data), "--write-recovery-conf",
        "--checkpoint=fast", "--no-sync", "--wal-method=stream",
        "-d", make_conninfo("", host=parts["host"], port=parts["port"], user=parts["user"]),
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    for copied in data.glob(".s.PGSQL.*.lock"):
        copied.unlink()


def both(first: str, second: str) -> str:
    """Return the URL of whichever of two servers takes writes."""
    one, two = conninfo_to_dict(first), conninfo_to_dict(second)
    return make_conninfo(
        "",
        host=f"{one['host']},{two['host']}",
        port=f"{one['port']},{two['port']}",
        user=one["user"],
        dbname=one["dbname"],
        target_session_attrs="read-write",
        connect_timeout="2",
    )


async def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + _SECONDS
    while not condition():
        assert time.monotonic() < deadline, "it did not come true in time"
        await asyncio.sleep(0.05)


@pytest.fixture
def folder() -> Iterator[Path]:
    # Not pytest's: pg_basebackup runs as another user, and other runs of pytest tidy up there.
    with tempfile.TemporaryDirectory(prefix="vectorizer-failover-") as path:
        yield Path(path)


async def test_a_daemon_follows_a_failover(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    first, second = folder / "first", folder / "second"
    with embedded.start(first, durable=False) as primary:
        with template(primary.url) as name, database(primary.url, name) as url:
            with Subject(url) as post:
                post.db.execute("create table post (id int primary key, body text)")
                post.vectorizer.install()
            replicate(primary.url, second)
            with embedded.start(second, durable=False) as standby:
                there = make_conninfo(standby.url, dbname=conninfo_to_dict(url)["dbname"])
                try:
                    await follow(both(url, there), url, there, first)
                finally:
                    standby.close(delete=True)
            assert "lost the connection" in caplog.text
            embedded.start(first, durable=False)  # for what is cleaned up now
        primary.close(delete=True)


async def follow(urls: str, url: str, there: str, first: Path) -> None:
    worker = Worker(urls)
    running = asyncio.create_task(worker.run())
    try:
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute("insert into post values (1, 'before')")
            seen = "select count(*) from post_embedding"
            await until(lambda: connection.execute(seen).fetchone() == (1,))
        with psycopg.connect(there, autocommit=True) as connection:
            await until(lambda: connection.execute(seen).fetchone() == (1,))
            crash(first)
            await until(lambda: not worker.ready)
            connection.execute("select pg_promote()")
            connection.execute("insert into post values (2, 'after')")
            await until(lambda: connection.execute(seen).fetchone() == (2,))
    finally:
        worker.stop()
        await asyncio.wait_for(running, _SECONDS)
