# ruff: noqa: ISC004 - tests write the SQL they name, and some of it is long
"""Every kind of change of every kind of table is followed.

`Subject.settle` ends each test: it drains the queue, asks `verify`, and compares source and
destination by a query of its own.
"""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING

import psycopg
import pytest
from psycopg.conninfo import make_conninfo
from subject import Subject

from vectorizer import Vectorizer, embedded
from vectorizer.errors import VectorizerError
from vectorizer.testing import FakeEmbedder
from vectorizer.testing.pytest_plugin import database, template

if TYPE_CHECKING:
    from collections.abc import Iterator

    from subject import Attach

ROWS = "insert into post values (1, 'one'), (2, 'two'), (3, 'three'), (4, 'four')"
FOUR = {1: "one", 2: "two", 3: "three", 4: "four"}

# The same changes reach us by statement triggers on a plain table, by row triggers otherwise.
SHAPES = {
    "plain": "create table post (id int primary key, body text, views int default 0)",
    "partitioned": """
        create table post (id int primary key, body text, views int default 0)
          partition by range (id);
        create table post_low partition of post for values from (0) to (3);
        create table post_high partition of post for values from (3) to (100)""",
    "inherited": """
        create table post (id int primary key, body text, views int default 0);
        create table post_child () inherits (post)""",
    "always": "create table post (id int primary key, body text, views int default 0)",
}

CHANGES = {
    "insert": ("insert into post values (5, 'five'), (6, 'six')", {**FOUR, 5: "five", 6: "six"}),
    "update": ("update post set body = body || '!' where id < 3", {**FOUR, 1: "one!", 2: "two!"}),
    "delete": ("delete from post where id in (1, 3)", {2: "two", 4: "four"}),
    "delete all": ("delete from post", {}),
    "upsert": (
        "insert into post values (1, 'uno'), (5, 'cinco') "
        "on conflict (id) do update set body = excluded.body",
        {**FOUR, 1: "uno", 5: "cinco"},
    ),
    "upsert nothing": (
        "insert into post values (1, 'uno'), (5, 'cinco') on conflict do nothing",
        {**FOUR, 5: "cinco"},
    ),
    "merge": (
        "merge into post p using (values (1, 'uno'), (2, null), (5, 'cinco')) as n (id, body) "
        "on n.id = p.id when matched and n.body is null then delete "
        "when matched then update set body = n.body "
        "when not matched then insert (id, body) values (n.id, n.body)",
        {1: "uno", 3: "three", 4: "four", 5: "cinco"},
    ),
    "key": ("update post set id = 12 where id = 2", {1: "one", 12: "two", 3: "three", 4: "four"}),
    "key and text": (
        "update post set id = 12, body = 'zwei' where id = 2",
        {1: "one", 12: "zwei", 3: "three", 4: "four"},
    ),
    "keys shifted": (
        "update post set id = id + 20",
        {21: "one", 22: "two", 23: "three", 24: "four"},
    ),
    "swap": (
        "begin; update post set id = 0 where id = 1; update post set id = 1 where id = 4; "
        "update post set id = 4 where id = 0; commit",
        {**FOUR, 1: "four", 4: "one"},
    ),
    "replaced in one transaction": (
        "begin; delete from post where id = 1; insert into post values (1, 'again'); commit",
        {**FOUR, 1: "again"},
    ),
    "replaced in two transactions": (
        "delete from post where id = 1; insert into post values (1, 'again')",
        {**FOUR, 1: "again"},
    ),
    "born and gone": (
        "begin; insert into post values (9, 'nine'); delete from post where id = 9; commit",
        FOUR,
    ),
    "text gone": ("update post set body = null where id = 1", {2: "two", 3: "three", 4: "four"}),
    "blank": ("update post set body = ' ' where id = 1", {2: "two", 3: "three", 4: "four"}),
    "returning": (
        "with d as (delete from post where id = 1 returning *) "
        "insert into post select id + 10, body from d",
        {2: "two", 3: "three", 4: "four", 11: "one"},
    ),
    "truncate": ("truncate post", {}),
    "truncate and reload": (
        f"begin; truncate post; {ROWS}; update post set body = 'new' where id = 4; commit",
        {**FOUR, 4: "new"},
    ),
    "reload and truncate": (
        "begin; insert into post values (5, 'five'); truncate post; commit",
        {},
    ),
    "truncate, then insert": ("truncate post; insert into post values (2, 'two')", {2: "two"}),
    "truncate under repeatable read": (
        "begin isolation level repeatable read; select count(*) from post; truncate post; "
        "insert into post values (7, 'seven'); commit",
        {7: "seven"},
    ),
    "serializable": (
        "begin isolation level serializable; update post set body = 'uno' where id = 1; commit",
        {**FOUR, 1: "uno"},
    ),
    "rollback": (
        "begin; update post set body = 'x'; delete from post where id = 1; rollback",
        FOUR,
    ),
    "truncate rolled back": ("begin; truncate post; rollback", FOUR),
    "savepoint": (
        "begin; update post set body = 'uno' where id = 1; savepoint s; "
        "update post set body = 'lost' where id in (1, 2); delete from post where id = 3; "
        "rollback to s; update post set body = 'vier' where id = 4; commit",
        {**FOUR, 1: "uno", 4: "vier"},
    ),
}


@pytest.fixture(params=SHAPES)
def post(request: pytest.FixtureRequest, attach: Attach) -> Subject:
    """Four rows of every shape of table, embedded."""
    shape = request.param
    subject = attach(f"{SHAPES[shape]}; {ROWS}", always=shape == "always")
    assert subject.embedded() == FOUR
    return subject


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_is_followed(post: Subject, change: str) -> None:
    script, expected = CHANGES[change]
    post.script(script)
    post.settle()
    assert post.embedded() == expected


def test_copy(post: Subject) -> None:
    with post.db.cursor().copy("copy post (id, body) from stdin") as copy:
        for number in range(5, 50):
            copy.write_row((number, f"text {number}"))
    post.settle()
    assert post.embedded() == FOUR | {number: f"text {number}" for number in range(5, 50)}


@pytest.mark.parametrize(
    "script",
    [
        "update post set views = views + 1",
        "update post set body = body, views = 7",
        "update post set id = id, body = body",
        "insert into post values (1, 'uno') on conflict (id) do update set views = 8",
        "insert into post values (1, 'uno') on conflict do nothing",
        "update post set body = 'x' where false",
        "begin; update post set body = 'x'; rollback",
        "begin; savepoint s; delete from post; rollback to s; commit",
    ],
)
def test_what_changes_nothing_is_not_logged(post: Subject, script: str) -> None:
    post.script(script)
    assert post.logged() == 0
    assert post.settle().rows == 0
    assert post.embedder.texts == 4


def test_reloading_the_same_rows_embeds_nothing(post: Subject) -> None:
    post.script(f"begin; truncate post; {ROWS}; commit")
    post.settle()
    assert post.embedder.texts == 4
    assert post.embedded() == FOUR


def test_statements_that_touch_no_row_append_nothing(attach: Attach) -> None:
    post = attach(f"{SHAPES['plain']}; {ROWS}")
    post.script("delete from post where false; insert into post select 9, 'x' where false")
    assert post.logged() == 0


# Other ways to a row


def test_foreign_key_cascade(attach: Attach) -> None:
    comment = attach(
        """
        create table author (id int primary key);
        insert into author values (1), (2), (3), (4);
        create table comment (
          id int primary key,
          author int references author on delete cascade on update cascade,
          body text, signed int references author on delete set null);
        insert into comment values (1, 1, 'one', 2), (2, 2, 'two', 2), (3, 3, 'three', 3)""",
        table="comment",
        metadata=["author"],
    )
    comment.script("update author set id = 10 where id = 1; delete from author where id = 2")
    comment.settle()
    assert comment.embedded() == {1: "one", 3: "three"}
    assert comment.sql("select metadata from comment_embedding order by 1") == [
        ({"author": 3},),
        ({"author": 10},),
    ]
    comment.script("truncate author cascade")
    comment.settle()
    assert comment.embedded() == {}


def test_updatable_view(attach: Attach) -> None:
    post = attach(
        f"{SHAPES['plain']}; {ROWS}; create view recent as select body as text, id from post"
    )
    post.script(
        "insert into recent values ('five', 5); update recent set text = 'uno' where id = 1; "
        "delete from recent where id = 2"
    )
    post.settle()
    assert post.embedded() == {1: "uno", 3: "three", 4: "four", 5: "five"}


def test_keys_swapped_in_one_statement(attach: Attach) -> None:
    post = attach(
        f"create table post (id int primary key deferrable initially deferred, body text); {ROWS}"
    )
    post.script("update post set id = 5 - id")
    post.settle()
    assert post.embedded() == {4: "one", 3: "two", 2: "three", 1: "four"}


def test_a_cursor_and_a_function_write(attach: Attach) -> None:
    post = attach(f"{SHAPES['plain']}; {ROWS}")
    post.db.execute(
        """
        do $$
        declare
          c cursor for select * from post order by id for update;
        begin
          for r in c loop
            begin
              update post set body = body || '?' where current of c;
              if r.id = 2 then raise exception 'undo this one'; end if;
            exception when raise_exception then null;
            end;
          end loop;
        end $$"""
    )
    post.settle()
    assert post.embedded() == {1: "one?", 2: "two", 3: "three?", 4: "four?"}


def test_before_triggers_that_rewrite_columns(attach: Attach) -> None:
    post = attach(
        f"""
        {SHAPES["plain"]};
        create function shout() returns trigger language plpgsql as $$
        begin
          if new.views = 13 then return null; end if;
          new.body := upper(new.body);
          new.id := case when new.id > 1000 then new.id - 1000 else new.id end;
          return new;
        end $$;
        create trigger shout before insert or update on post for each row execute function shout();
        {ROWS}"""
    )
    # The statement names no tracked column: only the trigger changes one.
    post.script("alter table post disable trigger shout; update post set body = lower(body)")
    post.script("alter table post enable trigger shout; update post set views = 1 where id < 3")
    post.script("insert into post values (1007, 'seven'); update post set views = 13 where id = 3")
    post.settle()
    assert post.embedded() == {1: "ONE", 2: "TWO", 3: "three", 4: "four", 7: "SEVEN"}


GENERATED = """
create table post (
  id int primary key, title text,
  body text generated always as ('about ' || title) {kind});
insert into post values (1, 'cats'), (2, 'dogs')"""


@pytest.mark.parametrize("kind", ["stored", "virtual"])
def test_generated_column(attach: Attach, vectorizer_url: str, kind: str) -> None:
    with psycopg.connect(vectorizer_url) as connection:
        if kind == "virtual" and connection.info.server_version < 18_00_00:
            pytest.skip("virtual generated columns came with PostgreSQL 18")
    post = attach(GENERATED.format(kind=kind))
    post.script("update post set title = 'mice' where id = 1; insert into post values (3, 'cows')")
    post.settle()
    assert post.embedded() == {1: "about mice", 2: "about dogs", 3: "about cows"}


# Keys

KEYS: dict[str, tuple[str, list[str]]] = {
    "int": ("int", ["-1", "0", "2147483647", "5", "6"]),
    "smallint": ("smallint", ["-1", "0", "32767", "5", "6"]),
    "bigint": ("bigint", ["9223372036854775807", "2147483648", "-9007199254740993", "4", "5"]),
    "uuid": ("uuid", [f"'00000000-0000-4000-8000-00000000000{n}'" for n in range(5)]),
    "text": ("text", ["''", """E'a\\'\\\\"\\n{}%s'""", "'ünï💡'", "'b'", "'B'"]),
    "text C": ('text collate "C"', ["'é'", "'Z'", "'a'", "'e'", "' '"]),
    "varchar": ("varchar(20)", ["'x'", "'x '", "'null'", "'NULL'", "'y'"]),
    "char": ("char(8)", ["'longer'", "'x'", "'12345678'", "'zz'", "''"]),
    "name": ("name", ["'n'", "'m'", "'o'", "'p'", "'q'"]),
    "bit": ("bit(4)", ["'1010'", "'0000'", "'1111'", "'0001'", "'1000'"]),
    "boolean": ("boolean", ["true", "false"]),
    "timestamptz": (
        "timestamptz",
        [
            "'2024-01-01 00:00:00.123456+05'",
            "'2024-01-01 00:00:00.123457+05'",
            "'infinity'",
            "'-infinity'",
            "'0044-03-15 12:00:00 BC'",
        ],
    ),
    "timestamp": (
        "timestamp",
        ["'2024-01-01 00:00:00.000001'", "'infinity'", "'2024-03-31 02:30'"],
    ),
    "date": ("date", ["'2024-02-29'", "'infinity'", "'0001-01-01 BC'"]),
    "interval": ("interval", ["'1 day'", "'23 hours'", "'1 mon -3 days 00:00:00.000001'"]),
    "numeric": ("numeric", ["1.00", "1.5", "'NaN'", "123456789012345678901234567890.5", "-0.10"]),
    "float8": ("float8", ["0.1", "'NaN'", "'infinity'", "1e300", "'-0'"]),
    "bytea": ("bytea", ["''", r"'\\x00ff'", r"'\\x5c27'"]),
    "inet": ("inet", ["'10.0.0.1'", "'::1'", "'10.0.0.0/8'"]),
    "enum": ("mood", ["'sad'", "'happy'", "'very \"odd\"'"]),
    "domain": ("positive", ["1", "2", "3000000000"]),
    "array": ("int[]", ["'{1,2}'", "'{}'", "'{2,1}'", "'{{1,2},{3,null}}'"]),
    "range": ("int4range", ["'[1,2)'", "'empty'", "'[2,)'"]),
    "jsonb": ("jsonb", ["'{}'", "'1'", "'\"1\"'", """'{"a": [1.0, null]}'"""]),
    "composite": ("pair", ["'(1,a)'", "'(1,)'", """'(,"x,y")'"""]),
}
KEY_TYPES = """
create type mood as enum ('sad', 'happy', 'very "odd"');
create domain whole as bigint;
create domain positive as whole check (value > 0);
create type pair as (n int, t text);
"""


@pytest.mark.parametrize("kind", KEYS)
def test_key(attach: Attach, kind: str) -> None:
    type_, values = KEYS[kind]
    rows = ", ".join(f"({value}, 'text {n}')" for n, value in enumerate(values[1:]))
    post = attach(
        f"{KEY_TYPES}; create table post (id {type_} primary key, body text);"
        f"insert into post values {rows}"
    )
    assert post.logged() == 0
    insert = f"insert into post values ({values[0]}, 'inserted')"
    for change in (insert, f"update post set body = 'changed' where id = {values[1]}::{type_}"):
        post.sql(change)
        post.settle()
    assert post.texts()[:2] == ["changed", "inserted"]
    post.sql(f"delete from post where id = {values[1]}::{type_}")
    post.sql(f"update post set id = {values[1]} where id = {values[0]}::{type_}")
    assert post.settle().rows == 2
    assert post.texts()[0] == "inserted"
    post.sql("truncate post")
    post.settle()
    assert post.texts() == []


def test_numeric_key_that_only_looks_different(attach: Attach) -> None:
    post = attach(
        "create table post (id numeric primary key, body text);"
        "insert into post values (1.0, 'one'), (2.00, 'two')"
    )
    post.script(
        "update post set id = 1.00 where id = 1; update post set body = 'zwei' where id = 2"
    )
    post.settle()
    assert post.embedder.texts == 3
    post.script("delete from post where id = 1.0000; delete from post where id = 2")
    post.settle()
    assert post.embedded() == {}


def test_numeric_text_column_that_only_looks_different(attach: Attach) -> None:
    post = attach(
        "create table post (id int primary key, body text, price numeric);"
        "insert into post values (1, 'one', 1.0)",
        template="{chunk} costs {price}",
        text="s.body || ' costs ' || s.price",
    )
    post.db.execute("update post set price = 1.00")
    assert post.settle().embedded == 1
    assert post.embedded() == {1: "one costs 1.00"}


@pytest.mark.parametrize(
    ("key", "row"),
    [
        ("a, b", "(1, 'x', 1, {})"),
        ("b, a", "(1, 'x', 1, {})"),
        ("c, b, a", "(1, 'x', 1.50, {})"),
        ("u, c, m", "(1, 'x', 1.50, {}, gen_random_uuid(), 'happy')"),
        ("t, a", "(1, 'x', 1.50, {}, gen_random_uuid(), 'happy', '2024-05-05 05:05:05.555555+00')"),
    ],
)
def test_composite_key(attach: Attach, key: str, row: str) -> None:
    names = key.split(", ")
    post = attach(
        f"""{KEY_TYPES};
        create table post (
          a bigint, b text, c numeric, body text, u uuid default gen_random_uuid(),
          m mood default 'sad', t timestamptz default now(), primary key ({key}));
        insert into post values {row.format("'one'")};
        insert into post (a, b, c, body) select n, 'k' || n, n / 7.0, 'text ' || n
        from generate_series(10, 60) n""",
        id=names,
    )
    assert len(post.embedded()) == 52
    post.script(
        "update post set body = body || '!' where a > 40; update post set a = -a, b = b || '_' "
        "where a < 20; delete from post where a between 20 and 30"
    )
    post.settle()
    assert len(post.embedded()) == 41
    report = post.vectorizer.verify(rows=3)
    assert report.ok
    assert report.checked == 41


@pytest.mark.parametrize(
    ("index", "order"),
    [
        ('create unique index on post (Slug, "Lang")', "slug Lang"),
        ('create unique index on post ("Lang", Slug) include (body)', "Lang slug"),
        ('alter table post add unique (Slug, "Lang") deferrable', "slug Lang"),
        (
            'create unique index on post (slug, "Lang", id);'
            'create unique index on post (lower(slug), "Lang");'
            'create unique index on post ("Lang", slug)',
            "Lang slug",
        ),
    ],
)
def test_unique_index_as_key(attach: Attach, index: str, order: str) -> None:
    post = attach(
        f"""create table post (id int, slug text not null, "Lang" text not null, body text);
        {index}; insert into post values (1, 'a', 'de', 'eins'), (1, 'a', 'en', 'one')""",
        key=["Lang", "slug"],
        id=order.split(),
    )
    post.sql("update post set body = 'uno', \"Lang\" = 'es' where \"Lang\" = 'en'")
    post.settle()
    assert post.texts() == ["eins", "uno"]


# Names

PERCENT = "per%cent %s %(x)s"
ODD = [
    "Post",
    "select",
    "a b",
    'q"uote',
    "it's",
    PERCENT,
    "{brace} {}",
    "日本語",
    "$body$",
]


@pytest.mark.parametrize("name", [*ODD, "x" * 63, "é" * 31 + "x"])
def test_names(attach: Attach, name: str) -> None:
    quoted = '"' + name.replace('"', '""') + '"'
    body = '"' + name[:3].replace('"', '""') + '_b"'
    more = '"n' + name[:9].replace('"', '""') + '"'
    post = attach(
        f"""create schema {quoted};
        create table {quoted}.{quoted} ({quoted} int primary key, {body} text, {more} text);
        insert into {quoted}.{quoted} values (1, 'one'), (2, 'two')""",
        table=name,
        schema=name,
        name=name,
        id=(name,),
        body=f"{name[:3]}_b",
        metadata=[f"n{name[:9]}"],
    )
    for change in (
        f"insert into {quoted}.{quoted} values (3, 'three')",
        f"update {quoted}.{quoted} set {quoted} = 4 where {quoted} = 1",
        f"delete from {quoted}.{quoted} where {quoted} = 2",
    ):
        post.sql(change)
    post.settle()
    assert post.embedded() == {3: "three", 4: "one"}
    assert post.vectorizer.search("three", limit=1)[0].contents == "three"
    post.sql(f"truncate {quoted}.{quoted}")
    post.settle()
    post.vectorizer.suspend()
    post.vectorizer.resume()
    post.sql(f"insert into {quoted}.{quoted} values (5, 'five')")
    post.settle()
    assert post.embedded() == {5: "five"}
    post.vectorizer.uninstall(drop_embeddings=True)


OURS = [
    *(
        "seq",
        "lease",
        "source_id",
        "time",
        "kind",
        "n",
        "k",
        "at",
        "hash",
        "row",
        "chunk",
        "contents",
    ),
    *(
        "changed",
        "old",
        "new",
        "r",
        "s",
        "key",
        "source_hash",
        "error",
        "locked_id",
        "ctid_",
        "name",
    ),
]


def test_columns_named_like_ours(attach: Attach) -> None:
    columns = ", ".join(f"\"{name}\" text default 'x'" for name in OURS if name != "contents")
    post = attach(
        f"""create table post ({columns}, contents text, primary key ("seq", "hash", "source_id"));
        insert into post (seq, contents) values ('1', 'one'), ('2', 'two')""",
        id=("seq", "hash", "source_id"),
        body="contents",
        metadata=OURS[:-1],
        template="{name} {chunk}",
        text="s.name || ' ' || s.contents",
    )
    post.script(
        "insert into post (seq, contents) values ('3', 'three'); delete from post where seq = '1';"
        "update post set changed = 'y', hash = 'z' where seq = '2'"
    )
    post.settle()
    assert post.embedded() == {("2", "z", "x"): "x two", ("3", "x", "x"): "x three"}
    assert (
        post.value("select metadata ->> 'changed' from post_embedding where source_seq = '2'")
        == "y"
    )


@pytest.mark.parametrize("table", ["changed", "old", "new", "log", "r", "vectorizer"])
def test_tables_named_like_ours(attach: Attach, table: str) -> None:
    post = attach(
        f'create table "{table}" (id int primary key, "{table}" text);'
        f"insert into \"{table}\" values (1, 'one'), (2, 'two')",
        table=table,
        body=table,
    )
    post.script(
        f'insert into "{table}" values (3, \'three\'); delete from "{table}" where id = 1;'
        f'update "{table}" set id = 4 where id = 2'
    )
    post.settle()
    assert post.embedded() == {3: "three", 4: "two"}


# Columns


def test_columns_of_any_type_are_tracked(attach: Attach) -> None:
    post = attach(
        """
        create type pair as (n int, t text);
        create table post (
          id int primary key, body text, j json, b jsonb, p point, a int[], v tsvector, c pair,
          d bytea, f float8, r int4range, i interval, m money, x bit varying);
        insert into post values (
          1, 'one', '{"a":1}', '{"a":1}', '(1,2)', '{1,2}', 'a b', '(1,x)', 'ab', 'NaN', '[1,3)',
          '1 day', 1, '101')""",
        metadata=list("jbpavcdfrimx"),
    )
    for change in (
        """j = '{"a": 1}'""", "b = '[1.0]'", "p = '(1,3)'", "a = '{2,1}'", "v = 'a c'",
        "c = '(1,y)'", "d = 'ac'", "f = '-0'", "r = 'empty'", "i = '24 hours'", "m = 2", "x = '1'",
    ):  # fmt: skip
        post.sql(f"update post set {change}")
        assert post.logged() == 1, change
        post.settle()
        post.sql(f"update post set {change}")
        assert post.logged() == 0, change
    assert post.embedder.texts == 1
    metadata = post.value("select metadata from post_embedding")
    assert {name: metadata[name] for name in "abjp"} == {
        "a": [2, 1], "b": [1.0], "j": {"a": 1}, "p": "(1,3)",
    }  # fmt: skip


def test_citext(attach: Attach, shared_url: str) -> None:
    with psycopg.connect(shared_url, autocommit=True) as connection:
        try:
            connection.execute("create extension if not exists citext")
        except psycopg.Error as error:
            pytest.skip(f"no extension citext on this server: {error.diag.message_primary}")
    post = attach(
        "create table post (id citext primary key, body citext);"
        "insert into post values ('A', 'one'), ('b', 'two')"
    )
    post.script(
        "update post set body = 'ONE' where id = 'a'; update post set id = 'B' where id = 'b';"
        "insert into post values ('c', 'three')"
    )
    assert post.vectorizer.run().embedded == 2
    assert post.vectorizer.verify().ok
    assert post.texts() == ["ONE", "three", "two"]


def test_xml(attach: Attach) -> None:
    try:
        post = attach(
            "create table post (id int primary key, body xml);"
            "insert into post values (1, '<p>one</p>'), (2, '<p>two</p>')"
        )
    except psycopg.errors.FeatureNotSupported as error:
        pytest.skip(f"this server knows no xml: {error}")
    post.script("update post set body = '<p>uno</p>' where id = 1; update post set body = body")
    post.settle()
    assert post.texts() == ["<p>two</p>", "<p>uno</p>"]


def test_large_values_out_of_line(attach: Attach) -> None:
    post = attach(
        "create table post (id int primary key, body text, title text, views int default 0);"
        "alter table post alter title set storage external;"
        "insert into post select n, 'text ' || n, repeat(md5(n::text), 1000)"
        " from generate_series(1, 3) n",
        metadata=["title"],
    )
    post.sql("update post set views = 1, title = title")
    assert post.logged() == 0
    post.sql("update post set title = title || 'x' where id = 2")
    post.settle()
    assert (
        post.value("select length(metadata ->> 'title') from post_embedding where source_id = 2")
        == 32_001
    )


# Which rows are to be seen


def test_a_row_is_published_and_unpublished(attach: Attach) -> None:
    post = attach(
        "create table post (id int primary key, body text, published timestamptz);"
        "insert into post values (1, 'one', null), (2, 'two', '2024-01-01')",
        time_column="published",
        visible="published is not null",
    )
    assert post.embedded() == {2: "two"}
    post.sql("update post set published = '2024-06-01 12:00:00.123456+00' where id = 1")
    post.sql("update post set published = null where id = 2")
    post.settle()
    assert post.embedded() == {1: "one"}
    post.sql("update post set published = '2020-01-01' where id = 1")
    assert post.settle().embedded == 0  # the vector has moved
    assert post.value("select time = '2020-01-01' from post_embedding")
    post.sql("update post set published = '2021-01-01' where id = 2")
    post.settle()
    assert post.embedded() == {1: "one", 2: "two"}


@pytest.mark.parametrize("shape", ["plain", "partitioned", "always"])
def test_rows_enter_and_leave_a_predicate(attach: Attach, shape: str) -> None:
    # `views` is tracked for the predicate alone.
    post = attach(
        f"{SHAPES[shape]}; {ROWS}; update post set views = id",
        where="views > 2 and body not like '%draft%' or views is null",
        visible="views > 2 and body not like '%draft%' or views is null",
        always=shape == "always",
    )
    assert post.embedded() == {3: "three", 4: "four"}
    assert post.embedder.texts == 2
    for change, expected in (
        ("update post set views = 9 where id = 1", {1: "one", 3: "three", 4: "four"}),
        ("update post set views = 0 where id = 3", {1: "one", 4: "four"}),
        ("update post set body = 'a draft' where id = 4", {1: "one"}),
        ("update post set views = null where id = 2", {1: "one", 2: "two"}),
        ("insert into post values (5, 'five', 1), (6, 'six', 6)", {1: "one", 2: "two", 6: "six"}),
        ("delete from post where id < 3", {6: "six"}),
    ):
        post.sql(change)
        post.settle()
        assert post.embedded() == expected
    post.sql("update post set views = views + 1 where id = 6")
    assert post.logged() == 1
    assert post.settle().embedded == 0


def test_predicate_and_time(attach: Attach) -> None:
    post = attach(
        """
        create table post (
          id int primary key, body text, at date, tenant text, deleted timestamptz);
        insert into post values
          (1, 'one', '2024-01-01', 'a'), (2, 'two', null, 'a'), (3, 'three', '2024-01-02', 'b')""",
        time_column="at",
        where="tenant = 'a' and deleted is null",
        visible="tenant = 'a' and deleted is null and at is not null",
    )
    assert post.embedded() == {1: "one"}
    post.sql("update post set tenant = 'a', at = coalesce(at, '2024-03-01')")
    post.settle()
    assert post.embedded() == {1: "one", 2: "two", 3: "three"}
    post.sql("update post set deleted = now() where id < 3")
    post.settle()
    assert post.embedded() == {3: "three"}


# Tables of several parts


PARTS = """
create table post (id int primary key, body text, views int default 0) partition by range (id);
create table low partition of post for values from (0) to (10);
create table other (views int, extra text, body text, id int not null, primary key (id));
alter table other drop column extra;
alter table post attach partition other for values from (10) to (20);
insert into post values (1, 'one'), (2, 'two'), (11, 'eleven'), (12, 'twelve')
"""
PARTED = {1: "one", 2: "two", 11: "eleven", 12: "twelve"}
LATER = """
create table later (body text, views int, id int not null);
alter table post attach partition later for values from (20) to (30);
create table nested partition of post for values from (30) to (50) partition by list (id);
create table leaf partition of nested default
"""


@pytest.mark.parametrize("always", [False, True])
@pytest.mark.parametrize("through", ["post", "the partition"])
@pytest.mark.parametrize("part", ["other", "later", "leaf"])
def test_writes_to_partitions(attach: Attach, part: str, through: str, always: bool) -> None:
    post = attach(PARTS, always=always)
    for statement in LATER.split(";"):
        post.sql(statement)
    number = {"other": 13, "later": 23, "leaf": 33}[part]
    table = part if through == "the partition" else "post"
    if always:
        post.sql("set session_replication_role = replica")
    post.sql(f"insert into {table} (id, body) values ({number}, 'a'), ({number + 1}, 'b')")
    post.settle()
    post.sql(f"update {table} set id = {number + 2} where id = {number}")
    post.sql(f"update {table} set body = 'c' where id = {number + 1}")
    post.sql(f"update {table} set views = 5")
    post.settle()
    assert post.embedded() == {**PARTED, number + 1: "c", number + 2: "a"}
    post.sql(f"delete from {table} where id >= {number}")
    post.settle()
    assert post.embedded() == PARTED


def test_a_row_moves_between_partitions(attach: Attach) -> None:
    post = attach(PARTS)
    post.script(
        "update post set id = 15, body = 'moved' where id = 1;"
        "update post set id = 3 where id = 11;"
        "insert into post values (12, 'x') on conflict (id) do update set body = 'zwölf'"
    )
    post.settle()
    assert post.embedded() == {15: "moved", 2: "two", 3: "eleven", 12: "zwölf"}


def test_truncate_of_one_partition(attach: Attach) -> None:
    post = attach(PARTS)
    post.sql("truncate other")
    post.settle()
    assert post.embedded() == {1: "one", 2: "two"}
    post.sql("truncate only low")
    post.settle()
    assert post.embedded() == {}


def test_truncate_of_a_partition_attached_later_is_found(attach: Attach) -> None:
    post = attach(PARTS)
    post.db.execute(LATER)
    post.sql("insert into post values (21, 'late')")
    post.settle()
    post.sql("truncate later")
    post.vectorizer.run()
    report = post.vectorizer.verify(repair=True)
    assert (dict(report.defects), report.repaired) == ({"orphaned": 1}, 1)
    post.settle()
    assert post.embedded() == PARTED
    post.sql("insert into post values (22, 'later still')")
    post.settle()
    post.sql("truncate post")  # reaches it
    post.settle()
    assert post.embedded() == {}


def test_inheritance(attach: Attach) -> None:
    post = attach(f"{SHAPES['inherited']}; {ROWS}; insert into post_child values (10, 'child')")
    assert post.embedded() == {**FOUR, 10: "child"}
    post.script(
        "insert into post_child values (11, 'another');"
        "update post set body = body || '!' where id in (4, 10);"
        "update post_child set id = 12 where id = 10; delete from only post where id = 1"
    )
    post.settle()
    assert post.embedded() == {2: "two", 3: "three", 4: "four!", 11: "another", 12: "child!"}
    post.sql("truncate post_child")
    post.settle()
    assert post.embedded() == {2: "two", 3: "three", 4: "four!"}
    post.sql("insert into post_child values (13, 'back')")
    post.settle()
    post.sql("truncate only post")
    post.settle()
    assert post.embedded() == {13: "back"}


# Who writes, and how


@pytest.mark.parametrize("shape", SHAPES)
def test_replica_role_needs_always(attach: Attach, shape: str) -> None:
    # What logical replication applies is written like this.
    post = attach(f"{SHAPES[shape]}; {ROWS}", always=shape == "always")
    post.script(
        "set session_replication_role = replica; insert into post values (5, 'five');"
        "update post set body = 'uno' where id = 1; delete from post where id = 2"
    )
    if shape == "always":
        post.settle()
        assert post.embedded() == {1: "uno", 3: "three", 4: "four", 5: "five"}
        post.script("truncate post; insert into post values (6, 'six')")
        post.settle()
        assert post.embedded() == {6: "six"}
    else:
        assert post.logged() == 0
        report = post.vectorizer.verify(repair=True)
        assert dict(report.defects) == {"missing": 1, "stale": 1, "orphaned": 1}
        post.settle()


@pytest.fixture
def role(shared_url: str) -> Iterator[str]:
    """A role without any right; everything it owns or may do goes after the test."""
    name = f"role_{uuid.uuid4().hex[:12]}"
    with psycopg.connect(shared_url, autocommit=True) as connection:
        connection.execute(f"create role {name} login")
        yield name
        connection.execute(f"drop owned by {name} cascade")
        connection.execute(f"drop role {name}")


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("search_path", ["", "pg_temp, pg_catalog", "hostile, pg_catalog"])
def test_an_application_role_without_rights(
    attach: Attach, role: str, shape: str, search_path: str
) -> None:
    post = attach(f"{SHAPES[shape]}; {ROWS}", always=shape == "always")
    post.db.execute(
        f"""
        revoke all on schema vectorizer from public;
        grant usage on schema {post.schema} to {role};
        grant select, insert, update, delete, truncate
          on all tables in schema {post.schema} to {role};
        create schema if not exists hostile;
        grant usage on schema hostile to public;
        create or replace function hostile.no(int, int) returns boolean language plpgsql as $$
        begin raise exception 'somebody else''s operator was called'; end $$;
        """
    )
    if not post.value("select to_regoperator('hostile.=(int, int)') is not null"):
        post.sql("create operator hostile.= (leftarg = int, rightarg = int, function = hostile.no)")
    with post.session() as application:
        application.execute(f"set role {role}")
        application.execute("select set_config('search_path', %s, false)", [search_path])
        table = f"{post.schema}.post"
        application.execute(f"insert into {table} values (5, 'five')")
        application.execute(f"update {table} set body = 'uno' where id operator(pg_catalog.=) 1")
        application.execute(f"update {table} set id = 20 where id operator(pg_catalog.=) 2")
        application.execute(f"delete from {table} where id operator(pg_catalog.=) 3")
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            application.execute("select * from vectorizer.vectorizer")
    post.settle()
    assert post.embedded() == {1: "uno", 4: "four", 5: "five", 20: "two"}
    with post.session() as application:
        application.execute(f"set role {role}")
        application.execute("select set_config('search_path', %s, false)", [search_path])
        application.execute(f"truncate {table}")
    post.settle()
    assert post.embedded() == {}


def test_a_trigger_function_cannot_be_borrowed(attach: Attach, role: str) -> None:
    # It runs with our rights: somebody who could put it on a table of theirs could fill our log.
    post = attach(f"{SHAPES['plain']}; {ROWS}")
    post.db.execute(f"grant usage on schema vectorizer to {role}")
    post.db.execute(f"grant create on schema {post.schema} to {role}")
    function = post.value(
        "select tgfoid::regproc::text from pg_trigger"
        " where tgrelid = 'post'::regclass and tgname like '%truncate'"
    )
    with post.session() as other:
        other.execute(f"set role {role}")
        other.execute(f"create table {post.schema}.mine (id int)")
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            other.execute(
                f"create trigger t after truncate on {post.schema}.mine "
                f"execute function {function}()"
            )


ROW_SECURITY = """
alter table post enable row level security;
create policy even on post using (id % 2 = 0)
"""


def test_row_security_does_not_blind_the_owner(attach: Attach, role: str) -> None:
    post = attach(f"{SHAPES['plain']}; {ROWS}; {ROW_SECURITY}")
    post.db.execute(f"grant usage on schema {post.schema} to {role}; grant all on post to {role}")
    with post.session() as application:
        application.execute(f"set role {role}")
        application.execute("update post set body = 'x'")
        application.execute("insert into post values (6, 'six')")
    post.settle()
    assert post.embedded() == {1: "one", 2: "x", 3: "three", 4: "x", 6: "six"}


@pytest.mark.parametrize("forced", [False, True])
def test_a_blinded_worker_gets_an_error(attach: Attach, role: str, forced: bool) -> None:
    post = attach(f"{SHAPES['plain']}; {ROWS}")
    post.db.execute(
        f"""{ROW_SECURITY};
        grant usage on schema vectorizer, {post.schema} to {role};
        grant all on all tables in schema vectorizer, {post.schema} to {role};
        grant execute on all functions in schema vectorizer to {role}"""
    )
    if forced:
        post.db.execute(
            f"alter table post force row level security; alter table post owner to {role}"
        )
    post.sql("update post set body = body || '!'")
    embedder = FakeEmbedder()
    with Vectorizer.connect(
        make_conninfo(post.url, user=role), post.vectorizer.name, embedder=embedder
    ) as worker:
        with pytest.raises(VectorizerError, match="row-level security"):
            worker.run()
        with pytest.raises(VectorizerError, match="row-level security"):
            worker.verify()
    assert embedder.calls == 0
    assert post.embedded() == FOUR
    if forced:
        post.sql("alter table post owner to current_user")
    status = post.vectorizer.status()
    if status["state"] == "paused":
        assert "row-level security" in str(status["reason"])
        post.vectorizer.resume()
    if forced:
        post.sql("alter table post no force row level security")
    post.settle()
    assert post.embedded() == {key: f"{text}!" for key, text in FOUR.items()}


def test_several_vectorizers_on_one_table(attach: Attach) -> None:
    titles = attach(
        "create table post (id int primary key, title text, body text);"
        "insert into post values (1, 'eins', 'one'), (2, 'zwei', 'two')",
        name="several_titles",
        body="title",
        destination="titles",
    )
    bodies = attach(name="several_bodies", destination="bodies", schema=titles.schema)
    titles.script(
        "update post set title = 'uno' where id = 1; update post set body = 'TWO' where id = 2"
    )
    assert (titles.logged(), bodies.logged()) == (1, 1)
    titles.settle()
    bodies.settle()
    assert (titles.embedded(), bodies.embedded()) == ({1: "uno", 2: "zwei"}, {1: "one", 2: "TWO"})
    titles.vectorizer.uninstall()
    bodies.script("update post set body = 'drei', title = 'drei', id = 3 where id = 2")
    bodies.settle()
    assert bodies.embedded() == {1: "one", 3: "drei"}


def test_no_phantom_and_none_lost_among_many_sessions(attach: Attach) -> None:
    post = attach(f"{SHAPES['plain']}; {ROWS}")
    with post.session() as open_long, post.session() as other:
        open_long.execute("begin; update post set body = 'late' where id = 1")
        other.execute("update post set body = 'early' where id = 2")
        post.vectorizer.run()
        assert post.embedded() == {**FOUR, 2: "early"}
        for number in range(10):
            other.execute("update post set body = %s where id = 3", [f"three {number}"])
            post.vectorizer.run()
        open_long.execute("commit")
    post.settle()
    assert post.embedded() == {1: "late", 2: "early", 3: "three 9", 4: "four"}


# Two-phase commit needs a setting that only a restart changes.


@pytest.fixture(scope="module")
def two_phase_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("two-phase")
    with embedded.start(folder, durable=False, version=None) as server:
        with psycopg.connect(server.url, autocommit=True) as connection:
            connection.execute("alter system set max_prepared_transactions = 5")
        server.stop()
    with embedded.start(folder, durable=False) as server:
        with template(server.url) as name, database(server.url, name) as url:
            yield url
        server.close(delete=True)


@pytest.mark.parametrize("end", ["commit", "rollback"])
def test_two_phase_commit(two_phase_url: str, end: str) -> None:
    with Subject(two_phase_url, schema=f"two_phase_{end}") as post:
        post.db.execute(f"create schema {post.schema}; {SHAPES['plain']}; {ROWS}")
        post.vectorizer.install()
        post.settle()
        post.script(
            "begin; update post set body = 'uno' where id = 1; delete from post where id = 2;"
            f"prepare transaction '{end}'"
        )
        assert post.settle().rows == 0
        post.sql("update post set body = 'drei' where id = 3")
        post.settle()
        assert post.embedded() == {**FOUR, 3: "drei"}
        post.sql(f"{end} prepared '{end}'")
        post.settle()
        done = {1: "uno", 3: "drei", 4: "four"} if end == "commit" else {**FOUR, 3: "drei"}
        assert post.embedded() == done
