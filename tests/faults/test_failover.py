"""The primary dies, its replica is promoted: a daemon with both hosts in its URL goes on there."""

from __future__ import annotations

from typing import TYPE_CHECKING

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from replicas import replicate
from servers import crash
from subject import Subject
from waiting import until
from working import working

from vectorizer import Worker, embedded
from vectorizer.testing.pytest_plugin import database, template

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


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


def test_a_daemon_follows_a_failover(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    with embedded.start(first, durable=False) as primary:
        with template(primary.url) as name, database(primary.url, name) as url:
            with Subject(url) as post:
                post.db.execute("create table post (id int primary key, body text)")
                post.vectorizer.install()
            replicate(primary.url, second)
            with embedded.start(second, durable=False) as standby:
                there = make_conninfo(standby.url, dbname=conninfo_to_dict(url)["dbname"])
                try:
                    follow(both(url, there), url, there, first)
                finally:
                    standby.close(delete=True)
            assert "lost the connection" in caplog.text
            embedded.start(first, durable=False)  # for what is cleaned up now
        primary.close(delete=True)


def follow(urls: str, url: str, there: str, first: Path) -> None:
    with working(Worker(urls)) as running:
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute("insert into post values (1, 'before')")
            seen = "select count(*) from post_embedding"
            until(lambda: connection.execute(seen).fetchone() == (1,))
        with psycopg.connect(there, autocommit=True) as connection:
            until(lambda: connection.execute(seen).fetchone() == (1,))
            crash(first)
            until(lambda: not running.worker.ready)
            connection.execute("select pg_promote()")
            connection.execute("insert into post values (2, 'after')")
            until(lambda: connection.execute(seen).fetchone() == (2,))
