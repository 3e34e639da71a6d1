"""Changing a definition: in place where no text is embedded again, else beside what serves."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import numpy as np
import psycopg
import pytest
from subject import Subject

from vectorizer import Vectorizer
from vectorizer.errors import (
    AlreadyInstalled,
    ConfigurationError,
    EmbedderUnavailable,
    NotCaughtUp,
    NotInstalled,
    SourceError,
)
from vectorizer.testing import FakeEmbedder

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import ArrayLike

TABLE = """
create table post (
  id int primary key, title text, body text, author text, status text default 'public',
  published timestamptz default '2026-01-01');
insert into post (id, title, body, author)
  select n, 'title ' || n, 'body ' || n, 'author ' || n % 3 from generate_series(1, 20) n
"""


@pytest.fixture
def post(vectorizer_url: str) -> Iterator[Subject]:
    """A table of 20 posts, all embedded."""
    with Subject(vectorizer_url, metadata=["author"]) as subject:
        subject.script(TABLE)
        subject.vectorizer.install()
        subject.settle()
        yield subject


def changed(post: Subject, embedder: FakeEmbedder | None = None, **options: Any) -> Vectorizer:
    """The same vectorizer with other options."""
    given: dict[str, Any] = {"chunk_column": "body", "metadata": ["author"], **options}
    return Vectorizer(post.url, "post", embedder=embedder or FakeEmbedder(), **given)


def run(vectorizer: Vectorizer) -> int:
    """Drain it; return how many texts its model got."""
    embedder = vectorizer.embedder
    assert isinstance(embedder, FakeEmbedder)
    before = embedder.texts
    vectorizer.run()
    assert vectorizer.verify().ok
    return embedder.texts - before


def generations(post: Subject) -> list[tuple[int, bool, str]]:
    return post.sql("select generation, serving, state from vectorizer.status order by generation")


@pytest.mark.parametrize(
    ("options", "check"),
    [
        ({"metadata": ["title"]}, """metadata = '{"title": "title 7"}'"""),
        ({"metadata": []}, "metadata = '{}'"),
        ({"time_column": "published"}, "time = '2026-01-01'"),
        ({"metadata": ["author"], "always": True}, "chunk = 0"),
    ],
)
def test_a_change_in_place_embeds_nothing(
    post: Subject, options: dict[str, Any], check: str
) -> None:
    with changed(post, **options) as vectorizer:
        vectorizer.install(change=True)
        assert run(vectorizer) == 0
        post.agree()
        assert post.value(f"select count(*) from post_embedding where {check}") in (1, 20)
        assert generations(post) == [(1, True, "live")]
        # It counts from now on.
        post.sql("update post set title = 'x', author = 'y', published = null where id = 7")
        assert run(vectorizer) == 0


def test_a_new_predicate_takes_embeddings_away_and_gives_them_back(post: Subject) -> None:
    post.sql("update post set status = 'draft' where id <= 5")
    with changed(post, where="status = 'public'") as vectorizer:
        vectorizer.install(change=True)
        assert run(vectorizer) == 0
        assert sorted(post.embedded()) == list(range(6, 21))
        post.sql("update post set status = 'public' where id = 5")
        assert run(vectorizer) == 1
    with changed(post) as vectorizer:
        vectorizer.install(change=True)
        assert run(vectorizer) == 4
        post.agree()


def test_a_column_that_was_renamed_is_still_meant(post: Subject) -> None:
    post.sql("alter table post rename author to writer")
    with changed(post, metadata=["author", "title"]) as vectorizer:
        vectorizer.install(change=True)
        assert run(vectorizer) == 0
    assert post.value("select metadata ->> 'author' from post_embedding where source_id = 1")


def test_another_destination_is_another_name(post: Subject) -> None:
    with changed(post, destination="found") as vectorizer:
        vectorizer.install(change=True)
        assert post.value("select count(*) from found") == 20
        assert post.value("select to_regclass('post_embedding')") is None
        assert run(vectorizer) == 0
        vectorizer.install()


def test_without_being_asked_nothing_is_changed(post: Subject) -> None:
    with changed(post, metadata=[]) as vectorizer:
        with pytest.raises(AlreadyInstalled, match="metadata is"):
            vectorizer.install()
        assert post.value("select revision from vectorizer.vectorizer") == 0


def test_a_column_that_is_not_there_changes_nothing(post: Subject) -> None:
    with (
        changed(post, metadata=["nothing"]) as vectorizer,
        pytest.raises(SourceError, match="no column nothing"),
    ):
        vectorizer.install(change=True)
    assert post.settle().rows == 0


def test_a_new_model_serves_when_it_has_caught_up(post: Subject) -> None:
    new = FakeEmbedder(8, "new")
    with changed(post, new) as vectorizer:
        vectorizer.install(change=True)
        assert generations(post) == [(1, True, "live"), (2, False, "building")]
        # Until then the old one serves, whoever asks.
        assert vectorizer.search("body 7", limit=1)[0].key == {"id": 7}
        assert post.vectorizer.search("body 7", limit=1)[0].key == {"id": 7}
        assert run(vectorizer) == 20
        assert generations(post) == [(1, False, "standby"), (2, True, "live")]
        assert post.value("select vector_dims(embedding) from post_embedding limit 1") == 8
        assert vectorizer.search("body 7", limit=1)[0].key == {"id": 7}
        # A program that knows the old model only follows, too.
        assert post.vectorizer.search("body 7", limit=1)[0].key == {"id": 7}
        vectorizer.install()


def test_the_old_one_is_kept_in_step_until_it_is_dropped(post: Subject) -> None:
    with changed(post, FakeEmbedder(8, "new")) as vectorizer:
        vectorizer.install(change=True)
        run(vectorizer)
        post.sql("update post set body = 'other words' where id = 3")
        post.sql("delete from post where id = 4")
        run(vectorizer)
        assert vectorizer.switch(1) == 1
        assert vectorizer.search("other words", limit=1)[0].key == {"id": 3}
        post.agree()
        run(vectorizer)
        assert generations(post)[0] == (1, True, "live"), "it does not take over a second time"
        assert vectorizer.switch() == 2
        vectorizer.drop_generation(1)
        run(vectorizer)
        assert generations(post) == [(2, True, "live")]
        assert post.value("select count(*) from pg_class where relname = 'post_embedding_g1'") == 0
        assert post.value("select count(*) from pg_trigger where not tgisinternal") == 4
        post.sql("update post set body = 'new words' where id = 5")
        assert run(vectorizer) == 1
        with changed(post, FakeEmbedder(8, "third")) as third:
            third.install(change=True)
            assert run(third) == 19
            assert generations(post) == [(2, False, "standby"), (3, True, "live")]


@pytest.mark.parametrize(
    "options",
    [
        {"template": "{title}: {chunk}"},
        {"chunk_size": (2, 4)},
        {"vectors": "halfvec"},
        {"chunk_column": "title"},
        {
            "time_column": "published",
            "partition_interval": timedelta(days=30),
        },
    ],
)
def test_what_readers_must_not_see_half_done_is_a_generation(
    post: Subject, options: dict[str, Any]
) -> None:
    with changed(post, **options) as vectorizer:
        vectorizer.install(change=True)
        post.sql("update post set body = 'edit', title = 'edit' where id = 1")
        run(vectorizer)
        assert [state for *_, state in generations(post)] == ["standby", "live"]
        assert vectorizer.search("edit", limit=1)[0].key == {"id": 1}


def test_a_generation_that_gave_rows_up_does_not_take_over(post: Subject) -> None:
    class Choosy(FakeEmbedder):
        def embed(self, texts: Sequence[str]) -> ArrayLike:
            if any(text == "body 7" for text in texts):
                raise ValueError("not this one")
            return super().embed(texts)

    with changed(post, Choosy(8, "new")) as vectorizer:
        vectorizer.install(change=True)
        for _ in range(5):
            vectorizer.run()
            post.sql(
                'update vectorizer."post@2_row" set available_at = now() where available_at > now()'
            )
        assert generations(post)[0] == (1, True, "live")
        with pytest.raises(NotCaughtUp, match="1 dead letters more"):
            vectorizer.switch()
        assert vectorizer.dead_letters()[0]["generation"] == 2
        assert vectorizer.switch(force=True) == 2


def test_a_long_query_of_a_reader_only_puts_the_switch_off(post: Subject) -> None:
    with changed(post, FakeEmbedder(8, "new")) as vectorizer, post.session() as reader:
        vectorizer.install(change=True)
        reader.execute("begin")
        reader.execute("select count(*) from post_embedding")
        run(vectorizer)
        assert generations(post)[1] == (2, False, "building")
        reader.execute("commit")
        run(vectorizer)
        assert generations(post)[1] == (2, True, "live")


def test_a_second_change_waits_for_the_first(post: Subject) -> None:
    with (
        changed(post, FakeEmbedder(8, "new")) as first,
        changed(post, FakeEmbedder(8, "newer")) as second,
    ):
        first.install(change=True)
        first.install(change=True)
        with pytest.raises(AlreadyInstalled, match=r"generation 2 .* is there already.*drop_gen"):
            second.install(change=True)
        first.drop_generation(2)
        second.install(change=True)
        assert run(second) == 20


def test_what_does_not_work_says_so(post: Subject) -> None:
    vectorizer = post.vectorizer
    with pytest.raises(NotInstalled, match=r"no generation 7.*there are: 1 \(serving\)"):
        vectorizer.switch(7)
    with pytest.raises(AlreadyInstalled, match=r"generation 1 .* serves"):
        vectorizer.drop_generation(1)
    assert vectorizer.switch() == 1
    with changed(post, key=["id"]) as other, pytest.raises(AlreadyInstalled, match="another key"):
        other.install(change=True)
    with (
        changed(post, FakeEmbedder(8, "other")) as other,
        pytest.raises(ConfigurationError, match="change"),
    ):
        other.run()


def test_one_that_is_building_does_not_hold_the_serving_one_up(post: Subject) -> None:
    class Down(FakeEmbedder):
        def embed(self, texts: Sequence[str]) -> ArrayLike:
            raise EmbedderUnavailable(f"down for {len(texts)} texts")

    with changed(post, Down(8, "new")) as vectorizer:
        vectorizer.install(change=True)
        post.sql("update post set body = 'edited' where id = 1")
        with pytest.raises(EmbedderUnavailable):
            vectorizer.run()
        post.agree()


def test_suspend_and_uninstall_mean_all_generations(post: Subject) -> None:
    with changed(post, FakeEmbedder(8, "new")) as vectorizer:
        vectorizer.install(change=True)
        vectorizer.suspend()
        post.sql("alter table post alter body type varchar")
        post.sql("update post set body = 'edited' where id = 2")
        vectorizer.resume()
        run(vectorizer)
        assert generations(post)[1] == (2, True, "live")
        post.sql("update post set body = 'again' where id = 2")
        run(vectorizer)
        vectorizer.switch(1)
        post.agree()
        vectorizer.uninstall(drop_embeddings=True)
    left = post.sql("select relname from pg_class where relname ~ '^post' order by 1")
    assert left == [("post",), ("post_pkey",)]
    assert post.value("select count(*) from pg_trigger where not tgisinternal") == 0


def test_kept_embeddings_of_a_later_generation_are_taken_up_again(post: Subject) -> None:
    with changed(post, FakeEmbedder(8, "new")) as vectorizer:
        vectorizer.install(change=True)
        run(vectorizer)
        vectorizer.uninstall()
        post.sql("update post set body = 'edited' where id = 2")
        vectorizer.install()
        assert run(vectorizer) == 1


def test_grants_reach_the_new_generation(post: Subject) -> None:
    post.sql("create role searcher_of_generations")
    try:
        post.sql("grant select on post_embedding, post_embedding_g1 to searcher_of_generations")
        with changed(post, FakeEmbedder(8, "new")) as vectorizer:
            vectorizer.install(change=True)
            run(vectorizer)
        for table in ("post_embedding", "post_embedding_g2"):
            assert post.value(
                "select has_table_privilege('searcher_of_generations', %s, 'select')", table
            )
    finally:
        post.sql("drop owned by searcher_of_generations")
        post.sql("drop role searcher_of_generations")


def test_no_search_fails_or_mixes_models_while_the_model_changes(post: Subject) -> None:
    """Two models of the same dimension: nothing but care keeps them apart."""
    stop = threading.Event()
    searches = 0

    def search() -> None:
        nonlocal searches
        embedder = FakeEmbedder()
        with Vectorizer.connect(post.url, "post", embedder=embedder) as reader:
            while not stop.is_set():
                (found,) = reader.search("body 7", limit=1)
                # The vector of the very text: another model's would be far off.
                assert found.contents == "body 7"
                assert found.distance == pytest.approx(0, abs=1e-5)
                searches += 1

    def write() -> None:
        with psycopg.connect(post.url, autocommit=True) as connection:
            number = 100
            while not stop.is_set():
                number += 1
                connection.execute(
                    "insert into post (id, body) values (%s, %s)", (number, f"text {number}")
                )
                connection.execute(
                    "update post set body = body || ' more' where id = %s", (number - 5,)
                )
                connection.execute("delete from post where id = %s", (number - 10,))

    with ThreadPoolExecutor(3) as threads, changed(post, FakeEmbedder(16, "new")) as vectorizer:
        running = [threads.submit(search), threads.submit(search), threads.submit(write)]
        try:
            for model in ("new", "newer"):
                with changed(post, FakeEmbedder(16, model)) as worker:
                    worker.install(change=True)
                    deadline = time.monotonic() + 60
                    while worker.status()["model"] != model:
                        assert time.monotonic() < deadline, worker.status()
                        worker.process()
                    before = searches
                    while searches < before + 20:
                        assert time.monotonic() < deadline
                        worker.process()
            vectorizer.drop_generation(1)
            vectorizer.drop_generation(2)
            before = searches
            while searches < before + 20:
                assert not any(future.done() for future in running)
        finally:
            stop.set()
        for future in running:
            future.result()
    with changed(post, FakeEmbedder(16, "newer")) as vectorizer:
        run(vectorizer)
        rows = post.sql("select contents, embedding::real[] from post_embedding")
        expected = FakeEmbedder(16, "newer").embed([text for text, _ in rows])
        assert np.allclose(expected, [vector for _, vector in rows], atol=1e-6)
