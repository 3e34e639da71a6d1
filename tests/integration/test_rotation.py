"""Several vectorizers drained together take turns."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

import psycopg
import pytest

from vectorizer import Vectorizer
from vectorizer._sync.rotation import Rotation
from vectorizer.errors import EmbedderUnavailable, VectorizerPaused
from vectorizer.testing import FakeEmbedder

ROWS = {"large": 50, "small": 10, "empty": 0}


class Away(FakeEmbedder):
    def embed(self, texts: object) -> object:  # type: ignore[override]
        raise EmbedderUnavailable(f"nobody answers for {texts}")


@pytest.fixture
def three(vectorizer_url: str) -> Iterator[list[Vectorizer]]:
    """Vectorizers on tables of 50, 10 and no rows, whose batches hold five."""
    with ExitStack() as stack:
        db = stack.enter_context(psycopg.connect(vectorizer_url, autocommit=True))
        made = []
        for name, rows in ROWS.items():
            db.execute(f"create table {name} (id int primary key, body text)".encode())
            insert = f"insert into {name} select n, 'text ' || n from generate_series(1, {rows}) n"
            db.execute(insert.encode())
            made.append(
                stack.enter_context(
                    Vectorizer(
                        vectorizer_url,
                        name,
                        embedder=FakeEmbedder(),
                        chunk_column="body",
                        batch_size=5,
                        lease_seconds=0.5,
                    )
                )
            )
            made[-1].install()
        yield made


def test_a_small_one_does_not_wait_for_a_large_one(three: list[Vectorizer]) -> None:
    turns: list[str] = []
    rotation = Rotation(three)
    rotation.run(lambda name, _: turns.append(name))
    assert turns == ["large", "small"] * 2 + ["large"] * 8
    assert {name: counts.rows for name, counts in rotation.counts.items()} == ROWS
    assert rotation.errors == {}
    assert all(vectorizer.verify().ok for vectorizer in three)


def test_one_that_fails_stops_none_of_the_others(three: list[Vectorizer]) -> None:
    three[0]._generations._embedders = [Away()]
    three[2].pause("for a while")
    rotation = Rotation(three)
    rotation.run()
    assert isinstance(rotation.errors["large"], EmbedderUnavailable)
    assert isinstance(rotation.errors["empty"], VectorizerPaused)
    assert rotation.counts["small"].rows == 10


def test_what_others_hold_is_waited_for_without_holding_up_anybody(
    three: list[Vectorizer],
) -> None:
    held = three[1]._generations._ready()[0].claim(5)  # by somebody who never finishes
    assert held is not None
    turns: list[str] = []
    rotation = Rotation(three)
    rotation.run(lambda name, _: turns.append(name))
    assert turns.count("large") == 10
    assert turns.count("small") >= 2
    assert three[1].verify().ok
    assert three[1].status()["in_flight"] == 0
