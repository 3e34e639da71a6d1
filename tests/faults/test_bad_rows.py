"""Rows that cannot be embedded, and models that refuse (faults 24 to 28, 30, 44, 45)."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import psycopg
import pytest
from posts import Rule, check, contents, create, posts

from vectorizer.errors import (
    EmbedderRefused,
    EmbedderUnavailable,
    InputRejected,
    VectorizerPaused,
)
from vectorizer.testing import FakeEmbedder

_MAX_ATTEMPTS = 5


@pytest.fixture
def connection(vectorizer_url: str) -> Iterator[psycopg.Connection[Any]]:
    with create(vectorizer_url, rows=20) as connection:
        yield connection


def _no_poison(texts: Sequence[str]) -> None:
    if any("poison" in text for text in texts):
        raise InputRejected("that text is not allowed")


def _hurry(connection: psycopg.Connection[Any]) -> None:
    """Let the back-off of all rows be over, and what a provider asked for."""
    connection.execute("delete from vectorizer.provider")
    connection.execute(
        "update vectorizer.posts_row set available_at = now() where available_at > now()"
    )


def _dead(connection: psycopg.Connection[Any]) -> list[Any]:
    return connection.execute("select key, attempts, error from vectorizer.dead_letters").fetchall()


def _kill_row(connection: psycopg.Connection[Any], vectorizer: Any, key: int) -> None:
    """Make a row a dead letter."""
    connection.execute("update posts set body = 'poison' where id = %s", [key])
    for _ in range(_MAX_ATTEMPTS):
        assert _dead(connection) == []
        vectorizer.run()
        _hurry(connection)
    assert [letter[0] for letter in _dead(connection)] == [{"id": key}]


def test_one_poison_row_among_many(
    vectorizer_url: str, connection: psycopg.Connection[Any]
) -> None:
    connection.execute("insert into posts select n, 'post ' || n from generate_series(21, 2000) n")
    connection.execute("update posts set body = 'poison' where id = 1234")
    embedder = Rule(_no_poison)
    with posts(vectorizer_url, embedder) as vectorizer:
        vectorizer.install()
        vectorizer.run()
        assert len(contents(connection)) == 1999
        calls = embedder.calls
        for _ in range(_MAX_ATTEMPTS):
            _hurry(connection)
            vectorizer.run()
        assert _dead(connection) == [
            ({"id": 1234}, _MAX_ATTEMPTS, "InputRejected: that text is not allowed")
        ]
        assert embedder.calls == calls  # never again together with others
        assert vectorizer.verify().dead == 1
        connection.execute("update posts set body = 'sweet' where id = 1234")
        vectorizer.run()
        check(connection, vectorizer)


def test_a_row_that_cannot_be_written_holds_up_no_other_and_is_paid_for_once(
    vectorizer_url: str, connection: psycopg.Connection[Any]
) -> None:
    embedder = Rule()
    with posts(vectorizer_url, embedder) as vectorizer:
        vectorizer.install()
        connection.execute("alter table posts_embedding_g1 add check (contents <> 'unwritable')")
        connection.execute("update posts set body = 'unwritable' where id = 13")
        vectorizer.run()
        assert sorted(contents(connection)) == [n for n in range(1, 21) if n != 13]
        assert sorted(embedder.seen) == sorted(set(embedder.seen))
        for _ in range(_MAX_ATTEMPTS):
            _hurry(connection)
            vectorizer.run()
        ((key, attempts, error),) = _dead(connection)
        assert (key, attempts) == ({"id": 13}, _MAX_ATTEMPTS)
        assert "violates check constraint" in error
        assert sorted(embedder.seen) == sorted(set(embedder.seen))


def test_a_poison_row_that_is_edited_all_the_time_still_dies(
    vectorizer_url: str, connection: psycopg.Connection[Any]
) -> None:
    sizes: list[int] = []

    def rule(texts: Sequence[str]) -> None:
        sizes.append(len(texts))
        _no_poison(texts)

    with posts(vectorizer_url, Rule(rule)) as vectorizer:
        vectorizer.install()
        vectorizer.run()
        for n in range(_MAX_ATTEMPTS):
            sizes.clear()
            connection.execute("update posts set body = 'poison ' || %s where id = 1", [n])
            connection.execute("update posts set body = 'round ' || %s || id where id > 1", [n])
            vectorizer.run()
            if n:  # the others are bisected once and never again
                assert sorted(sizes) == [1, 19]
        assert [letter[0] for letter in _dead(connection)] == [{"id": 1}]


@pytest.mark.parametrize("error", [EmbedderUnavailable("busy", 0.0), ConnectionResetError("reset")])
def test_an_edited_dead_letter_survives_an_outage(
    vectorizer_url: str, connection: psycopg.Connection[Any], error: Exception
) -> None:
    embedder = Rule(_no_poison)
    with posts(vectorizer_url, embedder) as vectorizer:
        vectorizer.install()
        _kill_row(connection, vectorizer, 1)

        def away(_texts: Sequence[str]) -> None:
            raise error

        embedder.rule = away
        connection.execute("update posts set body = 'sweet' where id = 1")
        with pytest.raises(EmbedderUnavailable):
            vectorizer.run()
        embedder.rule = _no_poison
        vectorizer.run()
        check(connection, vectorizer)


@pytest.mark.parametrize("retry_after", [None, 3600.0])
def test_an_outage_burns_no_attempt(
    vectorizer_url: str, connection: psycopg.Connection[Any], retry_after: float | None
) -> None:
    def away(_texts: Sequence[str]) -> None:
        raise EmbedderUnavailable("429", retry_after)

    embedder = Rule(away)
    with posts(vectorizer_url, embedder) as vectorizer:
        vectorizer.install()
        for _ in range(_MAX_ATTEMPTS + 1):
            with pytest.raises(EmbedderUnavailable, match="429"):
                vectorizer.run()
            _hurry(connection)
        assert connection.execute(
            "select max(attempts), max(losses) from vectorizer.posts_row"
        ).fetchone() == (0, 0)
        with pytest.raises(EmbedderUnavailable):
            vectorizer.run()
        if retry_after is not None:
            with pytest.raises(EmbedderUnavailable, match="the provider asked for a pause"):
                vectorizer.process()
        embedder.rule = lambda _texts: None
        _hurry(connection)
        vectorizer.run()
        check(connection, vectorizer)


def test_a_refusal_pauses_with_the_reason_and_resumes(
    vectorizer_url: str, connection: psycopg.Connection[Any]
) -> None:
    def refuse(_texts: Sequence[str]) -> None:
        raise EmbedderRefused("check the API key")

    embedder = Rule(refuse)
    with posts(vectorizer_url, embedder) as vectorizer:
        vectorizer.install()
        with pytest.raises(EmbedderRefused):
            vectorizer.run()
        with pytest.raises(VectorizerPaused, match="check the API key"):
            vectorizer.run()
        status = vectorizer.status()
        assert (status["state"], status["reason"]) == ("paused", "check the API key")
        connection.execute("update posts set body = 'meanwhile' where id = 3")
        embedder.rule = lambda _texts: None
        vectorizer.resume()
        vectorizer.run()
        check(connection, vectorizer)


class Wrong(FakeEmbedder):
    """Answers wrongly in one way."""

    def __init__(self, how: str) -> None:
        super().__init__(8)
        self.how: str | None = how

    def embed(self, texts: Sequence[str]) -> Any:
        right = super().embed(texts)
        match self.how:
            case "short":
                return right[:-1]
            case "narrow":
                return right[:, :-1]
            case "nan":
                return right * np.float32("nan")
        return right


@pytest.mark.parametrize("how", ["short", "narrow", "nan"])
def test_a_wrong_answer_writes_nothing_and_is_named(
    vectorizer_url: str, connection: psycopg.Connection[Any], how: str
) -> None:
    embedder = Wrong(how)
    with posts(vectorizer_url, embedder) as vectorizer:
        vectorizer.install()
        vectorizer.run()
        assert contents(connection) == {}
        errors = connection.execute("select distinct error from vectorizer.posts_row").fetchall()
        assert all(error.startswith("InvalidEmbeddings: expected") for (error,) in errors)
        embedder.how = None
        _hurry(connection)
        vectorizer.run()
        check(connection, vectorizer)


@pytest.mark.parametrize("blank", [None, "", " \n\t "])
def test_blank_text_takes_the_embeddings_away_without_a_call(
    vectorizer_url: str, connection: psycopg.Connection[Any], blank: str | None
) -> None:
    embedder = Rule()
    with posts(vectorizer_url, embedder) as vectorizer:
        vectorizer.install()
        vectorizer.run()
        connection.execute("update posts set body = %s where id <= 5", [blank])
        embedder.seen.clear()
        vectorizer.run()
        assert embedder.seen == []
        assert sorted(contents(connection)) == list(range(6, 21))
        assert vectorizer.verify().ok


_KILLER = """
import os, sys
sys.path.insert(0, {folder!r})
from posts import Rule, posts
def rule(texts):
    if any("bomb" in text for text in texts):
        os.kill(os.getpid(), 9)
with posts({url!r}, Rule(rule), lease_seconds=0.2) as vectorizer:
    vectorizer.run()
"""


def test_a_row_that_kills_its_worker_is_found_and_its_neighbours_are_done(
    vectorizer_url: str, connection: psycopg.Connection[Any]
) -> None:
    connection.execute("update posts set body = 'bomb' where id = 7")
    with posts(vectorizer_url) as vectorizer:
        vectorizer.install()
        script = _KILLER.format(url=vectorizer_url, folder=str(__file__).rpartition("/")[0])
        for _ in range(12):
            ended = subprocess.run([sys.executable, "-c", script], check=False, timeout=60)
            if ended.returncode == 0:
                break
            assert ended.returncode == -9
        assert [letter[0] for letter in _dead(connection)] == [{"id": 7}]
        assert sorted(contents(connection)) == [n for n in range(1, 21) if n != 7]
        connection.execute("update posts set body = 'harmless' where id = 7")
        vectorizer.run()
        check(connection, vectorizer)
