"""Writers of the stress: threads that do to a table whatever SQL allows.

The table has no idea of a vectorizer. Half of the writers are a role without any right on our
schema and with an empty search_path.
"""

from __future__ import annotations

import random
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import psycopg
from psycopg import sql

__all__ = ["ROLE", "Keys", "Writer", "create", "fill"]

ROLE = "stress_app"
_PARTS = 4
_SCHEMA = """
create table section (id integer primary key);
insert into section select generate_series(1, 20);
create table source (
  key bigint primary key,
  title text,
  body text,
  tag text,
  touched integer not null default 0,
  published_at timestamptz,
  hidden boolean not null default false,
  section integer references section on delete cascade
) {partitioning};
{parts}
create view shown as select key, title, body from source where not hidden;
-- What a BEFORE trigger rewrites is what has to be embedded.
create function tidy() returns trigger language plpgsql as
  $$begin new.title := pg_catalog.btrim(new.title); return new; end$$;
create trigger tidy before insert or update on source for each row execute function tidy();
do $$begin create role {role}; exception when duplicate_object or unique_violation then end$$;
grant usage on schema public to {role};
grant all on all tables in schema public to {role};
"""
_COLUMNS = "key, title, body, tag, published_at, hidden, section"
_VALUES = "%s, %s, %s, %s, %s, %s, %s"
_WORDS = ("sea", "cat", "rain", "moon", "salt", "iron", "bread", "glass", "river", "stone", "paper")
_LEVELS = ("read committed", "read committed", "repeatable read", "serializable")
_FAR = 5_000_000_000  # beyond 2^31
_OUTSIDERS = 2  # every so manieth writer is the application's role
# What writers do to one another: serialization, deadlock, lock timeout, unique, foreign key.
_EXPECTED = {"40001", "40P01", "55P03", "23505", "23503"}

Cursor: TypeAlias = "psycopg.Cursor[Any]"


@dataclass(frozen=True)
class Keys:
    """Which keys there are: `hot` ones that everybody wants, `few` more, and `many` in bulk."""

    hot: int = 6
    few: int = 300
    many: int = 2500

    def one(self, dice: random.Random) -> int:
        """Return a key, often a hot one; every second lies beyond 2^31."""
        number = dice.randrange(self.hot if dice.random() < 0.3 else self.few)
        return number + (_FAR if number % 2 else 1)

    def bulk(self, dice: random.Random) -> tuple[int, int]:
        """Return the ends of a range of keys in bulk."""
        start = 1_000_000 + dice.randrange(max(1, self.many - 300))
        return start, start + dice.randrange(20, 300)


def create(connection: psycopg.Connection[Any], *, partitioned: bool) -> None:
    """Make the tables."""
    parts = (
        f"create table source_{n} partition of source"
        f" for values with (modulus {_PARTS}, remainder {n});"
        for n in range(_PARTS if partitioned else 0)
    )
    connection.execute(
        _SCHEMA.format(
            partitioning="partition by hash (key)" if partitioned else "",
            parts="".join(parts),
            role=ROLE,
        )
    )


def fill(connection: psycopg.Connection[Any], keys: Keys, dice: random.Random) -> None:
    """Fill the table with the rows that a backfill has to find."""
    with connection.cursor() as cursor:
        for key in {keys.one(dice) for _ in range(keys.few)}:
            cursor.execute(
                f"insert into public.source ({_COLUMNS}) values ({_VALUES})", _row(key, dice)
            )
        if keys.many:
            _insert_bulk(cursor, 1_000_000, 1_000_000 + keys.many)


def _text(dice: random.Random) -> str | None:
    if dice.random() < 0.04:
        return dice.choice([None, "", "  \n "])
    sentences = dice.randrange(1, 7)
    return " ".join(
        " ".join(dice.choices(_WORDS, k=dice.randrange(2, 6))) + "." for _ in range(sentences)
    )


def _time(dice: random.Random) -> str | None:
    if dice.random() < 0.1:
        return None
    return (
        f"2024-{dice.randrange(1, 7):02}-{dice.randrange(1, 28):02} 12:{dice.randrange(60):02}+00"
    )


def _row(key: int, dice: random.Random) -> list[Any]:
    return [
        key,
        dice.choice([None, "one", " two ", "three", "{braces}"]),
        _text(dice),
        dice.choice([None, "red", 'bl"ue', "grün"]),
        _time(dice),
        dice.random() < 0.1,
        dice.choice([None, dice.randrange(1, 21)]),
    ]


def _insert_bulk(cursor: Cursor, start: int, end: int) -> None:
    cursor.execute(
        f"insert into public.source ({_COLUMNS}) "
        "select n, 'bulk', 'row ' || n || '. many words here and there.', 'red', "
        "  '2024-03-01 00:00+00'::timestamptz + n %% 100 * interval '1 day', false, null "
        "from generate_series(%s::bigint, %s) n on conflict (key) do nothing",
        [start, end],
    )


# Operations: each gets a cursor inside a transaction, dice and the keys.


def insert(cursor: Cursor, dice: random.Random, keys: Keys) -> None:
    cursor.execute(
        f"insert into public.source ({_COLUMNS}) values ({_VALUES}) on conflict do nothing",
        _row(keys.one(dice), dice),
    )


def update(cursor: Cursor, dice: random.Random, keys: Keys) -> None:
    column, value = dice.choice(
        [("body", _text(dice)), ("title", " x "), ("tag", dice.choice(["red", "blue"]))]
    )
    cursor.execute(
        sql.SQL("update public.source set {} = %s where key = %s").format(sql.Identifier(column)),
        [value, keys.one(dice)],
    )


def update_untracked(cursor: Cursor, dice: random.Random, keys: Keys) -> None:
    cursor.execute(
        "update public.source set touched = touched + 1 where key = %s", [keys.one(dice)]
    )


def update_nothing(cursor: Cursor, dice: random.Random, keys: Keys) -> None:
    cursor.execute("update public.source set body = body where key = %s", [keys.one(dice)])


def update_through_view(cursor: Cursor, dice: random.Random, keys: Keys) -> None:
    cursor.execute(
        "update public.shown set body = %s where key = %s", [_text(dice), keys.one(dice)]
    )


def update_bulk(cursor: Cursor, dice: random.Random, keys: Keys) -> None:
    cursor.execute(
        "update public.source set body = 'now ' || key || ' ' || %s where key between %s and %s",
        [dice.choice(_WORDS), *keys.bulk(dice)],
    )


def delete(cursor: Cursor, dice: random.Random, keys: Keys) -> None:
    cursor.execute("delete from public.source where key = %s", [keys.one(dice)])


def delete_bulk(cursor: Cursor, dice: random.Random, keys: Keys) -> None:
    cursor.execute("delete from public.source where key between %s and %s", keys.bulk(dice))


def insert_bulk(cursor: Cursor, dice: random.Random, keys: Keys) -> None:
    _insert_bulk(cursor, *keys.bulk(dice))


def replace(cursor: Cursor, dice: random.Random, keys: Keys) -> None:
    """Delete a row and insert one with the same key."""
    key = keys.one(dice)
    cursor.execute("delete from public.source where key = %s", [key])
    cursor.execute(f"insert into public.source ({_COLUMNS}) values ({_VALUES})", _row(key, dice))


def change_key(cursor: Cursor, dice: random.Random, keys: Keys) -> None:
    cursor.execute(
        "update public.source set key = %s where key = %s", [keys.one(dice), keys.one(dice)]
    )


def swap_keys(cursor: Cursor, dice: random.Random, keys: Keys) -> None:
    one, other = keys.one(dice), keys.one(dice)
    aside = -dice.randrange(1, 1 << 40)
    for new, old in ((aside, one), (one, other), (other, aside)):
        cursor.execute("update public.source set key = %s where key = %s", [new, old])


def upsert(cursor: Cursor, dice: random.Random, keys: Keys) -> None:
    cursor.execute(
        f"insert into public.source ({_COLUMNS}) values ({_VALUES}) "
        "on conflict (key) do update set body = excluded.body, title = excluded.title",
        _row(keys.one(dice), dice),
    )


def merge(cursor: Cursor, dice: random.Random, keys: Keys) -> None:
    key = keys.one(dice)  # one row must not be met twice
    cursor.execute(
        "merge into public.source s "
        "using (values (%s::bigint, %s, false), (%s, %s, true)) as w(key, body, gone) "
        "on s.key = w.key "
        "when matched and w.gone then delete "
        "when matched then update set body = w.body "
        "when not matched and not w.gone then insert (key, body, published_at) "
        "  values (w.key, w.body, '2024-02-02+00')",
        [key, _text(dice), key + 2, None],
    )


def copy(cursor: Cursor, dice: random.Random, keys: Keys) -> None:
    wanted = {keys.one(dice) for _ in range(5)}
    cursor.execute("delete from public.source where key = any(%s)", [list(wanted)])
    with cursor.copy(f"copy public.source ({_COLUMNS}) from stdin") as stream:
        for key in wanted:
            stream.write_row(_row(key, dice))


def move_in_time(cursor: Cursor, dice: random.Random, keys: Keys) -> None:
    """Publish, unpublish, or move to another time and perhaps partition."""
    cursor.execute(
        "update public.source set published_at = %s where key = %s", [_time(dice), keys.one(dice)]
    )


def hide(cursor: Cursor, dice: random.Random, keys: Keys) -> None:
    cursor.execute("update public.source set hidden = not hidden where key = %s", [keys.one(dice)])


def cascade(cursor: Cursor, dice: random.Random, _keys: Keys) -> None:
    section = dice.randrange(1, 21)
    cursor.execute("delete from public.section where id = %s", [section])
    cursor.execute("insert into public.section values (%s)", [section])


def undone(cursor: Cursor, dice: random.Random, keys: Keys) -> None:
    """Do things and take them back."""
    cursor.execute("savepoint undone")
    for action in dice.choices([update, replace, delete, upsert, delete_bulk], k=2):
        action(cursor, dice, keys)
    cursor.execute("rollback to savepoint undone")


def released(cursor: Cursor, dice: random.Random, keys: Keys) -> None:
    """Do things in a subtransaction of their own."""
    cursor.execute("savepoint released")
    dice.choice([update, insert, delete, upsert])(cursor, dice, keys)
    cursor.execute("release savepoint released")


def truncate(cursor: Cursor, dice: random.Random, keys: Keys) -> None:
    """Empty the table; mostly reload a part of it in the same transaction."""
    reload = dice.random() < 0.7
    kept = []
    if reload:
        columns = _COLUMNS.replace("published_at", "published_at::text")  # whatever the DateStyle
        cursor.execute(
            f"select {columns} from public.source where key %% 3 <> %s", [dice.randrange(3)]
        )
        kept = cursor.fetchall()
    cursor.execute("truncate public.source")
    if reload:
        with cursor.copy(f"copy public.source ({_COLUMNS}) from stdin") as stream:
            for row in kept:
                stream.write_row(row)
        update(cursor, dice, keys)


def update_part(cursor: Cursor, dice: random.Random, keys: Keys) -> None:
    for number in range(_PARTS):  # one of them has the key
        cursor.execute(
            f"update public.source_{number} set body = %s where key = %s",
            [_text(dice), keys.one(dice)],
        )


def delete_from_part(cursor: Cursor, dice: random.Random, keys: Keys) -> None:
    cursor.execute(
        f"delete from public.source_{dice.randrange(_PARTS)} where key = any (%s)",
        [[keys.one(dice) for _ in range(3)]],
    )


def truncate_part(cursor: Cursor, dice: random.Random, _keys: Keys) -> None:
    cursor.execute(f"truncate public.source_{dice.randrange(_PARTS)}")


Operation: TypeAlias = Callable[[Cursor, random.Random, Keys], None]
_ONE_ROW: dict[Operation, float] = {
    insert: 6,
    update: 14,
    update_untracked: 3,
    update_nothing: 2,
    update_through_view: 2,
    delete: 4,
    replace: 4,
    change_key: 3,
    swap_keys: 2,
    upsert: 5,
    merge: 3,
    copy: 1,
    move_in_time: 4,
    hide: 4,
    undone: 2,
    released: 2,
}
_MANY_ROWS: dict[Operation, float] = {
    update_bulk: 0.6,
    delete_bulk: 0.3,
    insert_bulk: 0.6,
    cascade: 0.3,
    truncate: 0.1,
}


_OF_PARTS: dict[Operation, float] = {update_part: 3, delete_from_part: 1, truncate_part: 0.05}


@dataclass
class Tally:
    """What writers did, and what happened to them."""

    transactions: int = 0
    operations: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)
    deadlocks: list[str] = field(default_factory=list)
    pids: set[int] = field(default_factory=set)


class Writer(threading.Thread):
    """Runs random transactions until told to stop.

    bulk: whether to touch many rows at once, too; partitioned: whether the table is, so that its
    parts can be written to; two_phase: whether the server can prepare transactions; pace: the
    most seconds between two transactions.
    """

    def __init__(
        self,
        url: str,
        number: int,
        seed: int,
        *,
        keys: Keys,
        bulk: bool,
        partitioned: bool,
        two_phase: bool,
        pace: float,
    ) -> None:
        super().__init__(name=f"writer {number}", daemon=True)
        self.tally = Tally()
        self.failure: str | None = None
        self._url = url
        self._number = number
        self._dice = random.Random(f"{seed} writer {number}")  # noqa: S311
        self._keys = keys
        self._operations = {
            **_ONE_ROW,
            **(_MANY_ROWS if bulk else {}),
            **(_OF_PARTS if partitioned else {}),
        }
        self._two_phase = two_phase
        self._pace = pace
        self._stop_asked = threading.Event()
        self._prepared: str | None = None
        self._settle_at = 0.0

    def stop(self) -> None:
        """Ask for the end; `join` waits for it."""
        self._stop_asked.set()

    def run(self) -> None:
        try:
            with psycopg.connect(
                self._url, autocommit=True, application_name="writer"
            ) as connection:
                self._write(connection)
        except BaseException:  # noqa: BLE001 - reported by the harness
            self.failure = traceback.format_exc()

    def _write(self, connection: psycopg.Connection[Any]) -> None:
        self.tally.pids.add(connection.info.backend_pid)
        # A prepared transaction of this very thread may hold the row it wants.
        connection.execute("set lock_timeout = '700ms'")
        if self._number % _OUTSIDERS:
            connection.execute(f"set role {ROLE}")
            connection.execute("set search_path = ''")
        with connection.cursor() as cursor:
            while not self._stop_asked.wait(self._dice.uniform(0, self._pace)):
                self._settle(cursor, force=False)
                self._transaction(connection, cursor)
            self._settle(cursor, force=True)

    def _transaction(self, connection: psycopg.Connection[Any], cursor: Cursor) -> None:
        dice = self._dice
        chosen = dice.choices(
            list(self._operations), list(self._operations.values()), k=dice.randrange(1, 5)
        )
        cursor.execute(f"begin isolation level {dice.choice(_LEVELS)}")
        try:
            for action in chosen:
                action(cursor, dice, self._keys)
            if dice.random() < 0.02:  # a transaction that commits late
                self._stop_asked.wait(dice.uniform(0.3, 2.0))
            self._end(cursor)
        except psycopg.Error as error:
            connection.rollback()
            self._refused(error)
        else:
            self.tally.transactions += 1
            self.tally.operations.update(action.__name__ for action in chosen)

    def _end(self, cursor: Cursor) -> None:
        fate = self._dice.random()
        if fate < 0.05:
            cursor.execute("rollback")
        elif fate < 0.08 and self._two_phase and self._prepared is None:
            name = f"stress_{self._number}_{self.tally.transactions}"
            cursor.execute(f"prepare transaction '{name}'")
            self._prepared = name
            self._settle_at = time.monotonic() + self._dice.uniform(0, 1)
        else:
            cursor.execute("commit")

    def _settle(self, cursor: Cursor, *, force: bool) -> None:
        """Decide about the transaction that this thread has prepared."""
        if self._prepared is not None and (force or time.monotonic() > self._settle_at):
            verdict = "commit" if self._dice.random() < 0.7 else "rollback"
            cursor.execute(f"{verdict} prepared '{self._prepared}'")
            self.tally.operations[f"{verdict} prepared"] += 1
            self._prepared = None

    def _refused(self, error: psycopg.Error) -> None:
        state = error.sqlstate or "none"
        if state not in _EXPECTED:
            raise error
        self.tally.refused[state] += 1
        if state == "40P01":
            self.tally.deadlocks.append(error.diag.message_detail or "")
