"""Rows brought in step by the process that wrote them."""

from __future__ import annotations

import threading
import uuid
from typing import TYPE_CHECKING

import pytest
from subject import Subject

from vectorizer import Vectorizer
from vectorizer.errors import ConfigurationError, NotInstalled, SyncTimeout
from vectorizer.testing import FakeEmbedder

if TYPE_CHECKING:
    from collections.abc import Iterator

TABLE = """
create table post (id int primary key, body text);
insert into post select n, 'body ' || n from generate_series(1, 20) n
"""


@pytest.fixture
def post(vectorizer_url: str) -> Iterator[Subject]:
    with Subject(vectorizer_url) as subject:
        subject.script(TABLE)
        subject.vectorizer.install()
        yield subject


def test_only_these_rows_are_brought_in_step(post: Subject) -> None:
    counts = post.vectorizer.sync([3, 4])
    assert (counts.rows, counts.texts) == (2, 2)
    assert sorted(post.embedded()) == [3, 4]
    post.sql("update post set body = 'edited ' || id where id in (3, 5)")
    post.sql("delete from post where id = 4")
    counts = post.vectorizer.sync([3, 4, {"id": 5}, (3,)])
    assert (counts.rows, counts.texts) == (3, 2)
    assert post.embedded() == {3: "edited 3", 5: "edited 5"}
    # What the log has of them costs nothing any more.
    assert post.settle().texts == 17


def test_more_rows_than_a_batch(vectorizer_url: str) -> None:
    with Subject(vectorizer_url, batch_size=3) as post:
        post.script(TABLE)
        post.vectorizer.install()
        assert post.vectorizer.sync(range(1, 21)).rows == 20
        post.settle()


def test_a_key_of_several_columns(vectorizer_url: str) -> None:
    with Subject(vectorizer_url, id=("shop", "number")) as post:
        post.script(
            "create table post (shop uuid, number bigint, body text, primary key (shop, number))"
        )
        shop = uuid.uuid4()
        post.sql("insert into post values (%s, 1, 'one'), (%s, 2, 'two')", shop, shop)
        post.vectorizer.install()
        assert post.vectorizer.sync([(shop, 1)]).rows == 1
        assert post.vectorizer.sync([{"number": 2, "shop": str(shop)}]).rows == 1
        post.settle()
        with pytest.raises(ConfigurationError, match="does not fit the key columns shop, number"):
            post.vectorizer.sync([1])


def test_rows_another_worker_holds_are_waited_for(post: Subject) -> None:
    held, go_on = threading.Event(), threading.Event()

    class Slow(FakeEmbedder):
        def embed(self, texts: list[str]) -> object:  # type: ignore[override]
            held.set()
            assert go_on.wait(20)
            return super().embed(texts)

    with Vectorizer(post.url, "post", embedder=Slow(), chunk_column="body") as other:
        worker = threading.Thread(target=other.run)
        worker.start()
        assert held.wait(20)
        with pytest.raises(SyncTimeout, match="other workers held rows"):
            post.vectorizer.sync([1], timeout=0.1)
        post.sql("update post set body = 'written meanwhile' where id = 1")
        syncing = threading.Thread(target=post.vectorizer.sync, args=([1],))
        syncing.start()
        go_on.set()
        syncing.join(20)
        assert post.embedded()[1] == "written meanwhile"
        worker.join(20)
    post.settle()


def test_what_is_not_installed_says_so(vectorizer_url: str) -> None:
    with Subject(vectorizer_url) as post, pytest.raises(NotInstalled):
        post.vectorizer.sync([1])
