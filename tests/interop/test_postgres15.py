"""PostgreSQL 15, the oldest that is supported, as Debian has it: without pgvector.

What needs no vectors runs there: callback mode with capture, claims and verify.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

import psycopg
import pytest

from vectorizer import Vectorizer, errors, pgvectorizer
from vectorizer._sync.database import Database
from vectorizer._sync.schema import Schema
from vectorizer._sync.verify import Verifier
from vectorizer.testing import FakeEmbedder
from vectorizer.testing.pytest_plugin import database

if TYPE_CHECKING:
    from collections.abc import Iterator

    from vectorizer.verification import Verification

pytestmark = pytest.mark.needs_apt

PROGRAMS = Path("/usr/lib/postgresql/15/bin")
NAME = "post_embedding_work_queue"
SHAPES = {
    "plain": "create table post (id bigint primary key, body text)",
    "partitioned": """
        create table post (id bigint primary key, body text) partition by range (id);
        create table post_low partition of post for values from (0) to (15);
        create table post_high partition of post for values from (15) to (10000)""",
}
FILL = "insert into post select n, 'text ' || n from generate_series(1, 30) n"


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """URL of a PostgreSQL 15 of this module's own."""
    if not (PROGRAMS / "initdb").exists():
        pytest.skip("Debian's PostgreSQL 15 is not here: apt-get install postgresql-15")
    user = "postgres" if os.geteuid() == 0 else None
    with ExitStack() as stack:
        # pytest's folders are closed to other users.
        home = Path(tempfile.mkdtemp(prefix="vectorizer-15-"))
        stack.callback(shutil.rmtree, home)
        if user:
            shutil.chown(home, user)

        def run(program: str, *arguments: str) -> None:
            subprocess.run(
                [PROGRAMS / program, "-D", home / "data", *arguments],
                check=True, user=user, cwd="/", stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            )  # fmt: skip

        run("initdb", "-U", "postgres", "--auth=trust", "--encoding=UTF8", "--locale=C.UTF-8", "-N")
        options = f"-c listen_addresses= -c fsync=off -c unix_socket_permissions=0700 -k {home}"
        run("pg_ctl", "start", "-w", "-l", str(home / "log"), "-o", options)
        stack.callback(run, "pg_ctl", "stop", "-w", "-m", "immediate")
        yield f"postgresql://postgres@/postgres?host={quote(str(home), safe='')}"


@pytest.fixture
def url(server: str) -> Iterator[str]:
    with database(server) as made:
        yield made


@pytest.fixture(params=SHAPES)
def db(request: pytest.FixtureRequest, url: str) -> Iterator[psycopg.Connection]:
    """A table of thirty rows."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(f"{SHAPES[request.param]}; {FILL}")
        yield connection


class Copy:
    """What a callback wrote; a row that is handed over twice at a time is noticed."""

    def __init__(self, url: str) -> None:
        self.rows: dict[int, str] = {}
        self.handed = 0
        self.vectorizer = pgvectorizer.Vectorize(url, "post")

    def write(self, rows: list[dict], _: pgvectorizer.Vectorize) -> None:
        self.handed += len(rows)
        for row in rows:
            if row["body"] is None:
                self.rows.pop(row["locked_id"], None)
            else:
                self.rows[row["locked_id"]] = row["body"]

    def drain(self) -> int:
        return sum(iter(lambda: self.vectorizer.process(self.write, batch_size=7), 0))


@pytest.fixture
def copy(url: str) -> Iterator[Copy]:
    made = Copy(url)
    with made.vectorizer:
        yield made


def verify(url: str, *, repair: bool = False) -> Verification:
    with Database(url) as opened:
        return Verifier(opened, Schema(opened).find(NAME)).verify(repair=repair, rows=10)


def source(db: psycopg.Connection) -> dict[int, str]:
    return dict(db.execute("select id, body from post").fetchall())


CHANGES = {
    "insert": ("insert into post values (31, 'new'), (9999, 'far')", 2),
    "update": ("update post set body = body || '!' where id < 6", 5),
    "nothing": ("update post set body = body", 0),
    "delete": ("delete from post where id between 10 and 20", 11),
    "key": ("update post set id = 100 where id = 1", 2),
    "upsert": (
        """insert into post values (1, 'uno'), (40, 'new')
        on conflict (id) do update set body = excluded.body""",
        2,
    ),
    "merge": (
        """merge into post p using (values (1, 'uno'), (41, 'new')) as n (id, body) on n.id = p.id
        when matched then update set body = n.body
        when not matched then insert values (n.id, n.body)""",
        2,
    ),
    "truncate": ("truncate post", 30),
    "rollback": ("begin; delete from post; rollback", 0),
}


@pytest.mark.parametrize("change", CHANGES)
def test_changes_reach_the_callback(
    db: psycopg.Connection, url: str, copy: Copy, change: str
) -> None:
    assert db.info.server_version // 10_000 == 15
    assert copy.drain() == 30
    assert copy.rows == source(db)
    statement, rows = CHANGES[change]
    for part in statement.split(";"):
        db.execute(part)
    assert copy.drain() == rows
    assert copy.rows == source(db)
    report = verify(url)
    assert report.ok, report
    assert report.pending == 0


def test_verify_finds_what_no_trigger_saw(db: psycopg.Connection, url: str, copy: Copy) -> None:
    copy.drain()
    db.execute("alter table post disable trigger user")
    db.execute("update post set body = 'hidden' where id = 3")
    db.execute("delete from post where id = 4")
    db.execute("insert into post values (50, 'unseen')")
    db.execute("alter table post enable trigger user")
    report = verify(url)
    assert sum(report.defects.values()) == 3, report
    verify(url, repair=True)
    assert copy.drain() == 3
    assert copy.rows == source(db)
    assert verify(url).ok


def test_claims_are_exclusive(db: psycopg.Connection, url: str) -> None:
    with ExitStack() as stack, ThreadPoolExecutor(3) as threads:
        copies = [Copy(url) for _ in range(3)]
        for each in copies:
            stack.enter_context(each.vectorizer)
        copies[0].vectorizer.register()
        assert sum(threads.map(Copy.drain, copies)) == 30
    together = [key for each in copies for key in each.rows]
    assert sorted(together) == sorted(source(db))


def test_a_failing_batch_comes_back(db: psycopg.Connection, copy: Copy) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("on purpose")

    with pytest.raises(RuntimeError, match="on purpose"):
        copy.vectorizer.process(fail)
    db.execute(f"update vectorizer.{NAME}_row set available_at = now()")
    copy.drain()
    assert copy.rows == source(db)


def test_a_callback_writes_with_its_ack(db: psycopg.Connection, copy: Copy) -> None:
    def fenced(rows: list[dict], vectorizer: pgvectorizer.Vectorize) -> None:
        copy.write(rows, vectorizer)
        vectorizer.connection.execute("insert into done values (%s)", [len(rows)])

    db.execute("create table done (n int)")
    assert sum(iter(lambda: copy.vectorizer.process(fenced), 0)) == 30
    assert db.execute("select sum(n) from done").fetchone() == (30,)


def test_vectors_are_refused_with_the_remedy(db: psycopg.Connection, url: str) -> None:
    assert db.execute("select count(*) from post").fetchone() == (30,)
    with (
        Vectorizer(url, "post", embedder=FakeEmbedder(), chunk_column="body") as vectorizer,
        pytest.raises(errors.ExtensionMissing, match="install pgvector"),
    ):
        vectorizer.install()
