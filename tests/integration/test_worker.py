"""The daemon, inside of this process: what it serves, when, and how it stops."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import make_conninfo
from waiting import SECONDS, until
from working import Working, working

from vectorizer import Vectorizer, pgvectorizer
from vectorizer._async.database import AsyncDatabase
from vectorizer.errors import ConfigurationError, EmbedderRefused, EmbedderUnavailable
from vectorizer.events import BatchClaimed, BatchFinished, Event
from vectorizer.testing import FakeEmbedder
from vectorizer.worker import Worker, WorkerOptions
from vectorizer.worker._probe import Probe


class Blocked(FakeEmbedder):
    """Answers when it is let go."""

    go = threading.Event()
    asked = threading.Event()

    @property
    def config(self) -> dict[str, Any]:
        return {"provider": f"{__name__}:Blocked", "model": self.model}

    def embed(self, texts: Sequence[str]) -> Any:
        self.asked.set()
        assert self.go.wait(SECONDS)
        return super().embed(texts)


class Moody(FakeEmbedder):
    """Fails as it is told to, for everybody who uses this model."""

    error: Exception | None = None

    @property
    def config(self) -> dict[str, Any]:
        return {"provider": f"{__name__}:Moody", "model": self.model}

    def embed(self, texts: Sequence[str]) -> Any:
        if Moody.error is not None:
            raise Moody.error
        return super().embed(texts)


@pytest.fixture
def db(vectorizer_url: str) -> Any:
    Moody.error = None
    Blocked.go.clear()
    Blocked.asked.clear()
    with psycopg.connect(vectorizer_url, autocommit=True) as connection:
        yield connection


def attach(db: psycopg.Connection, url: str, *names: str, embedder: Any = None) -> None:
    for name in names:
        db.execute(
            sql.SQL("create table {} (id int primary key, body text)").format(sql.Identifier(name))
        )
        with Vectorizer(
            url, name, embedder=embedder or FakeEmbedder(), chunk_column="body"
        ) as made:
            made.install()


def write(db: psycopg.Connection, name: str, *ids: int, text: str = "a text") -> None:
    for id_ in ids:
        db.execute(
            sql.SQL(
                "insert into {} values (%s, %s) on conflict (id) do update set body = excluded.body"
            ).format(sql.Identifier(name)),
            [id_, f"{text} {id_}"],
        )


def stored(db: psycopg.Connection, name: str) -> int:
    (count,) = db.execute(
        sql.SQL("select count(*) from {}").format(sql.Identifier(f"{name}_embedding"))
    ).fetchone() or (0,)
    return int(count)


@contextmanager
def serving(
    url: str, names: Sequence[str] | None = None, observer: Any = None, **options: Any
) -> Iterator[Working]:
    worker = Worker(url, names, options=WorkerOptions(**options), observer=observer)
    with working(worker) as running:
        yield running


def test_all_are_served_also_those_that_come_and_go(
    vectorizer_url: str, db: psycopg.Connection
) -> None:
    attach(db, vectorizer_url, "one", "two")
    write(db, "one", 1)
    with serving(vectorizer_url):
        write(db, "two", 1, 2)
        until(lambda: (stored(db, "one"), stored(db, "two")) == (1, 2))
        attach(db, vectorizer_url, "three")
        write(db, "three", *range(3))
        until(lambda: stored(db, "three") == 3)
        db.execute("select vectorizer.uninstall('two')")
        write(db, "one", 2)
        until(lambda: stored(db, "one") == 2)
        db.execute("delete from one")
        until(lambda: stored(db, "one") == 0)


def test_only_the_named_are_served_also_when_they_come_later(
    vectorizer_url: str, db: psycopg.Connection, caplog: pytest.LogCaptureFixture
) -> None:
    attach(db, vectorizer_url, "one", "two")
    write(db, "one", 1)
    with serving(vectorizer_url, ["two", "three"]):
        write(db, "two", 1)
        until(lambda: stored(db, "two") == 1)
        until(lambda: "three: is not installed" in caplog.text)
        attach(db, vectorizer_url, "three")
        write(db, "three", 1)
        until(lambda: stored(db, "three") == 1)
    assert stored(db, "one") == 0


def test_it_waits_for_a_database_in_which_nothing_is_installed_yet(
    vectorizer_url: str, db: psycopg.Connection, caplog: pytest.LogCaptureFixture
) -> None:
    with serving(vectorizer_url) as running:
        until(lambda: "no vectorizer is installed" in caplog.text)
        assert not running.worker.ready
        attach(db, vectorizer_url, "one")
        write(db, "one", 1)
        until(lambda: stored(db, "one") == 1)
        assert running.worker.ready
    assert not running.worker.ready


def test_a_model_that_fails_pauses_or_delays_its_own_vectorizer_only(
    vectorizer_url: str, db: psycopg.Connection, caplog: pytest.LogCaptureFixture
) -> None:
    attach(db, vectorizer_url, "good")
    attach(db, vectorizer_url, "bad", embedder=Moody())
    Moody.error = EmbedderUnavailable("busy", retry_after=0.05)
    write(db, "bad", 1)
    with serving(vectorizer_url):
        until(lambda: "bad: busy" in caplog.text)
        write(db, "good", 1)
        until(lambda: stored(db, "good") == 1)
        Moody.error = EmbedderRefused("the key is wrong")
        until(lambda: "bad: paused" in caplog.text)
        write(db, "good", 2)
        until(lambda: stored(db, "good") == 2)
        assert stored(db, "bad") == 0
        Moody.error = None
        db.execute("select vectorizer.resume('bad')")
        until(lambda: stored(db, "bad") == 1)
    assert db.execute("select count(*) from vectorizer.dead_letters").fetchone() == (0,)


def test_deletions_are_followed_while_the_provider_asks_for_a_pause(
    vectorizer_url: str, db: psycopg.Connection, caplog: pytest.LogCaptureFixture
) -> None:
    attach(db, vectorizer_url, "one", embedder=Moody())
    write(db, "one", 1, 2)
    with serving(vectorizer_url) as running:
        until(lambda: stored(db, "one") == 2)
        Moody.error = EmbedderUnavailable("busy", retry_after=600)
        write(db, "one", 3)
        until(lambda: "one: busy" in caplog.text)
        db.execute("delete from one where id = 1")
        until(lambda: stored(db, "one") == 1)
        assert not running.worker.in_flight
    assert "works again" not in caplog.text


def test_a_model_that_cannot_be_made_is_no_trouble_to_others(
    vectorizer_url: str, db: psycopg.Connection, caplog: pytest.LogCaptureFixture
) -> None:
    attach(db, vectorizer_url, "good", "bad")
    change = (
        "update vectorizer.vectorizer set definition = "
        "jsonb_set(definition, '{embedder,provider}', to_jsonb(%s::text)) where name = 'bad'"
    )
    db.execute(change, ["nowhere:Model"])
    write(db, "bad", 1)
    with serving(vectorizer_url):
        until(lambda: "bad: cannot load embedder" in caplog.text)
        write(db, "good", 1)
        until(lambda: stored(db, "good") == 1)
        until(lambda: warnings_of(db, "bad"))
        assert "a worker could not serve it" in warnings_of(db, "bad")[0]
        assert "No module named 'nowhere'" in warnings_of(db, "bad")[0]
        assert warnings_of(db, "good") == []
        db.execute(change, ["fake"])
        until(lambda: stored(db, "bad") == 1)
        until(lambda: not warnings_of(db, "bad"))


def test_who_cannot_serve_stops_nobody_who_can(vectorizer_url: str, db: psycopg.Connection) -> None:
    attach(db, vectorizer_url, "one")
    write(db, "one", 1)
    with serving(vectorizer_url):
        until(lambda: stored(db, "one") == 1)
        with Vectorizer.connect(vectorizer_url, "one") as elsewhere:
            elsewhere._schema.note_unserved("one", "no API key for 'it'")
        # The worker that serves it takes the note back, whether there is more to do or not.
        until(lambda: not warnings_of(db, "one"))
        write(db, "one", 2)
        until(lambda: stored(db, "one") == 2)


def warnings_of(db: psycopg.Connection, name: str) -> list[str]:
    rows = db.execute("select warnings from vectorizer.status where name = %s", [name]).fetchall()
    return [warning for (warnings,) in rows for warning in warnings]


def test_a_slow_model_leaves_room_for_others(vectorizer_url: str, db: psycopg.Connection) -> None:
    attach(db, vectorizer_url, "slow", embedder=Blocked())
    attach(db, vectorizer_url, "good")
    write(db, "slow", *range(10))
    with serving(vectorizer_url, concurrency=3, batch_size=1) as running:
        until(lambda: running.worker.in_flight == 2)
        write(db, "good", 1, 2, 3)
        until(lambda: stored(db, "good") == 3)
        Blocked.go.set()
        until(lambda: stored(db, "slow") == 10)


def test_a_log_that_somebody_has_locked_does_not_blind_it_for_others(
    vectorizer_url: str, db: psycopg.Connection
) -> None:
    attach(db, vectorizer_url, "one", "locked", "two")
    with serving(vectorizer_url):
        with psycopg.connect(vectorizer_url) as other:
            other.execute("lock table vectorizer.locked_log in access exclusive mode")
            write(db, "one", 1)
            write(db, "two", 1)
            until(lambda: (stored(db, "one"), stored(db, "two")) == (1, 1))
            other.rollback()
        write(db, "locked", 1)
        until(lambda: stored(db, "locked") == 1)


def test_stop_lets_batches_finish(vectorizer_url: str, db: psycopg.Connection) -> None:
    attach(db, vectorizer_url, "one", embedder=Blocked())
    write(db, "one", 1)
    with serving(vectorizer_url) as running:
        until(Blocked.asked.is_set)
        running.stop()
        Blocked.go.set()
    assert stored(db, "one") == 1
    assert db.execute("select count(*) from vectorizer.lease").fetchone() == (0,)


def test_stop_gives_back_what_does_not_finish_in_time(
    vectorizer_url: str, db: psycopg.Connection
) -> None:
    attach(db, vectorizer_url, "one", embedder=Blocked())
    write(db, "one", 1)
    with serving(vectorizer_url, grace_seconds=0.05) as running:
        until(Blocked.asked.is_set)
        running.stop()
    assert db.execute("select count(*) from vectorizer.lease").fetchone() == (0,)
    assert db.execute("select attempts, losses, lease from vectorizer.one_row").fetchall() == [
        (0, 0, None)
    ]
    Blocked.go.set()
    with serving(vectorizer_url):
        until(lambda: stored(db, "one") == 1)


def test_a_stop_while_the_database_is_away_returns(unused_tcp_port: int) -> None:
    worker = Worker(f"postgresql://127.0.0.1:{unused_tcp_port}/nothing")
    with working(worker):
        until(lambda: worker.alive_seconds < 1)


@pytest.fixture
def unused_tcp_port() -> int:
    import socket  # noqa: PLC0415

    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def test_a_schedule_of_nobody_is_complained_of_at_once(
    vectorizer_url: str, db: psycopg.Connection, caplog: pytest.LogCaptureFixture
) -> None:
    attach(db, vectorizer_url, "live")
    with serving(vectorizer_url, schedules={"life": "0 0 1 1 *"}):
        until(lambda: "life: has a schedule, but is not served here" in caplog.text)


def test_a_schedule_is_kept(vectorizer_url: str, db: psycopg.Connection) -> None:
    attach(db, vectorizer_url, "nightly", "live")
    write(db, "nightly", 1, 2)
    with serving(vectorizer_url, schedules={"nightly": "0 0 1 1 *"}, batch_size=1) as running:
        write(db, "live", 1)
        until(lambda: stored(db, "live") == 1)
        assert stored(db, "nightly") == 0
        running.do(running.worker._schedule._drain("nightly"))
        until(lambda: stored(db, "nightly") == 2)
        # ... and is over then.
        served = next(s for s in running.worker._turns if s.entry.name == "nightly")
        until(lambda: served.waits)
        write(db, "nightly", 3)
        write(db, "live", 2)
        until(lambda: stored(db, "live") == 2)
        assert stored(db, "nightly") == 2


def test_a_notification_wakes_it(vectorizer_url: str, db: psycopg.Connection) -> None:
    attach(db, vectorizer_url, "one")
    with serving(
        vectorizer_url, listen="News of one", idle_seconds=3600.0, poll_seconds=3600.0
    ) as running:
        worker = running.worker
        until(lambda: worker.ready and worker._look_at > worker._alive_at + 1000)
        write(db, "one", 1)
        # A second later it has not been found: nobody looks for an hour.
        db.execute('notify "News of one"')
        until(lambda: stored(db, "one") == 1)


def test_the_verification_on_schedule_mends_what_it_finds(
    vectorizer_url: str, db: psycopg.Connection, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    attach(db, vectorizer_url, "one")
    write(db, "one", 1, 2)
    with serving(vectorizer_url, verify_schedule="0 0 1 1 *", verify_repair=True) as running:
        until(lambda: stored(db, "one") == 2)
        db.execute("delete from one_embedding_g1 where source_id = 1")
        worker = running.worker
        running.do(worker._schedule._verify_all(worker._database, None))
        assert "1 defects" in caplog.text
        until(lambda: stored(db, "one") == 2)


def test_a_new_generation_is_filled_and_takes_over(
    vectorizer_url: str, db: psycopg.Connection
) -> None:
    attach(db, vectorizer_url, "one")
    write(db, "one", 1, 2)
    of_serving = "select definition ->> 'model' from vectorizer.vectorizer where serving"
    with serving(vectorizer_url):
        until(lambda: stored(db, "one") == 2)
        later = FakeEmbedder(model="later")
        with Vectorizer(vectorizer_url, "one", embedder=later, chunk_column="body") as vectorizer:
            vectorizer.install(change=True)
        until(lambda: db.execute(of_serving).fetchone() == ("later",))
        write(db, "one", 3)
        until(lambda: stored(db, "one") == 3)


def test_a_change_of_a_parent_is_seen(vectorizer_url: str, db: psycopg.Connection) -> None:
    db.execute("create table author (id int primary key, name text)")
    db.execute("create table post (id int primary key, author_id int, body text)")
    db.execute("insert into author values (1, 'Ada')")
    db.execute("insert into post values (1, 1, 'text')")
    query = "select p.id, a.name, p.author_id from post p join author a on a.id = p.author_id"
    with Vectorizer(
        vectorizer_url,
        "post",
        embedder=FakeEmbedder(),
        chunk_column="body",
        template="{name}: {chunk}",
        joined={"query": query, "parents": {"author": ["author_id"]}},
    ) as vectorizer:
        vectorizer.install()

    def is_by(name: str) -> bool:
        found = db.execute("select contents from post_embedding").fetchall()
        return found == [(f"{name}: text",)]

    with serving(vectorizer_url):
        until(lambda: is_by("Ada"))
        db.execute("update author set name = 'Grace'")
        until(lambda: is_by("Grace"))


def test_upkeep_is_done(
    vectorizer_url: str, db: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vectorizer.worker._schedule._UPKEEP_SECONDS", 0.05)
    monkeypatch.setattr("vectorizer.worker._schedule._UPKEEP_JITTER", None)
    attach(db, vectorizer_url, "one")
    due = "select count(*) from vectorizer.upkeep where due_at > now()"
    with serving(vectorizer_url, ["one"]):
        until(lambda: db.execute(due).fetchone() != (0,))


def test_vectorizers_of_a_callback_are_left_alone(
    vectorizer_url: str, db: psycopg.Connection
) -> None:
    attach(db, vectorizer_url, "one")
    db.execute("create table other (id int primary key, body text)")
    db.execute("insert into other values (1, 'text')")
    pgvectorizer.Vectorize(vectorizer_url, "other").register()
    with serving(vectorizer_url) as running:
        write(db, "one", 1)
        until(lambda: stored(db, "one") == 1)
        assert [served.entry.name for served in running.worker._turns] == ["one"]


def test_events_tell_what_happened(vectorizer_url: str, db: psycopg.Connection) -> None:
    attach(db, vectorizer_url, "one")
    seen: list[Event] = []

    def observe(event: Event) -> None:
        seen.append(event)
        raise RuntimeError("an observer's trouble is its own")

    with serving(vectorizer_url, observer=observe):
        write(db, "one", 1)
        until(lambda: stored(db, "one") == 1)
    claimed = [event for event in seen if isinstance(event, BatchClaimed)]
    (finished,) = [event for event in seen if isinstance(event, BatchFinished)]
    assert [event.rows for event in claimed] == [1]
    assert claimed[0].oldest is not None
    assert finished.counts.embedded == 1
    assert set(finished.stages) == {"claim", "load", "prepare", "embed", "finish"}
    assert finished.lag_seconds is not None
    assert 0 <= finished.lag_seconds < SECONDS


def test_a_lost_session_is_made_anew(vectorizer_url: str, db: psycopg.Connection) -> None:
    attach(db, vectorizer_url, "one")
    url = make_conninfo(vectorizer_url)
    with serving(url) as running:
        for number in range(3):
            until(lambda: running.worker.ready)
            db.execute(
                "select pg_terminate_backend(pid) from pg_stat_activity "
                "where application_name = 'vectorizer' and datname = current_database()"
            )
            write(db, "one", number)
            until(lambda number=number: stored(db, "one") == number + 1)


@pytest.mark.parametrize(
    "options",
    [
        {"concurrency": 0},
        {"poll_seconds": 0},
        {"grace_seconds": -1},
        {"schedules": {"one": "often"}},
        {"timezone": "Mars/Olympus", "verify_schedule": "@daily"},
    ],
)
def test_what_cannot_work_is_refused_at_once(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError):
        Worker("postgresql:///nothing", options=WorkerOptions(**options))


async def test_a_log_that_is_slow_to_read_is_read_at_its_end(
    vectorizer_url: str, db: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vectorizer.worker._probe._SLOW_SECONDS", -1.0)
    monkeypatch.setattr("vectorizer.worker._probe._WHOLE_SHARE", 1e9)
    attach(db, vectorizer_url, "one", "two")
    insert = "insert into one select n, 'text' from generate_series(1, 2000) n"
    db.execute(insert)
    async with AsyncDatabase(vectorizer_url) as database, Probe(database) as probe:
        entries = await probe.survey()
        assert (await probe.look(entries, retries=False)).logged == {"one"}
        # Whatever was there has been looked at; what comes is at the end.
        assert set(probe._ends) == {"one_log", "two_log"}
        block = int(probe._ends["one_log"].strip("()").split(",")[0])
        assert block > 3
        db.execute("delete from vectorizer.one_log where ctid < %s", [f"({block},0)"])
        db.execute("delete from vectorizer.one_log")
        assert (await probe.look(entries, retries=False)).logged == set()
        write(db, "one", 1, text="changed")
        write(db, "two", 1)
        seen = await probe.look(entries, retries=True)
        assert (seen.logged, seen.due) == ({"one", "two"}, set())


def test_a_schema_that_is_dropped_is_waited_for(
    vectorizer_url: str, db: psycopg.Connection, caplog: pytest.LogCaptureFixture
) -> None:
    attach(db, vectorizer_url, "one")
    with serving(vectorizer_url) as running:
        until(lambda: running.worker.ready)
        db.execute("drop schema vectorizer cascade")
        until(lambda: "no vectorizer is installed" in caplog.text)
        attach(db, vectorizer_url, "two")
        write(db, "two", 1)
        until(lambda: stored(db, "two") == 1)


def test_a_schema_that_is_newer_is_left_alone(
    vectorizer_url: str, db: psycopg.Connection, caplog: pytest.LogCaptureFixture
) -> None:
    attach(db, vectorizer_url, "one")
    with serving(vectorizer_url) as running:
        until(lambda: running.worker.ready)
        db.execute("insert into vectorizer.migration values (9999, 'later')")
        until(lambda: not running.worker.ready)
        write(db, "one", 1)
        until(lambda: "upgrade pg-vectorizer" in caplog.text)
        assert stored(db, "one") == 0
        db.execute("delete from vectorizer.migration where number = 9999")
        until(lambda: stored(db, "one") == 1)
