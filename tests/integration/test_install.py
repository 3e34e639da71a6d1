# ruff: noqa: ISC004 - tests write the SQL they name, and some of it is long
"""What may be attached to, what is refused and why, and that writers never notice an install."""

from __future__ import annotations

import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from subject import Subject

from vectorizer import Vectorizer
from vectorizer.errors import AlreadyInstalled, SchemaVersionError, SourceError, VectorizerError
from vectorizer.testing import FakeEmbedder

if TYPE_CHECKING:
    from collections.abc import Iterator

    from subject import Attach

POSTS = "create table post (id int primary key, body text); insert into post values (1, 'one')"

REFUSED = {
    "view": ("create view post as select 1 as id, 'x'::text as body", "is a view"),
    "materialized view": (
        "create materialized view post as select 1 as id, 'x'::text as body",
        "is a materialized view",
    ),
    "foreign table": (
        "create foreign data wrapper nothing; create server nowhere foreign data wrapper nothing;"
        "create foreign table post (id int, body text) server nowhere",
        "is a foreign table",
    ),
    "no key": ("create table post (id int, body text)", "has no primary key"),
    "only a unique index": (
        "create table post (id int not null unique, body text)",
        'has no primary key.*name in "key"',
    ),
    "missing table": ("", "does not exist"),
    "missing text": (
        "create table post (id int primary key, text text)",
        "has no column body, which chunk_column names.*its columns are: id, text",
    ),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_a_source_is_refused_with_the_reason(attach: Attach, kind: str) -> None:
    script, reason = REFUSED[kind]
    with pytest.raises(SourceError, match=reason):
        attach(script)


def test_a_temporary_table_is_refused(vectorizer_url: str) -> None:
    with Subject(vectorizer_url) as post:
        post.db.execute(POSTS)
        post.vectorizer.install()
        post.sql("create temporary table mine (id int primary key, body text)")
        with pytest.raises(psycopg.Error, match="is a temporary table, not a permanent"):
            install(post, "mine", {"chunk_column": "body", "model": "fake", "dimensions": 16})


UNUSABLE = {
    "nullable": ("create unique index on post (slug)", ["slug"]),
    "partial": ("create unique index on post (id) where id > 0", ["id"]),
    "expression": ("create unique index on post (abs(id))", ["id"]),
    "not unique": ("create index on post (id)", ["id"]),
    "more columns": ("create unique index on post (id, n)", ["id"]),
    "nullable among others": ("create unique index on post (id, slug)", ["id", "slug"]),
    "nullable besides": ("create unique index on post (id, slug)", ["id"]),
    "missing column": ("", ["nothing"]),
}


@pytest.mark.parametrize("index", UNUSABLE)
def test_an_index_that_names_no_row_is_refused(attach: Attach, index: str) -> None:
    script, key = UNUSABLE[index]
    with pytest.raises(
        SourceError, match=r"no unique index over exactly|no column nothing, which key"
    ):
        attach(
            f"create table post (id int not null, n int not null, slug text, body text);{script}",
            key=key,
        )


@pytest.mark.parametrize(
    ("options", "what"),
    [
        ({"body": "nothing"}, "chunk_column"),
        ({"template": "{nothing}: {chunk}"}, "template"),
        ({"metadata": ["id", "nothing"]}, "metadata"),
        ({"time_column": "nothing"}, "time_column"),
        ({"where": "nothing is null"}, '"where" does not work.*"?nothing"? does not exist'),
        ({"where": "id is null)"}, '"where" does not work'),
        ({"where": "id"}, '"where" does not work'),
        ({"metadata": ["xmin"]}, "metadata"),
    ],
)
def test_unknown_columns_are_named(attach: Attach, options: dict[str, Any], what: str) -> None:
    with pytest.raises(VectorizerError, match=what):
        attach(POSTS, **options)


def test_a_refused_install_leaves_nothing(attach: Attach) -> None:
    with pytest.raises(SourceError):
        attach(POSTS, metadata=["nothing"])
    post = attach()  # the same table and name
    assert post.embedded() == {1: "one"}


# By plain SQL

GOOD = {"chunk_column": "body", "model": "fake", "dimensions": 16}
BAD: dict[str, Any] = {
    "no object": [],
    "a string": "body",
    "unknown option": {**GOOD, "chunk_colum": "body"},
    "no model": {"chunk_column": "body", "dimensions": 16},
    "no dimensions": {"chunk_column": "body", "model": "fake"},
    "dimensions as text": {**GOOD, "dimensions": "many"},
    "no dimension": {**GOOD, "dimensions": 0},
    "half a dimension": {**GOOD, "dimensions": 1.5},
    "too many dimensions": {**GOOD, "dimensions": 16_001},
    "a number as column": {**GOOD, "chunk_column": 7},
    "metadata as text": {**GOOD, "metadata": "id"},
    "numbers as metadata": {**GOOD, "metadata": [1]},
    "key as text": {**GOOD, "key": "id"},
    "template without chunk": {**GOOD, "template": "only {id}"},
    "template as list": {**GOOD, "template": ["{chunk}"]},
    "always as text": {**GOOD, "always": "perhaps"},
    "a size": {**GOOD, "chunk_size": 500},
    "sizes upside down": {**GOOD, "chunk_size": [1000, 500]},
    "overlap below nothing": {**GOOD, "chunk_overlap": -1},
    "no interval": {**GOOD, "partition_interval": "soon"},
    "a month": {**GOOD, "partition_interval": "1 month"},
    "too short": {**GOOD, "partition_interval": "5 minutes"},
    "destination in no schema": {**GOOD, "destination": "nowhere.it"},
    "destination of three parts": {**GOOD, "destination": "a.b.c"},
    "destination that is no name": {**GOOD, "destination": "a b"},
    "where as number": {**GOOD, "where": 1},
    "embedder as text": {**GOOD, "embedder": "fake"},
}


def install(post: Subject, table: str, definition: Any, name: str = "by_sql") -> Any:
    return post.value(
        "select vectorizer.install(%s, %s::regclass, %s::jsonb)",
        name,
        table,
        json.dumps(definition),
    )


@pytest.mark.parametrize("definition", BAD)
def test_a_bad_definition_is_refused_in_plain_sql(attach: Attach, definition: str) -> None:
    post = attach(POSTS)
    with pytest.raises(psycopg.Error) as raised:
        install(post, "post", BAD[definition], f"bad_{post.schema}")
    assert raised.value.sqlstate == "VZ002", raised.value
    assert raised.value.diag.message_hint


def test_install_in_plain_sql(attach: Attach) -> None:
    """The types of the source are found by whoever works, not only along our search path."""
    post = attach(POSTS)
    post.db.execute(
        "create type mood as enum ('good', 'bad');"
        "create table diary (day date, mood mood, body text, primary key (mood, day));"
        "insert into diary values ('2024-01-01', 'good', 'one'), ('2024-01-02', 'bad', 'two')"
    )
    name = f"diary_{post.schema}"
    definition = {**GOOD, "metadata": ["mood"], "embedder": {"provider": "fake", "dimensions": 16}}
    number = install(post, "diary", definition, name)
    assert install(post, "diary", definition, name) == number
    with pytest.raises(psycopg.Error) as raised:
        install(post, "diary", {**definition, "metadata": []}, name)
    assert raised.value.sqlstate == "VZ003"
    with psycopg.connect(post.url, autocommit=True) as elsewhere:
        elsewhere.execute("set search_path = ''")
        elsewhere.execute(f"delete from {post.schema}.diary where body = 'two'")
    with Vectorizer.connect(post.url, name, embedder=FakeEmbedder()) as worker:
        worker.run()
        assert worker.verify().ok
    assert post.sql("select source_mood::text, contents from diary_embedding") == [("good", "one")]
    post.sql("select vectorizer.uninstall(%s, true)", name)
    with pytest.raises(psycopg.Error) as raised:
        post.sql("select vectorizer.uninstall(%s)", name)
    assert raised.value.sqlstate == "VZ004"


def test_another_definition_is_not_taken_for_the_same(attach: Attach) -> None:
    post = attach(POSTS)
    with (
        Subject(post.url, schema=post.schema, metadata=["id"]) as other,
        pytest.raises(AlreadyInstalled, match=r"metadata is .*asked for.*change => true"),
    ):
        other.vectorizer.install()


def test_a_destination_that_exists_is_not_touched(attach: Attach) -> None:
    with pytest.raises(AlreadyInstalled, match="exists already"):
        attach(f"{POSTS}; create table post_embedding (mine text)")


def test_a_newer_schema_is_refused(vectorizer_url: str) -> None:
    with Subject(vectorizer_url) as post:
        post.db.execute(POSTS)
        post.vectorizer.install()
        post.sql("insert into vectorizer.migration (number, name) values (9999, 'from the future')")
        for call in (post.vectorizer.install, post.vectorizer.verify, post.vectorizer.status):
            with pytest.raises(SchemaVersionError, match="newer than"):
                call()
        with pytest.raises(SchemaVersionError, match="newer than"):
            Vectorizer.connect(vectorizer_url, "post", embedder=FakeEmbedder())


# Beside others


def test_ten_installs_at_once(vectorizer_url: str) -> None:
    """The very first ones: schema, extension and vectorizer are made by one of them."""
    with Subject(vectorizer_url) as post:
        post.db.execute(POSTS)
        start = threading.Barrier(10)

        def race(_: int) -> None:
            with Subject(vectorizer_url) as other:
                start.wait()
                other.vectorizer.install()

        with ThreadPoolExecutor(10) as pool:
            list(pool.map(race, range(10)))
        assert post.value("select count(*) from vectorizer.vectorizer") == 1
        post.sql("insert into post values (2, 'two')")
        assert post.logged() == 1
        post.settle()
        assert post.embedded() == {1: "one", 2: "two"}


class Writers:
    """Sessions that change rows without a pause, and count what they did and how long it took."""

    def __init__(self) -> None:
        self.done = 0
        self.slowest = 0.0
        self.failures: list[BaseException] = []


@contextmanager
def writing(post: Subject, sessions: int = 3) -> Iterator[Writers]:
    writers, stop, running = Writers(), threading.Event(), threading.Barrier(sessions + 1)

    def write(number: int) -> None:
        try:
            with post.session() as session:
                running.wait()
                turn = 0
                while not stop.is_set():
                    turn += 1
                    begun = time.monotonic()
                    key = number * 1_000_000 + turn
                    with session.transaction():
                        session.execute("select count(*) from post where id < 3")
                        session.execute("insert into post values (%s, 'new')", [key])
                        session.execute(
                            "update post set body = %s where id = %s", [f"t{turn}", key]
                        )
                    if turn % 3 == 0:
                        session.execute("update post set id = -id where id = %s", [key])
                    if turn % 2 == 0:
                        session.execute("delete from post where id = %s", [key - 1])
                    writers.slowest = max(writers.slowest, time.monotonic() - begun)
                    writers.done += 1
        except BaseException as error:  # noqa: BLE001 - it is raised in the test's own thread
            writers.failures.append(error)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(1, sessions + 1)]
    for thread in threads:
        thread.start()
    running.wait()
    try:
        yield writers
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert writers.failures == []
    assert writers.done > 0


PARTED = """
create table post (id int primary key, body text) partition by range (id);
create table negative partition of post for values from (minvalue) to (0);
create table first partition of post for values from (0) to (1000000);
create table later partition of post default;
insert into post values (1, 'one')
"""


@pytest.mark.parametrize("shape", [POSTS, PARTED], ids=["plain", "partitioned"])
def test_install_and_uninstall_under_write_load(attach: Attach, shape: str) -> None:
    post = attach(shape)
    post.vectorizer.uninstall(drop_embeddings=True)
    with writing(post) as writers:
        for turn in range(4):
            before = writers.done
            post.vectorizer.install()
            for _ in range(3):
                post.vectorizer.process()
            if turn == 1:
                post.vectorizer.suspend()
                post.vectorizer.resume()
            post.vectorizer.uninstall(drop_embeddings=turn % 2 == 0)
            while writers.done == before and not writers.failures:
                time.sleep(0.001)
        post.vectorizer.install()
    post.settle()


def test_a_long_transaction_delays_the_install_not_the_writers(attach: Attach) -> None:
    post = attach(POSTS)
    post.vectorizer.uninstall(drop_embeddings=True)
    installing = threading.Thread(target=post.vectorizer.install)
    with post.session() as long:
        long.execute("begin; update post set body = 'uno' where id = 1")
        with writing(post) as writers:
            installing.start()
            while not post.value(
                "select count(*) from pg_locks where not granted and relation = 'post'::regclass"
            ):
                assert installing.is_alive()
            # It waits. Writers that stand behind it go on when it gives its place up.
            reached = writers.done + 20
            while writers.done < reached and not writers.failures:
                assert installing.is_alive()
                time.sleep(0.001)
            long.execute("commit")
            installing.join()
    assert not installing.is_alive()
    assert writers.slowest < 10
    post.settle()


def test_a_large_table_is_attached_quickly(
    attach: Attach, record_property: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    post = attach(POSTS)
    post.vectorizer.uninstall(drop_embeddings=True)
    post.sql("insert into post select n, 'text ' || n from generate_series(2, 100000) n")
    began = time.monotonic()
    post.vectorizer.install()
    seconds = time.monotonic() - began
    record_property("install_seconds", seconds)
    with capsys.disabled():
        print(f"\nattached to 100,000 rows in {seconds:.2f} s")
    assert post.logged() == 0
    assert post.value("select count(*) from post_embedding") == 0
    status = post.vectorizer.status()
    assert (status["state"], status["backfill_claimed"]) == ("backfilling", 0)
    assert post.vectorizer.process() == 200
    assert post.vectorizer.status()["backfill_claimed"] == 200
