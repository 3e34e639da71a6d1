# ruff: noqa: E501, ISC003 - the SQL of a test stands in one piece
"""Partitioned sources are captured by statement triggers, and nothing is missed for that."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import psycopg
import pytest
from subject import Subject

from vectorizer._sync.database import Database
from vectorizer._sync.upkeep import Upkeep

if TYPE_CHECKING:
    from collections.abc import Iterator

TREE = """
create table post (region int, id int, body text, n int default 0, primary key (region, id))
  partition by list (region);
create table one partition of post for values in (1);
create table two partition of post for values in (2) partition by range (id);
create table two_low partition of two for values from (0) to (500);
create table two_high partition of two for values from (500) to (1000);
create table odd (body text, gone int, n int default 0, id int not null, region int not null);
alter table odd drop gone;
alter table post attach partition odd for values in (3);
insert into post select r, n, 'text ' || r || ' ' || n
  from generate_series(1, 3) r, generate_series(1, 20) n
"""
LATE = """
create table late (like post including all);
alter table post attach partition late for values in (4);
create table deep (like post including all) partition by range (id);
create table deep_low partition of deep for values from (0) to (500);
alter table post attach partition deep for values in (5);
create table two_late partition of two for values from (1000) to (2000)
"""


@pytest.fixture
def post(vectorizer_url: str) -> Iterator[Subject]:
    """Partitions of partitions, one with columns in another order; others came after the install."""
    with Subject(vectorizer_url, id=("region", "id"), key=["region", "id"]) as subject:
        subject.script(TREE)
        subject.vectorizer.install()
        subject.settle()
        subject.script(LATE)
        yield subject


CHANGES = {
    "through the root": "insert into post values (1, 100, 'a'), (2, 600, 'b'), (3, 1, 'c') "
    "on conflict (region, id) do update set body = excluded.body",
    "directly into a part": "insert into one values (1, 101, 'direct')",
    "into a part of a part": "insert into two values (2, 601, 'deep')",
    "into its own part": "insert into two_high values (2, 602, 'deeper')",
    "into columns of another order": "insert into odd (id, region, body) values (102, 3, 'odd')",
    "into a late part": "insert into late values (4, 1, 'late')",
    "through the root into a late part": "insert into post values (4, 2, 'late'), (5, 1, 'deep')",
    "into a late part of a part": "insert into two_late values (2, 1001, 'late')",
    "into a late tree": "insert into deep values (5, 2, 'x'); insert into deep_low values (5, 3, 'y')",
    "in several parts of one statement": "with a as (insert into one values (1, 103, 'a')), "
    "b as (insert into late values (4, 3, 'b') returning id), c as (delete from two_low where id = 3)"
    " insert into odd (id, region, body) select id + 100, 3, 'c' from b",
    "moved": "update post set region = 2, id = 50 where region = 1 and id = 1",
    "moved by the key": "update two set id = id + 600 where id = 5",
    "moved and changed": "update post set region = 1, id = id + 300, body = 'moved' where region = 3",
    "moved to a late part": "update post set region = 4 where region = 1 and id in (6, 7)",
    "moved from a late part": "insert into late values (4, 9, 'x'); "
    "update post set region = 1, id = 900 where region = 4 and id = 9",
    "moved by MERGE": "merge into post p using (values (1, 8), (2, 9), (3, 999)) v (r, i) "
    "on p.region = v.r and p.id = v.i "
    "when matched and r = 1 then update set region = 3, id = 800 when matched then delete "
    "when not matched then insert (region, id, body) values (r, i, 'merged')",
    "deleted through the root": "delete from post where id % 3 = 0",
    "deleted directly": "delete from one where id = 2; delete from odd where id = 4; "
    "delete from two_low where id = 6",
    "updated everywhere": "update post set body = body || '!'",
    "updated directly": "update only odd set body = 'o'; update two set body = 't' where id = 7",
    "truncated": "truncate two_low; insert into two_low values (2, 1, 'again')",
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_is_captured(post: Subject, change: str) -> None:
    post.script(CHANGES[change])
    post.settle()


def test_an_untracked_change_appends_nothing(post: Subject) -> None:
    post.sql("update post set n = n + 1")
    assert post.logged() == 0


def test_one_entry_a_row(post: Subject) -> None:
    post.sql("insert into post select 1, n, 'x' from generate_series(200, 299) n")
    assert post.logged() == 100
    post.sql("delete from one where id >= 200")
    assert post.logged() == 200


def test_rows_move_in_every_kind_of_transaction(post: Subject) -> None:
    post.script(
        "begin; savepoint a; update post set region = 2, id = 700 where region = 1 and id = 1;"
        "rollback to a; update post set region = 2, id = 701 where region = 1 and id = 2;"
        "insert into post values (1, 500, 'after'); commit"
    )
    post.settle()
    post.sql("create sequence numbers start 20000")
    # What a function does while the statement runs that fires it.
    post.db.execute(
        "create function beside() returns trigger language plpgsql as $$begin"
        " if pg_trigger_depth() = 1 then insert into one values (1, new.id + 5000, 'beside');"
        " update post set region = 3, id = nextval('numbers') where region = 1 and id = new.id + 5000; end if;"
        " return new; end$$"
    )
    post.sql(
        "create trigger beside before insert or update on post for each row"
        " execute function beside()"
    )
    post.sql("insert into post values (1, 510, 'with company')")
    post.sql("update post set region = 2 where region = 1 and id = 510")
    post.settle()


def test_a_cascade_reaches_the_parts(post: Subject) -> None:
    post.script(
        "create table author (id int primary key); insert into author select generate_series(1, 9);"
        "alter table post add author int references author on delete cascade on update cascade;"
        "update post set author = id where id < 10; delete from author where id in (2, 3)"
    )
    post.settle()


def test_upkeep_brings_late_parts_to_the_others(post: Subject) -> None:
    post.sql("insert into post values (4, 1, 'twice until then')")
    assert post.logged() == 2
    post.settle()
    post.sql("update vectorizer.upkeep set due_at = now() where task = 'follow'")
    with Database(post.url) as database:
        assert [chore.task for chore in Upkeep(database).run_due()] == ["follow"]
    post.settle()
    post.sql("insert into post values (4, 2, 'once'), (5, 2, 'once')")
    post.sql("insert into late values (4, 3, 'once')")
    post.sql("insert into deep_low values (5, 3, 'once')")
    assert post.logged() == 4
    post.settle()
    post.sql("update post set region = 4, id = id + 500 where region = 5")
    post.settle()
    assert post.vectorizer.status()["warnings"] == []


def test_a_part_that_leaves_and_comes_back(post: Subject) -> None:
    post.sql("alter table post detach partition one")
    post.sql("insert into one values (1, 400, 'away')")
    post.sql("alter table post attach partition one for values in (1)")
    post.sql("insert into one values (1, 401, 'back')")
    post.sql("update post set region = 2 where region = 1 and id = 401")
    post.vectorizer.verify(repair=True)
    post.settle()


def test_nothing_is_left_after_an_uninstall(post: Subject) -> None:
    post.vectorizer.uninstall(drop_embeddings=True)
    assert (
        post.sql("select tgrelid::regclass, tgname from pg_trigger where tgname ~ 'vectorizer'")
        == []
    )
    assert post.sql("select proname from pg_proc where proname ~ '^post_'") == []


@pytest.mark.parametrize("seed", range(3))
def test_whatever_happens(post: Subject, seed: int) -> None:
    """Random writes through random relations, each statement alone or several in a transaction."""
    seed = random.Random(seed).randrange(1_000_000)  # noqa: S311 - no secret
    print("seed", seed)
    dice = random.Random(seed)  # noqa: S311
    relations = {1: "one", 2: "two", 3: "odd", 4: "late", 5: "deep"}
    for round_ in range(60):
        statements = []
        for _ in range(dice.choice((1, 1, 2, 4))):
            region = dice.randint(1, 5)
            target = dice.choice(("post", relations[region]))
            key = dice.randrange(400)
            moved = f"region = {dice.randint(1, 5)}, id = id + {dice.randint(0, 90)}"
            kinds = [
                f"insert into {target} (region, id, body) select {region}, n, 'r{round_}'"
                + f" from generate_series({key}, {key + 5}) n on conflict do nothing",
                f"delete from {target} where region = {region} and id % 7 = {key % 7}",
                f"update {target} set body = body || '.' where id between {key} and {key + 30}",
                f"update post set {moved} where region = {region} and id between {key} and {key + 2}",
                f"update {target} set n = n + 1",
            ]
            statements.append(dice.choice(kinds))
        try:
            with post.db.transaction():
                for statement in statements:
                    post.sql(statement)
                if dice.random() < 0.1:
                    raise psycopg.Rollback
        except psycopg.Error:
            continue  # a key that exists, or no partition for it
        if round_ % 20 == 19:
            post.settle()
    post.settle()
