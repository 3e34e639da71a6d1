"""Rows older than the retention count as unpublished; partitions of such rows are dropped."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest
from psycopg import sql
from subject import Subject

from vectorizer._sync.database import Database
from vectorizer._sync.upkeep import Upkeep
from vectorizer.definition import Definition
from vectorizer.errors import ConfigurationError

if TYPE_CHECKING:
    from subject import Attach

DAY = timedelta(days=1)
TABLE = "create table post (id int primary key, body text, at timestamptz)"
OPTIONS = {
    "time_column": "at",
    "partition_interval": DAY,
    "retention": 10 * DAY,
    "visible": "at >= now() - interval '10 days'",
}


@pytest.fixture
def post(vectorizer_url: str) -> Iterator[Subject]:
    """One row a day, the latest of now, of which those of the last ten days are embedded."""
    with Subject(vectorizer_url, **OPTIONS) as subject:
        subject.script(
            f"{TABLE}; insert into post select n, 'text ' || n, now() - n * interval '1 day'"
            " + interval '1 hour' from generate_series(1, 20) n"
        )
        subject.vectorizer.install()
        subject.settle()
        yield subject


def age(post: Subject, days: int) -> None:
    """Let the retention end so many days later, which is what time passing comes to."""
    seconds = (10 - days) * 86400
    post.sql(
        "update vectorizer.vectorizer"
        " set definition = jsonb_set(definition, '{retention}', to_jsonb(%s::text))",
        f"{seconds} seconds",
    )
    post.visible = sql.SQL(f"at >= now() - interval '{seconds} seconds'")  # type: ignore[arg-type]


def drop_expired(post: Subject) -> int:
    """Do the chore; return how many partitions went."""
    before = partitions(post)
    post.sql("update vectorizer.upkeep set due_at = now() where task = 'retention'")
    with Database(post.url) as database:
        Upkeep(database).run_due()
    return before - partitions(post)


def partitions(post: Subject) -> int:
    return int(
        post.value(
            "select count(*) from pg_inherits where inhparent = %s::regclass",
            post.storage.as_string(post.db),
        )
    )


def test_older_rows_are_not_embedded(post: Subject) -> None:
    assert set(post.embedded()) == set(range(1, 11))
    assert post.embedder.texts == 10
    assert drop_expired(post) == 0


def test_rows_that_have_become_too_old_go_with_their_partition(post: Subject) -> None:
    before = partitions(post)
    age(post, 4)
    # Until then they are no defects.
    report = post.vectorizer.verify(repair=True)
    assert (report.ok, report.repaired, report.pending) == (True, 0, 0)
    dropped = drop_expired(post)
    assert 3 <= dropped <= 4  # the partition that the end falls in stays
    assert partitions(post) == before - dropped
    assert set(range(1, 7)) <= set(post.embedded()) <= set(range(1, 8))
    report = post.vectorizer.verify(repair=True)
    assert (report.ok, report.repaired, report.pending) == (True, 0, 0)
    # The ledger was told: nothing is embedded again, not even where everything is compared.
    post.vectorizer.suspend()
    post.vectorizer.resume()
    assert post.vectorizer.run().embedded == 0
    assert post.vectorizer.verify().ok
    assert drop_expired(post) == 0


def test_an_old_row_is_embedded_when_it_gets_a_new_time(post: Subject) -> None:
    age(post, 4)
    drop_expired(post)
    post.sql("update post set at = now() where id in (10, 20)")
    post.sql("update post set body = 'changed' where id in (9, 3)")
    post.vectorizer.run()
    found = post.embedded()
    assert {1, 2, 3, 4, 5, 6, 10, 20} <= set(found) <= {1, 2, 3, 4, 5, 6, 7, 10, 20}
    assert found[3] == "changed"
    assert post.vectorizer.verify().ok


def test_a_row_that_changes_when_it_is_too_old_loses_its_embeddings_at_once(post: Subject) -> None:
    age(post, 4)
    post.sql("update post set body = 'changed' where id = 10")
    assert post.vectorizer.run().deleted == 1
    assert 10 not in post.embedded()
    assert post.vectorizer.verify().ok


def test_a_reader_is_not_pushed_aside(post: Subject) -> None:
    age(post, 4)
    with post.session() as reader:
        reader.execute("begin")
        reader.execute("select from post_embedding")
        with pytest.raises(Exception, match="lock timeout"):
            post.sql("select vectorizer.drop_expired((select id from vectorizer.vectorizer))")
        reader.execute("commit")
    assert drop_expired(post) >= 3


def test_a_batch_in_flight_while_its_partition_goes(post: Subject) -> None:
    post.sql("update post set body = body || '!' where id > 5")
    generation = post.vectorizer._generations._ready()[0]
    batch = generation.claim(100)
    assert batch is not None
    age(post, 4)
    drop_expired(post)
    generation.process(batch)  # loaded with the retention of before
    post.vectorizer.run()
    assert post.vectorizer.verify().ok
    drop_expired(post)
    assert post.vectorizer.verify().ok


@pytest.mark.parametrize("option", [{"time_column": "at"}, {"partition_interval": DAY}])
def test_a_retention_that_cannot_be_kept_is_refused(
    attach: Attach, option: dict[str, object]
) -> None:
    with pytest.raises(ConfigurationError, match="retention needs"):
        attach(TABLE, retention=10 * DAY, **option)


def test_a_retention_of_minutes_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="expected an hour"):
        Definition.parse({"retention": timedelta(minutes=30)})


def test_a_longer_retention_embeds_what_was_too_old(post: Subject) -> None:
    with Subject(post.url, **{**OPTIONS, "retention": 15 * DAY}) as longer:
        longer.vectorizer.install(change=True)
        longer.visible = sql.SQL("at >= now() - interval '15 days'")
        assert longer.settle().embedded == 5
        assert set(longer.embedded()) == set(range(1, 16))
