"""Chores that keep a vectorizer in shape, done by whichever worker finds them due."""

from __future__ import annotations

import threading
from contextlib import closing
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from psycopg import sql
from subject import Subject

from vectorizer._sync.database import Database
from vectorizer._sync.upkeep import CHORES, Upkeep
from vectorizer.errors import SourceError, VectorizerPaused
from vectorizer.identifiers import to_pg_time
from vectorizer.partitioning import partition_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

TABLE = "create table post (id int primary key, body text, at timestamptz)"
ROWS = "insert into post select n, 'text ' || n from generate_series(1, 20) n"
DAY = timedelta(days=1)


@pytest.fixture
def post(vectorizer_url: str) -> Iterator[Subject]:
    with Subject(vectorizer_url) as subject:
        subject.script(f"{TABLE}; {ROWS}")
        subject.vectorizer.install()
        subject.settle()
        yield subject


def due(post: Subject, *tasks: str) -> None:
    """Make chores due, and no others."""
    post.sql("update vectorizer.upkeep set due_at = clock_timestamp() + interval '20 seconds'")
    post.sql("update vectorizer.upkeep set due_at = now() where task = any(%s)", list(tasks))


def upkeep(post: Subject) -> list[tuple[str, str]]:
    """Do what is due; return which chores had something to do."""
    with Database(post.url) as database:
        return [(chore.vectorizer, chore.task) for chore in Upkeep(database).run_due()]


def dead_tuples(post: Subject) -> int:
    return int(
        post.value(
            "select n_dead_tup from pg_stat_all_tables where relid = %s::regclass",
            post.log.as_string(post.db),
        )
    )


def litter(post: Subject, eventually: Callable[[Callable[[], object]], None]) -> None:
    """Make dead entries in the log, and wait until the statistics know of them."""
    post.db.execute(sql.SQL("alter table {} set (autovacuum_enabled = false)").format(post.log))
    for _ in range(100):
        post.sql("update post set body = body || '!'")
    post.settle()
    post.vectorizer.close()  # sessions report what they did when they end, others now and then
    eventually(lambda: dead_tuples(post) >= 1000)


def pages(post: Subject) -> int:
    return int(post.value("select pg_relation_size(%s::regclass)", post.log.as_string(post.db)))


def test_every_chore_is_due_for_a_new_vectorizer_and_then_at_its_time(post: Subject) -> None:
    rows = post.sql("select task, extract(epoch from due_at - now())::int from vectorizer.upkeep")
    left = dict(rows)
    assert set(left) == set(CHORES)
    assert all(CHORES[task] - 20 <= left[task] <= CHORES[task] for task in left)
    before = post.sql("select * from vectorizer.upkeep order by task")
    assert upkeep(post) == []
    assert post.sql("select * from vectorizer.upkeep order by task") == before


def test_many_workers_do_a_chore_once(post: Subject) -> None:
    due(post, *CHORES)
    taken: list[tuple[str, str]] = []
    barrier = threading.Barrier(6)

    def work() -> None:
        with Database(post.url) as database:
            chores = Upkeep(database)
            database.open()
            barrier.wait(20)
            taken.extend(chores._take(None))

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(taken) == sorted(("post", 1, task) for task in CHORES)


def test_a_clock_that_stepped_back_stops_nothing(post: Subject) -> None:
    post.sql("update vectorizer.upkeep set due_at = now() + interval '5 hours'")
    with Database(post.url) as database:
        assert len(Upkeep(database)._take(None)) == len(CHORES)
        assert Upkeep(database)._take(None) == []


def test_leases_are_reaped_while_paused(post: Subject) -> None:
    post.sql("update post set body = body || '!'")
    assert post.vectorizer._generations._ready()[0].claim(100) is not None
    post.vectorizer.pause()
    post.sql("update vectorizer.lease set expires_at = now() - interval '1 second'")
    due(post, "reap")
    with pytest.raises(VectorizerPaused):
        post.vectorizer.run()
    assert post.vectorizer.status()["in_flight"] == 0
    assert post.vectorizer.status()["retrying"] == 20


def test_the_log_is_vacuumed(
    post: Subject, eventually: Callable[[Callable[[], object]], None]
) -> None:
    litter(post, eventually)
    size = pages(post)
    due(post, "vacuum")
    assert upkeep(post) == [("post", "vacuum")]
    eventually(lambda: dead_tuples(post) == 0)
    assert pages(post) == size  # to give it back would lock writers out
    due(post, "vacuum")
    assert upkeep(post) == []


def test_a_large_log_is_given_back_to_the_disk(
    post: Subject, eventually: Callable[[Callable[[], object]], None]
) -> None:
    litter(post, eventually)
    post.db.execute(
        sql.SQL("insert into {} (source_id) select n from generate_series(1, 500000) n").format(
            post.log
        )
    )
    post.db.execute(sql.SQL("delete from {}").format(post.log))
    post.sql("select pg_stat_force_next_flush()")
    assert pages(post) > 16 * 1024 * 1024
    due(post, "vacuum")
    assert upkeep(post) == [("post", "vacuum")]
    assert pages(post) == 0


def test_no_vacuum_while_an_old_snapshot_makes_it_useless(
    post: Subject, eventually: Callable[[Callable[[], object]], None]
) -> None:
    with post.session() as session:
        session.execute("begin isolation level repeatable read")
        session.execute("select from post")
        litter(post, eventually)
        due(post, "vacuum")
        assert upkeep(post) == [("post", "vacuum")]  # it removes what died before
        eventually(
            lambda: post.value(
                "select last_vacuum from pg_stat_all_tables where relid = %s::regclass",
                post.log.as_string(post.db),
            )
        )
        due(post, "vacuum")
        assert upkeep(post) == []
    due(post, "vacuum")
    assert upkeep(post) == [("post", "vacuum")]


def test_no_vacuum_of_what_belongs_to_somebody_else(
    post: Subject, eventually: Callable[[Callable[[], object]], None]
) -> None:
    litter(post, eventually)
    role = f"worker_of_{post.db.info.dbname}"
    post.script(
        f"create role {role}; grant usage on schema vectorizer to {role};"
        f"grant all on all tables in schema vectorizer to {role}"
    )
    try:
        if post.db.info.server_version >= 170000:
            post.db.execute(
                sql.SQL("revoke maintain on {} from {}").format(post.log, sql.Identifier(role))
            )
        post.sql(f"set role {role}")
        assert post.value("select vectorizer.log_vacuum(1)") is None
        post.sql("reset role")
        assert post.value("select vectorizer.log_vacuum(1)") is False
        if post.db.info.server_version >= 170000:
            post.db.execute(
                sql.SQL("grant maintain on {} to {}").format(post.log, sql.Identifier(role))
            )
            post.sql(f"set role {role}")
            assert post.value("select vectorizer.log_vacuum(1)") is False
            post.sql("reset role")
    finally:
        post.sql(f"drop owned by {role}")
        post.sql(f"drop role {role}")


def test_a_large_log_is_collapsed(post: Subject) -> None:
    for _ in range(20):
        post.sql("update post set body = body || '!'")
    due(post, "collapse")
    assert upkeep(post) == []
    post.db.execute(
        sql.SQL("alter database {} set vectorizer.warn_log_size = '8kB'").format(
            sql.Identifier(post.db.info.dbname)
        )
    )
    due(post, "collapse")
    assert upkeep(post) == [("post", "collapse")]
    assert post.logged() == 20
    post.settle()


@pytest.fixture
def timed(vectorizer_url: str) -> Iterator[Subject]:
    """A destination with a partition a day."""
    with Subject(vectorizer_url, time_column="at", partition_interval=DAY) as subject:
        subject.script(TABLE)
        subject.vectorizer.install()
        subject.settle()
        yield subject


def partitions(post: Subject) -> set[str]:
    rows = post.sql(
        "select relid::regclass::text from pg_partition_tree(%s::regclass) where isleaf",
        post.storage.as_string(post.db),
    )
    return {name for (name,) in rows}


def partition(day: datetime) -> str:
    return partition_of(to_pg_time(day), DAY).name("post_embedding_g1")


def test_the_next_partition_is_made_before_it_is_needed(timed: Subject) -> None:
    due(timed, "partitions")
    assert upkeep(timed) == []  # nothing comes in
    now = datetime.now(timezone.utc)
    timed.sql("insert into post values (1, 'now', %s), (2, 'long ago', '2020-01-01')", now)
    timed.settle()
    due(timed, "partitions")
    assert upkeep(timed) == [("post", "partitions")]
    assert {partition(now), partition(now + DAY)} < partitions(timed)
    assert len(partitions(timed)) == 3
    due(timed, "partitions")
    assert upkeep(timed) == []


PARTS: dict[str, tuple[str, ...]] = {
    "a partition": (
        "create table post (id int primary key, body text) partition by range (id)",
        "create table low partition of post for values from (0) to (500)",
        "create table late (body text, id int primary key)",
        "insert into late select 'late ' || n, n from generate_series(600, 620) n",
        "alter table post attach partition late for values from (500) to (1000)",
        "alter table post detach partition late",
    ),
    "the first child": (
        "create table post (id int primary key, body text)",
        "select",
        "create table late (body text, id int not null)",
        "insert into late select 'late ' || n, n from generate_series(600, 620) n",
        "alter table late inherit post",
        "alter table late no inherit post",
    ),
    "another child": (
        "create table post (id int primary key, body text)",
        "create table low (primary key (id)) inherits (post)",
        "create table late (body text, id int not null)",
        "insert into late select 'late ' || n, n from generate_series(600, 620) n",
        "alter table late inherit post",
        "alter table late no inherit post",
    ),
}


@pytest.mark.parametrize("kind", PARTS)
def test_tables_that_come_and_go_are_followed(vectorizer_url: str, kind: str) -> None:
    table, part, late, rows, comes, goes = PARTS[kind]
    with Subject(vectorizer_url) as post:
        post.script(f"{table}; {part}")
        post.sql("insert into post values (1, 'one'), (2, 'two')")
        post.vectorizer.install()
        post.settle()
        post.script(f"{late}; {rows}; {comes}")
        due(post, "follow")
        assert upkeep(post) == [("post", "follow")]
        assert post.settle().embedded == 21
        assert post.vectorizer.status()["warnings"] == []
        # Written past the parent, and through it.
        post.sql("update late set body = 'direct' where id = 600")
        post.sql("update post set body = 'through' where id = 601")
        post.sql("insert into late values ('new', 650)")
        post.sql("delete from only late where id = 610")
        post.sql("insert into post values (3, 'three')")
        post.sql("delete from post where id in (2, 611)")
        post.settle()
        post.sql("truncate late")
        post.settle()
        assert set(post.embedded()) == {1, 3}
        post.sql("insert into late values ('again', 660)")
        post.settle()
        post.sql(goes)
        due(post, "follow")
        assert upkeep(post) == [("post", "follow")]
        post.settle()
        assert set(post.embedded()) == {1, 3}
        due(post, "follow")
        assert upkeep(post) == []


def test_a_new_table_that_is_locked_is_followed_later(vectorizer_url: str) -> None:
    table, part, late, rows, comes, _ = PARTS["a partition"]
    with Subject(vectorizer_url) as post:
        post.script(f"{table}; {part}")
        post.vectorizer.install()
        post.settle()
        post.script(f"{late}; {rows}; {comes}")
        with post.session() as session:
            session.execute("begin")
            session.execute("insert into late values ('open', 700)")
            due(post, "follow")
            assert upkeep(post) == []
            session.execute("commit")
        due(post, "follow")
        assert upkeep(post) == [("post", "follow")]
        assert post.settle().embedded == 22


def test_a_restored_dump_knows_its_parts(vectorizer_url: str) -> None:
    table, part, *_ = PARTS["a partition"]
    with Subject(vectorizer_url) as post:
        post.script(f"{table}; {part}")
        post.vectorizer.install()
        # As names: numbers would be those of other tables in a restored database.
        parts = post.value("select parts::text[] from vectorizer.progress")
        assert sorted(parts) == ["low", "post"]


def test_what_upkeep_may_not_do_harms_nobody(post: Subject, caplog: Any) -> None:
    post.sql("drop function vectorizer.follow_parts(integer)")
    post.sql("update vectorizer.progress set parts = null")
    due(post, "follow", "reap")
    assert upkeep(post) == []
    assert "vectorizer post: upkeep (follow) failed: " in caplog.text
    with closing(psycopg.connect(post.url)) as db:
        later = "select min(due_at) > now() from vectorizer.upkeep where task = 'follow'"
        assert db.execute(later).fetchone() == (True,)


def test_a_dropped_view_is_made_again(post: Subject) -> None:
    post.sql("drop view post_embedding")
    status = post.vectorizer.status()
    assert status["destination"] == "public.post_embedding"
    assert "the view public.post_embedding was dropped" in status["warnings"][0]
    assert post.vectorizer.search("text 1", limit=1)
    post.sql("update post set body = 'new' where id = 1")
    post.settle()
    due(post, "view")
    assert upkeep(post) == [("post", "view")]
    assert post.value("select count(*) from post_embedding") == 20
    assert post.vectorizer.status()["warnings"] == []


def test_a_view_of_somebody_else_is_left_alone(post: Subject) -> None:
    post.sql("drop view post_embedding")
    post.sql("create view post_embedding as select 1 as one")
    due(post, "view")
    assert upkeep(post) == []
    assert post.sql("select * from post_embedding") == [(1,)]
    post.vectorizer.uninstall(drop_embeddings=True)
    assert post.sql("select * from post_embedding") == [(1,)]


def test_dropped_embeddings_pause_with_the_remedy(post: Subject) -> None:
    post.sql("drop table post_embedding_g1 cascade")
    assert "--drop-embeddings" in " ".join(post.vectorizer.status()["warnings"])
    with pytest.raises(
        (VectorizerPaused, SourceError), match="its table of embeddings was dropped"
    ):
        post.vectorizer.run()
    post.vectorizer.uninstall(drop_embeddings=True)
    post.vectorizer.install()
    post.settle()
