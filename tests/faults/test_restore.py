"""A dump restored into another database goes on from where it was (fault 43)."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import psycopg
import pytest
from posts import Background, Gate, Rule, check, create, posts

from vectorizer.embedded import _cluster
from vectorizer.testing.pytest_plugin import database


def _copy(url: str, target: str, folder: Path) -> None:
    programs = _cluster._programs(18)
    file = folder / "dump"
    subprocess.run([programs / "pg_dump", "-Fc", "-f", file, url], check=True, timeout=60)
    subprocess.run(
        [programs / "pg_restore", "--exit-on-error", "-d", target, file], check=True, timeout=60
    )


@pytest.mark.parametrize("dropped", [False, True], ids=["plain", "dropped_column"])
def test_a_dump_restored_elsewhere_goes_on(
    vectorizer_server: str, vectorizer_url: str, tmp_path: Path, *, dropped: bool
) -> None:
    gate = Gate()
    with create(vectorizer_url, rows=20) as connection, posts(vectorizer_url, gate) as old:
        if dropped:
            # Columns are numbered anew in the restored table.
            connection.execute("alter table posts drop column body")
            connection.execute("alter table posts add column body text")
            connection.execute("update posts set body = 'post ' || id")
        gate.open()
        old.install()
        old.run()
        gate.close()
        connection.execute("update posts set body = 'waiting' where id = 1")
        connection.execute("update posts set body = 'in flight' where id = 2")
        worker = Background(old.process)
        assert gate.reached.wait(20)
        connection.execute("delete from posts where id = 3")
        with database(vectorizer_server) as target:
            _copy(vectorizer_url, target, tmp_path)
            gate.open()
            worker.result()
            _goes_on(target)


def _goes_on(url: str) -> None:
    embedder = Rule()
    with (
        psycopg.connect(url, autocommit=True) as connection,
        posts(url, embedder, lease_seconds=1.0) as vectorizer,
    ):
        _expire(connection)
        connection.execute("insert into posts (id, body) values (100, 'only here')")
        connection.execute("update posts set note = 'untracked'")
        vectorizer.run()
        assert sorted(embedder.seen) == ["in flight", "only here", "waiting"]
        check(connection, vectorizer)


def _expire(connection: psycopg.Connection[Any]) -> None:
    connection.execute("update vectorizer.lease set expires_at = now()")
