"""The view `status`: how far the backfill is, and what somebody should look at."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING

import psycopg
import pytest
from psycopg import sql
from subject import Subject

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

TABLE = "create table post (id int primary key, body text)"


@pytest.fixture
def post(vectorizer_url: str) -> Iterator[Subject]:
    """Twenty rows in a database of its own, whose thresholds a test may change."""
    with Subject(vectorizer_url, batch_size=5) as subject:
        subject.script(
            f"{TABLE}; insert into post select n, 'text ' || n from generate_series(1, 20) n"
        )
        subject.sql("analyze post")
        subject.vectorizer.install()
        yield subject


def warn(post: Subject, name: str, value: str) -> None:
    """Set a threshold for new sessions."""
    database = sql.Identifier(post.db.info.dbname)
    post.db.execute(
        sql.SQL("alter database {} set vectorizer.{} = {}").format(
            database, sql.Identifier(name), sql.Literal(value)
        )
    )
    post.vectorizer.close()


def warnings(post: Subject) -> list[str]:
    return list(post.vectorizer.status()["warnings"])


def test_a_backfill_says_when_it_will_be_done(post: Subject) -> None:
    assert post.vectorizer.status()["backfill_eta"] is None
    post.vectorizer.process()
    post.sql("update vectorizer.progress set backfill_started_at = now() - interval '10 minutes'")
    eta = post.vectorizer.status()["backfill_eta"]
    left = eta - datetime.now(timezone.utc)
    assert timedelta(minutes=29) < left < timedelta(minutes=31)  # 5 of 20 rows took ten
    post.vectorizer.pause()
    assert post.vectorizer.status()["backfill_eta"] is None
    post.vectorizer.resume()
    post.settle()
    assert post.vectorizer.status()["backfill_eta"] is None


def test_the_time_before_the_first_batch_does_not_count(post: Subject) -> None:
    post.sql("update vectorizer.progress set backfill_started_at = now() - interval '10 days'")
    post.vectorizer.process()
    eta = post.vectorizer.status()["backfill_eta"]
    assert eta - datetime.now(timezone.utc) < timedelta(hours=1)


def test_all_is_well(post: Subject) -> None:
    post.settle()
    assert warnings(post) == []


def test_a_log_that_nobody_drains(post: Subject) -> None:
    post.settle()
    post.sql("update post set body = body || '!'")
    assert warnings(post) == []
    warn(post, "warn_log_size", "8kB")
    assert warnings(post) == []  # exactly that
    warn(post, "warn_log_size", "1kB")
    (warning,) = warnings(post)
    assert warning.startswith("the change log takes 8192 bytes: collapse it")
    assert 'with "vectorizer collapse post"' in warning
    assert "discard" not in warning
    post.vectorizer.pause()
    assert '"vectorizer pause post --discard"' in warnings(post)[0]
    post.vectorizer.pause(discard=True)
    assert warnings(post) == []


def test_a_change_that_waits_for_long(post: Subject) -> None:
    post.settle()
    post.sql("update post set body = body || '!'")
    post.db.execute(sql.SQL("update {} set at = now() - interval '59 minutes'").format(post.log))
    assert warnings(post) == []
    post.db.execute(sql.SQL("update {} set at = now() - interval '61 minutes'").format(post.log))
    (warning,) = warnings(post)
    assert warning.startswith("a change has waited since ")
    assert warning.endswith("is a worker running?")
    warn(post, "warn_age", "2 hours")
    assert warnings(post) == []
    warn(post, "warn_age", "1 hour")
    post.settle()
    assert warnings(post) == []


def snapshot(session: psycopg.Connection) -> None:
    session.execute("begin isolation level repeatable read")
    session.execute("select from post")


def xid(session: psycopg.Connection) -> None:
    session.execute("begin")
    session.execute("select pg_current_xact_id()")


@pytest.mark.parametrize("hold", [snapshot, xid])
def test_a_transaction_that_holds_vacuum_back(
    post: Subject,
    hold: Callable[[psycopg.Connection], None],
    eventually: Callable[[Callable[[], object]], None],
) -> None:
    warn(post, "warn_age", "10 milliseconds")
    with post.session() as session:
        session.execute("set application_name = 'the monthly report'")
        hold(session)
        eventually(lambda: warnings(post))
        (warning,) = warnings(post)
        assert f"process {session.info.backend_pid} of " in warning
        assert "(idle in transaction), application the monthly report" in warning
        session.execute("rollback")
        session.execute("begin")  # holds nothing
        assert warnings(post) == []


def test_disabled_triggers(post: Subject) -> None:
    post.settle()
    post.sql("alter table post disable trigger vectorizer_post_update")
    (warning,) = warnings(post)
    assert warning.startswith("changes of table post are not captured: ")
    post.sql("update post set body = 'unseen' where id = 1")
    post.sql("alter table post enable trigger all")
    assert warnings(post) == []
    assert post.vectorizer.verify(repair=True).defects == {"stale": 1}
    post.settle()
    post.vectorizer.suspend()
    assert warnings(post) == []


def test_a_disabled_trigger_of_a_partition(vectorizer_url: str) -> None:
    with Subject(vectorizer_url) as post:
        post.script(
            "create table post (id int primary key, body text) partition by range (id);"
            "create table low partition of post for values from (0) to (500)"
        )
        post.vectorizer.install()
        post.settle()
        assert warnings(post) == []
        post.sql("alter table low disable trigger all")
        (warning,) = warnings(post)
        assert warning.startswith("changes of table low are not captured: ")


def test_who_may_read_it_still_may_after_a_migration(post: Subject) -> None:
    role = f"reader_of_{post.db.info.dbname}"
    post.sql(f"create role {role}")
    try:
        post.sql(f"grant select on vectorizer.status to {role}")
        post.sql("update vectorizer.migration set functions = 'older'")
        post.vectorizer.install()
        assert post.value(
            "select functions <> 'older' from vectorizer.migration order by number desc limit 1"
        )
        assert post.value("select has_table_privilege(%s, 'vectorizer.status', 'select')", role)
    finally:
        post.sql(f"drop owned by {role}")
        post.sql(f"drop role {role}")
