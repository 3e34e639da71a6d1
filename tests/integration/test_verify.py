# ruff: noqa: ISC004 - tests write the SQL they name, and some of it is long
"""`verify` judges by the data: each kind of damage is found, counted, named and mended."""

from __future__ import annotations

import threading
from contextlib import closing
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from psycopg import sql

from vectorizer import Vectorizer, pgvectorizer
from vectorizer._sync.database import Database
from vectorizer._sync.schema import Schema
from vectorizer._sync.verify import Verifier
from vectorizer.errors import ConfigurationError
from vectorizer.testing import FakeEmbedder

if TYPE_CHECKING:
    from collections.abc import Callable

    from subject import Attach, Subject

TEN = """
create table post (id int primary key, body text, at timestamptz, title text);
insert into post select n, 'text ' || n, timestamptz '2024-01-01 00:00Z' + n * interval '1 day', 't'
from generate_series(1, 10) n
"""


@pytest.fixture
def post(attach: Attach) -> Subject:
    return attach(TEN, time_column="at", metadata=["title"], visible="at is not null")


@pytest.fixture
def parted(attach: Attach) -> Subject:
    """A destination with a partition for each of two weeks."""
    return attach(TEN, time_column="at", partition_interval=timedelta(days=7))


def tamper(post: Subject, statement: str) -> None:
    """Run a statement on {storage}, {ledger} or {source}, with no trigger of ours."""
    post.sql("set session_replication_role = replica")
    post.db.execute(
        sql.SQL(statement).format(  # type: ignore[arg-type]
            storage=post.storage,
            ledger=post.ledger,
            source=sql.Identifier(post.schema, post.table),
        )
    )
    post.sql("set session_replication_role = origin")


COPIED = (
    "insert into {storage}"
    " (id, time, source_id, chunk, content_hash, metadata, contents, embedding)"
    " select gen_random_uuid(), time, source_id, chunk, content_hash, metadata, contents, embedding"
    " from {storage}"
)
# What is done, what is found, and how many texts are embedded to mend it.
DEFECTS: dict[str, tuple[str, dict[str, list[int]], int]] = {
    "chunks of three rows deleted": (
        "delete from {storage} where source_id <= 3",
        {"missing": [1, 2, 3]},
        3,
    ),
    "never processed": (
        "with d as (delete from {ledger} where source_id = 4) "
        "delete from {storage} where source_id = 4",
        {"missing": [4]},
        1,
    ),
    "the ledger forgot a row": ("delete from {ledger} where source_id = 5", {"missing": [5]}, 0),
    "a row was added": ("insert into {source} values (11, 'eleven', now())", {"missing": [11]}, 1),
    "texts changed": (
        "update {source} set body = body || '!' where id in (2, 4)",
        {"stale": [2, 4]},
        2,
    ),
    "metadata changed": ("update {source} set title = 'new' where id = 9", {"stale": [9]}, 0),
    "the stored text changed": (
        "update {storage} set contents = 'x' where source_id = 6",
        {"stale": [6]},
        1,
    ),
    "the stored hash changed": (
        "update {storage} set content_hash = sha256('x') where source_id = 6",
        {"stale": [6]},
        1,
    ),
    "the ledger's hash changed": (
        "update {ledger} set source_hash = sha256('x') where source_id = 7",
        {"stale": [7]},
        0,
    ),
    "rows deleted": ("delete from {source} where id > 7", {"orphaned": [8, 9, 10]}, 0),
    "chunks of nobody": (
        "with c as (select * from {storage} where source_id = 1) "
        "insert into {storage} select gen_random_uuid(), time, 99, chunk, content_hash, metadata,"
        " contents, embedding from c",
        {"orphaned": [99]},
        0,
    ),
    "unpublished": ("update {source} set at = null where id = 1", {"stale": [1]}, 0),
    "a chunk twice": (COPIED + " where source_id = 3", {"duplicated": [3]}, 0),
    "the ledger counts wrong": (
        "update {ledger} set chunks = 2 where source_id = 8",
        {"wrong_chunk_count": [8]},
        0,
    ),
    "time moved": (
        "update {storage} set time = time + interval '1 hour' where source_id = 1",
        {"wrong_partition": [1]},
        0,
    ),
    "id of another time": (
        "update {storage} set id = '00000000-0000-1000-8000-000000000000' where source_id = 1",
        {"wrong_partition": [1]},
        0,
    ),
    "the ledger's time": (
        "update {ledger} set time = time + interval '1 day' where source_id = 1",
        {"wrong_partition": [1]},
        0,
    ),
}  # fmt: skip
DEFECTS["a chunk too many"] = (
    COPIED.replace("select gen_random_uuid(), time, source_id, chunk,",
                   "select gen_random_uuid(), time, source_id, 1,") + " where source_id = 3",
    {"wrong_chunk_count": [3]},
    0,
)  # fmt: skip
SEVERAL = {
    "missing": "delete from {storage} where source_id = 1",
    "stale": "update {source} set body = 'x' where id = 2",
    "orphaned": "delete from {source} where id = 3",
    "duplicated": COPIED + " where source_id = 4",
    "wrong_chunk_count": "update {ledger} set chunks = 3 where source_id = 5",
    "wrong_partition": "update {storage} set time = time + interval '1 h' where source_id = 6",
}


@pytest.mark.parametrize("defect", DEFECTS)
def test_a_defect_is_found_and_mended(post: Subject, defect: str) -> None:
    statement, expected, new = DEFECTS[defect]
    tamper(post, statement)
    report = post.vectorizer.verify()
    assert dict(report.defects) == {kind: len(keys) for kind, keys in expected.items()}
    samples = {
        kind: sorted(sample["source_id"] for sample in found)
        for kind, found in report.samples.items()
    }
    assert samples == expected
    assert (report.ok, report.pending, report.dead, report.repaired) == (False, 0, 0, 0)
    repaired = post.vectorizer.verify(repair=True)
    assert repaired.repaired == sum(map(len, expected.values()))
    assert post.vectorizer.verify().ok  # pending, that is
    known = post.embedder.texts
    assert post.settle().rows == repaired.repaired
    assert post.embedder.texts == known + new


def test_the_parts_are_named_apart(post: Subject) -> None:
    for statement in SEVERAL.values():
        tamper(post, statement)
    for rows in (1, 3, 10_000):
        report = post.vectorizer.verify(rows=rows)
        assert report.defects == dict.fromkeys(SEVERAL, 1)
        assert report.checked == 9
    assert post.vectorizer.verify(repair=True, rows=2).repaired == 6
    assert post.settle().rows == 6


def test_a_chunk_in_the_wrong_partition(parted: Subject) -> None:
    tamper(
        parted,
        "update {storage} set time = time + interval '7 days' where source_id = 1",
    )
    report = parted.vectorizer.verify(repair=True)
    assert dict(report.defects) == {"wrong_partition": 1}
    parted.settle()
    assert parted.embedder.texts == 10


def test_a_vector_of_another_length(post: Subject) -> None:
    # Only a superuser can bring storage without a fixed dimension about.
    post.sql(
        "update pg_attribute set atttypmod = -1"
        " where attname = 'embedding' and attrelid = %s::regclass",
        post.storage.as_string(post.db),
    )
    tamper(post, "update {storage} set embedding = '[1,2,3]' where source_id in (1, 2)")
    report = post.vectorizer.verify(repair=True)
    assert dict(report.defects) == {"wrong_model": 2}
    assert post.settle().embedded == 2


def test_samples_are_few_and_counts_are_all(attach: Attach) -> None:
    post = attach(
        "create table post (id int primary key, body text);"
        "insert into post select n, 'text ' || n from generate_series(1, 60) n"
    )
    tamper(post, "delete from {storage} where source_id <= 55")
    report = post.vectorizer.verify(rows=7)
    assert report.defects == {"missing": 55}
    assert len(report.samples["missing"]) == 10


@pytest.mark.parametrize("rows", [1, 3, 4, 10_000])
def test_ranges_make_no_difference(attach: Attach, rows: int) -> None:
    post = attach(
        """create table post (a text, b timestamptz, c numeric, body text, primary key (b, a, c));
        insert into post
        select chr(65 + n % 7), '2024-01-01Z'::timestamptz + n % 5 * interval '1 us', n / 7.0,
          'text ' || n
        from generate_series(1, 40) n""",
        id=("b", "a", "c"),
    )
    assert post.vectorizer.verify(rows=rows).checked == 40
    tamper(post, "delete from {source} where a = 'A'")
    tamper(post, "delete from {storage} where source_a = 'B'")
    tamper(
        post,
        "insert into {source} values ('Z', 'infinity', 0, 'last'), ('', '-infinity', 0, 'first')",
    )
    report = post.vectorizer.verify(rows=rows)
    assert dict(report.defects) == {"orphaned": 5, "missing": 8}
    assert post.vectorizer.verify(rows=rows, repair=True).repaired == 13
    post.settle()


class Poison(FakeEmbedder):
    """Refuses texts with `poison` in them."""

    def embed(self, texts: Any) -> Any:
        if any("poison" in text for text in texts):
            raise ValueError("this text cannot be embedded")
        return super().embed(texts)


def test_pending_and_dead_are_not_defects(post: Subject) -> None:
    post.sql("update post set body = 'poison' where id = 1")
    with closing(Vectorizer.connect(post.url, post.vectorizer.name, embedder=Poison())) as worker:
        for _ in range(5):
            worker.run()
            post.db.execute(
                sql.SQL("update {} set available_at = now() where available_at is not null").format(
                    post.ledger
                )
            )
        assert [letter["key"] for letter in worker.dead_letters()] == [{"id": 1}]
        post.script("update post set body = 'x' where id = 2; delete from post where id = 3")
        post.sql("insert into post values (12, 'twelve', now())")
        report = worker.verify()
        assert (report.ok, report.dead, report.pending) == (True, 1, 3)
        tamper(post, "delete from {storage} where source_id = 4")
        report = worker.verify(repair=True)
        assert (dict(report.defects), report.repaired) == ({"missing": 1}, 1)
        assert (report.dead, report.pending) == (1, 3)
        worker.run()
        report = worker.verify()
        assert (report.ok, report.dead, report.pending) == (True, 1, 0)
        assert [letter["key"] for letter in worker.dead_letters()] == [{"id": 1}]
        post.sql("update post set body = 'mended' where id = 1")
        worker.run()
    post.settle()


def test_what_is_to_be_backfilled_is_pending(attach: Attach) -> None:
    post = attach(TEN, drained=False)
    report = post.vectorizer.verify(rows=3)
    assert (report.ok, report.checked, report.pending) == (True, 10, 10)
    post.settle()


def test_what_is_to_be_compared_after_a_migration_is_pending(post: Subject) -> None:
    post.vectorizer.suspend()
    post.script("update post set body = 'x' where id = 1; delete from post where id = 2")
    post.sql("insert into post values (13, 'thirteen', now())")
    post.vectorizer.resume()
    report = post.vectorizer.verify()
    assert (report.ok, report.pending) == (True, 3)
    post.settle()


def test_what_is_to_be_swept_after_a_truncate_is_pending(post: Subject) -> None:
    post.sql("truncate post")
    assert post.vectorizer.verify().ok
    assert post.vectorizer.process() > 0
    assert post.vectorizer.verify().ok
    post.settle()


def test_rows_that_rightly_have_no_chunks(attach: Attach) -> None:
    post = attach(
        """create table post (id int primary key, body text, at timestamptz, deleted boolean);
        insert into post values
          (1, 'one', now(), false), (2, null, now(), false), (3, '  ', now(), false),
          (4, 'four', null, false), (5, 'five', now(), true), (6, 'six', now(), null)""",
        time_column="at",
        where="not deleted",
        visible="not deleted and at is not null",
    )
    assert post.embedded() == {1: "one"}
    assert post.vectorizer.verify().checked == 6
    tamper(post, "update {source} set deleted = true where id = 1")
    assert dict(post.vectorizer.verify(repair=True).defects) == {"stale": 1}
    post.settle()
    assert post.embedded() == {}


def test_live_writes_and_workers_cause_no_false_alarm(post: Subject) -> None:
    stop = threading.Event()
    failures: list[BaseException] = []

    def until_stopped(act: Callable[[int], object]) -> None:
        try:
            number = 0
            while not stop.is_set():
                act(number := number + 1)
        except BaseException as error:  # noqa: BLE001 - it is raised in the test's own thread
            failures.append(error)
            stop.set()

    def write(number: int) -> None:
        with post.session() as session:
            at = f"2024-02-0{number % 5 + 1}"
            session.execute("insert into post values (%s, 'new', %s)", [1000 + number, at])
            session.execute("update post set body = 'n' || %s where id = %s", [number, number % 10])
            session.execute("update post set id = -id where id = %s", [1000 + number])
            session.execute("update post set at = %s where id = %s", [at, number % 7])
            session.execute("delete from post where id = %s", [10 - number])
            if number % 20 == 0:
                session.execute("truncate post")

    workers = [
        Vectorizer.connect(post.url, post.vectorizer.name, embedder=FakeEmbedder(), batch_size=7)
        for _ in range(2)
    ]
    threads = [threading.Thread(target=until_stopped, args=(write,))]
    threads += [
        threading.Thread(target=until_stopped, args=(lambda _, worker=worker: worker.run(),))
        for worker in workers
    ]
    for thread in threads:
        thread.start()
    try:
        for turn in range(25):
            report = post.vectorizer.verify(rows=3 + turn)
            assert report.ok, report
    finally:
        stop.set()
        for thread in threads:
            thread.join()
        for worker in workers:
            worker.close()
    assert failures == []
    post.settle()


# Callback mode: what was written is out of sight; what was handed over is not.


def verifier_of(database: Database, name: str) -> Verifier:
    schema = Schema(database)
    return Verifier(database, schema.find(name))


def test_callback_mode(attach: Attach, shared_url: str) -> None:
    plain = attach(TEN)  # for its table only
    seen: list[Any] = []
    name = f"{plain.schema}_callback"
    with (
        pgvectorizer.Vectorize(
            shared_url, "post", schema_name=plain.schema, work_queue_table_name=name
        ) as vectorize,
        Database(shared_url) as database,
    ):
        vectorize.register()
        verifier = verifier_of(database, name)
        report = verifier.verify(repair=False, rows=3)
        assert (report.ok, report.pending, report.checked) == (True, 10, 10)
        assert "callback" in (report.unknown or "")
        while vectorize.process(lambda rows, _: seen.extend(row["locked_id"] for row in rows)):
            pass
        assert sorted(seen) == list(range(1, 11))
        report = verifier.verify(repair=False, rows=3)
        assert (report.ok, report.pending) == (True, 0)
        tamper(plain, "update {source} set title = 'new' where id = 1")
        tamper(plain, "delete from {source} where id = 2")
        tamper(plain, "insert into {source} values (11, 'eleven')")
        report = verifier.verify(repair=True, rows=3)
        assert dict(report.defects) == {"stale": 1, "orphaned": 1, "missing": 1}
        seen.clear()
        while vectorize.process(lambda rows, _: seen.extend(rows)):
            pass
        assert sorted((row["locked_id"], row["id"]) for row in seen if row["id"]) == [
            (1, 1),
            (11, 11),
        ]
        assert [row["locked_id"] for row in seen if row["id"] is None] == [2]
        assert verifier.verify(repair=False, rows=3).ok


PAIRS = """
create table post (a text, b bigint, body text, primary key (b, a));
insert into post select 'x%s', n, 'text ' || n from generate_series(1, 9) n;
create table mine (number int, letter text, body text)
"""


def test_a_query_tells_what_a_callback_has_embedded(attach: Attach, shared_url: str) -> None:
    plain = attach(PAIRS, id=("b", "a"))
    name = f"{plain.schema}_callback"
    query = f"select number, letter, body from {plain.schema}.mine where letter like 'x%'; -- all"

    def write(rows: Any, _: Any) -> None:
        for row in rows:
            number, letter = row["locked_id"]
            plain.sql("delete from mine where (number, letter) = (%s, %s)", number, letter)
            if row["body"] is not None:
                plain.sql("insert into mine values (%s, %s, %s)", number, letter, row["body"])

    with pgvectorizer.Vectorize(
        shared_url, "post", schema_name=plain.schema, work_queue_table_name=name
    ) as vectorize:
        vectorize.register()
        report = vectorize.verify(embedded=query.replace(" -- all", ""), rows=2)
        assert (report.ok, report.pending, report.checked) == (True, 9, 9)
        query = query.replace(";", "")
        while vectorize.process(write):
            pass
        report = vectorize.verify(embedded=query, rows=2)
        assert (report.ok, report.pending) == (True, 0)
        assert "something for the same keys" in str(report.unknown)
        plain.sql("insert into mine select * from mine where number = 1")  # two chunks
        plain.sql("insert into mine values (77, 'x', 'from nowhere'), (null, 'x', 'no key')")
        plain.sql("delete from mine where number in (3, 4)")
        assert vectorize.verify().ok
        for repair in (False, True):
            report = vectorize.verify(embedded=query, rows=2, repair=repair)
            assert dict(report.defects) == {"missing": 2, "orphaned": 1}
            assert report.samples["orphaned"] == [{"source_b": 77, "source_a": "x"}]
        assert vectorize.verify(embedded=query).pending == 3
        while vectorize.process(write):
            pass
        report = vectorize.verify(embedded=query, rows=2)
        assert (report.ok, report.pending) == (True, 0)
        assert plain.value("select count(*) from mine where number = 77") == 0


@pytest.mark.parametrize(
    ("query", "reason"),
    [
        ("select number from {}.mine", "in its order: b, a"),
        ("select * from {}.nothing", "does not exist"),
        ("selekt", "syntax error"),
        ("select letter, number from {}.mine", "in its order: b, a"),
    ],
)
def test_a_query_that_does_not_fit_is_refused(
    attach: Attach, shared_url: str, query: str, reason: str
) -> None:
    plain = attach(PAIRS, id=("b", "a"))
    plain.sql("insert into mine values (1, 'x', '')")
    with pgvectorizer.Vectorize(
        shared_url, "post", schema_name=plain.schema, work_queue_table_name=plain.schema
    ) as vectorize:
        vectorize.register()
        with pytest.raises(ConfigurationError, match=reason):
            vectorize.verify(embedded=query.format(plain.schema))


def test_such_a_query_is_for_callbacks(post: Subject, shared_url: str) -> None:
    with Database(shared_url) as database:
        verifier = verifier_of(database, post.vectorizer.name)
        with pytest.raises(ConfigurationError, match="in its own destination"):
            verifier.verify(repair=False, rows=10, embedded="select 1")
