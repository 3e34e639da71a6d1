"""A streaming replica: what would write refuses with one clear line, searching works."""

from __future__ import annotations

import subprocess
import sys
import uuid
from typing import TYPE_CHECKING

import psycopg
import pytest
from psycopg.conninfo import make_conninfo
from replicas import replicate
from subject import Subject

from vectorizer import Vectorizer, client, embedded, errors, pgvectorizer
from vectorizer.testing import FakeEmbedder
from vectorizer.testing.pytest_plugin import database, template

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

TABLE = """
create table post (id int primary key, body text);
insert into post select n, 'text number ' || n from generate_series(1, 10) n
"""


@pytest.fixture(scope="module")
def primary(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Subject]:
    """A server of its own with a table whose ten rows are embedded."""
    folder = tmp_path_factory.mktemp("primary")
    with embedded.start(folder, durable=False) as server:
        with (
            template(server.url) as name,
            database(server.url, name) as url,
            Subject(url) as post,
        ):
            post.db.execute(TABLE)
            post.vectorizer.install()
            post.settle()
            yield post
        server.close(delete=True)


@pytest.fixture(scope="module")
def replica_url(primary: Subject, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """URL of the same database on a replica that streams from it."""
    folder = tmp_path_factory.mktemp("standby")  # the word is looked for below
    replicate(primary.url, folder)
    with embedded.start(folder, durable=False) as server:
        url = make_conninfo(server.url, dbname=primary.db.info.dbname)
        with psycopg.connect(url, autocommit=True) as connection:
            assert connection.execute("select pg_is_in_recovery()").fetchone() == (True,)
        try:
            yield url
        finally:
            server.close(delete=True)


@pytest.fixture
def caught_up(
    primary: Subject, replica_url: str, eventually: Callable[[Callable[[], object]], None]
) -> Callable[[], None]:
    """Wait until the replica has replayed what is committed now."""

    def wait() -> None:
        now = primary.value("select pg_current_wal_lsn()::text")
        with psycopg.connect(replica_url, autocommit=True) as replica:
            replayed = "select pg_last_wal_replay_lsn() >= %s::pg_lsn"
            eventually(lambda: replica.execute(replayed, [now]).fetchone() == (True,))

    return wait


def command(*arguments: str, url: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "vectorizer.cli", *arguments, "--url", url],
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("run",), "is a read-only replica; this needs the primary server"),
        (("run", "post"), "is a read-only replica"),
        (("install", "post", "--chunk-column", "body", "--embedder", "fake"), "read-only replica"),
        (("migrate",), "is a read-only replica"),
        (("pause", "post"), "read-only"),
        (("resume", "post"), "read-only"),
        (("suspend", "post"), "read-only"),
        (("uninstall", "post"), "read-only"),
        (("retry", "post", "--all"), "read-only"),
    ],
    ids=lambda value: " ".join(value[:2]) if isinstance(value, tuple) else "",
)
def test_commands_that_write_are_refused(
    replica_url: str, arguments: tuple[str, ...], words: str
) -> None:
    done = command(*arguments, url=replica_url)
    assert done.returncode == 2, (done.stdout, done.stderr)
    (line,) = done.stderr.splitlines()
    assert line.startswith("vectorizer: ")
    assert words in line


def test_commands_that_read_work(replica_url: str, caught_up: Callable[[], None]) -> None:
    caught_up()
    for arguments in (("status",), ("search", "post", "text number 3"), ("dead-letters",)):
        done = command(*arguments, url=replica_url)
        assert done.returncode == 0, (arguments, done.stderr)
    assert "text number 3" in command("search", "post", "text number 3", url=replica_url).stdout


def test_verify_reads_a_replica(replica_url: str, caught_up: Callable[[], None]) -> None:
    caught_up()
    done = command("verify", url=replica_url)
    assert done.returncode == 0, done.stderr


def test_library(replica_url: str, primary: Subject, caught_up: Callable[[], None]) -> None:
    caught_up()
    with Vectorizer.connect(replica_url, "post", embedder=FakeEmbedder()) as there:
        for refused in (there.run, there.process):
            with pytest.raises(errors.DatabaseError, match="is a read-only replica"):
                refused()
        (found,) = there.search("text number 7", limit=1)
        assert found.contents == "text number 7"
    with (
        Vectorizer(replica_url, "post", embedder=FakeEmbedder(), chunk_column="body") as anew,
        pytest.raises(errors.DatabaseError, match="is a read-only replica"),
    ):
        anew.install()
    primary.settle()


def test_callback_mode(replica_url: str) -> None:
    with (
        pgvectorizer.Vectorize(replica_url, "post") as vectorizer,
        pytest.raises(errors.DatabaseError, match="is a read-only replica"),
    ):
        vectorizer.process(lambda *_: None)


def test_changes_are_searchable_on_the_replica(
    replica_url: str, primary: Subject, caught_up: Callable[[], None]
) -> None:
    primary.sql("update post set body = 'something quite different' where id = 5")
    primary.settle()
    caught_up()
    with Vectorizer.connect(replica_url, "post", embedder=FakeEmbedder()) as there:
        (found,) = there.search("something quite different", limit=1)
    assert found.contents == "something quite different"


def test_collection_is_searched_on_a_replica(
    replica_url: str, primary: Subject, caught_up: Callable[[], None]
) -> None:
    with client.Sync(primary.url, "collection", 3) as store:
        store.create_tables()
        store.upsert([(uuid.uuid1(), {}, "here", [1.0, 0, 0])])
    caught_up()
    with client.Sync(replica_url, "collection", 3) as store:
        assert [found.contents for found in store.search([1, 0, 0])] == ["here"]
        with pytest.raises(errors.DatabaseError, match="read-only"):
            store.upsert([(uuid.uuid1(), {}, "there", [1.0, 0, 0])])
