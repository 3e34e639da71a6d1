"""What happens between a table and a provider over real HTTP: refusals, limits, storms, outages."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from itertools import count
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from openai_server import (
    Server,
    after,
    answer,
    fail,
    limited,
    poison,
    serve,
    short_of_one,
    small,
    vector,
)

from vectorizer import Vectorizer, client
from vectorizer.embedders.openai import OpenAIEmbedder
from vectorizer.errors import (
    ConfigurationError,
    EmbedderRefused,
    EmbedderUnavailable,
    VectorizerPaused,
)

_keys = count(1)


@pytest.fixture(scope="module")
def running() -> Iterator[Server]:
    with serve(dimensions=8) as server:
        yield server


@pytest.fixture
def server(running: Server) -> Server:
    running.reset()
    return running


@pytest.fixture
def connection(vectorizer_url: str) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(vectorizer_url, autocommit=True) as connection:
        connection.execute("create table post (id bigint primary key, body text)")
        yield connection


class Posts:
    """The table with its vectorizer and what was asked of the server for it."""

    def __init__(self, url: str, server: Server, connection: psycopg.Connection[Any]) -> None:
        self._url = url
        self.server = server
        self.db = connection
        self.embedder: OpenAIEmbedder
        self.vectorizer: Vectorizer

    def attach(self, embedder: dict[str, Any] | None = None, **options: Any) -> Vectorizer:
        # Under one key a pause would go on into the next test.
        key = f"key-{next(_keys)}"
        given = {"dimensions": 8, "base_url": self.server.url, "max_attempts": 1, "api_key": key}
        self.embedder = OpenAIEmbedder("test", **{**given, **(embedder or {})})
        self.vectorizer = Vectorizer(
            self._url, "post", embedder=self.embedder, chunk_column="body", **options
        )
        self.vectorizer.install()
        return self.vectorizer

    def fill(self, rows: int, text: str = "post {}") -> None:
        self.db.execute(
            "insert into post select n, replace(%s, '{}', n::text) from generate_series(1, %s) n",
            [text, rows],
        )

    @property
    def embedded(self) -> int:
        (count,) = self.db.execute(
            "select count(distinct source_id) from post_embedding"
        ).fetchone() or (0,)
        return int(count)

    @property
    def attempts(self) -> int:
        (most,) = self.db.execute("select max(attempts) from vectorizer.post_row").fetchone() or (
            0,
        )
        return int(most or 0)

    def failed(self) -> list[tuple[int, str]]:
        found = self.db.execute("select * from vectorizer.post_row where attempts > 0")
        names = [column.name for column in found.description or ()]
        error = names.index("error")
        return [(record[0], record[error]) for record in found.fetchall()]

    def check(self) -> None:
        """Each stored vector is that of its text, and nothing is missing."""
        for text, stored in self.db.execute("select contents, embedding::text from post_embedding"):
            found = [float(value) for value in stored.strip("[]").split(",")]
            assert found == pytest.approx(vector(text, 8).tolist(), abs=1e-6)
        assert self.vectorizer.verify().ok


@pytest.fixture
def posts(
    vectorizer_url: str, server: Server, connection: psycopg.Connection[Any]
) -> Iterator[Posts]:
    made = Posts(vectorizer_url, server, connection)
    yield made
    made.vectorizer.close()
    made.embedder.close()


@pytest.mark.parametrize("batch_size", [200, 2000])
def test_one_poison_row_costs_few_requests_and_no_other_row(posts: Posts, batch_size: int) -> None:
    posts.fill(2000)
    bad = random.SystemRandom().randint(1, 2000)
    print("poison row", bad)
    posts.db.execute("update post set body = 'poison' where id = %s", [bad])
    posts.server.script(then=poison("poison"))
    posts.attach(batch_size=batch_size).run()
    assert posts.embedded == 1999
    assert len(posts.server.requests) - 2000 / batch_size <= 2 * math.log2(2000)
    assert posts.db.execute("select key, error from vectorizer.dead_letters").fetchall() == []
    assert posts.failed() == [
        (
            bad,
            "InputRejected: test at " + posts.server.url[7:-3] + ": 400 your input is not allowed",
        )
    ]


def test_a_request_refused_as_too_large_is_split(posts: Posts) -> None:
    posts.fill(300, "a text of some length, number {}")
    posts.server.script(then=small(max_texts=64, max_bytes=1500, max_text_bytes=200))
    counts = posts.attach().run()
    assert (counts.rows, counts.failed) == (300, 0)
    assert posts.attempts == 0
    posts.check()


LONG = " ".join(f"word{number}" for number in range(100))


def long_text(posts: Posts, policy: str, **limits: Any) -> None:
    posts.fill(20)
    posts.db.execute("update post set body = %s where id = 7", [LONG])
    posts.server.script(then=small(max_texts=64, max_bytes=5000, max_text_bytes=200))
    posts.attach(limits, on_long_text=policy).run()


def rows_of(posts: Posts) -> list[str]:
    found = posts.db.execute(
        "select contents from post_embedding where source_id = 7 order by chunk"
    )
    return [text for (text,) in found]


@pytest.mark.parametrize("limits", [{}, {"max_text_tokens": 60}])
def test_a_text_too_long_is_split(posts: Posts, limits: dict[str, Any]) -> None:
    long_text(posts, "split", **limits)
    assert " ".join(rows_of(posts)) == LONG
    assert all(len(text) <= 200 for text in rows_of(posts))
    posts.check()
    # What is known beforehand is never refused.
    refused = [r for r in posts.server.requests if any(len(text) > 200 for text in r.texts)]
    assert bool(refused) != bool(limits)


@pytest.mark.parametrize("limits", [{}, {"max_text_tokens": 60}])
def test_a_text_too_long_is_truncated(posts: Posts, limits: dict[str, Any]) -> None:
    long_text(posts, "truncate", **limits)
    (text,) = rows_of(posts)
    assert LONG.startswith(text)
    assert 60 < len(text) <= 200
    posts.check()


@pytest.mark.parametrize("limits", [{}, {"max_text_tokens": 60}])
def test_a_text_too_long_is_the_matter_of_its_row_alone(
    posts: Posts, limits: dict[str, Any]
) -> None:
    long_text(posts, "dead-letter", **limits)
    assert posts.embedded == 19
    ((key, error),) = posts.failed()
    assert key == 7
    assert error.startswith("InputTooLong: ")


def test_a_storm_of_429_burns_no_attempt(posts: Posts) -> None:
    posts.fill(300)
    rule = limited(100, retry_after=None)
    posts.server.script(then=rule)
    posts.attach({"max_texts": 1, "concurrency": 16, "max_attempts": 5}).run()
    assert len(rule.passed) == 300
    assert len(posts.server.requests) > 300
    assert posts.attempts == 0
    posts.check()


def test_what_was_embedded_before_an_outage_is_kept(posts: Posts) -> None:
    posts.fill(100)
    posts.server.script(*[answer] * 6, then=fail(503, "away", headers={"Retry-After": "120"}))
    posts.attach({"max_texts": 10, "concurrency": 1}, batch_size=100)
    with pytest.raises(EmbedderUnavailable, match="away") as caught:
        posts.vectorizer.run()
    assert caught.value.retry_after == 120
    assert posts.embedded == 60
    assert len(posts.server.requests) == 7  # nothing is sent after the refusal
    assert posts.attempts == 0
    with pytest.raises(EmbedderUnavailable, match="asked for a pause"):
        posts.vectorizer.process()  # the rest waits as long as the provider asked
    posts.db.execute("update vectorizer.post_row set available_at = now()")
    posts.db.execute("delete from vectorizer.provider")
    posts.server.reset()
    with Vectorizer(posts._url, "post", embedder=_calm(posts), chunk_column="body") as again:
        again.run()
    assert sum(len(request.texts) for request in posts.server.requests) == 40
    posts.check()


def _calm(posts: Posts) -> OpenAIEmbedder:
    # Under another key: the pause is for the first one.
    return OpenAIEmbedder(
        "test", dimensions=8, base_url=posts.server.url, api_key="another", max_texts=10,
        concurrency=1,
    )  # fmt: skip


def test_chunks_of_a_row_that_an_outage_cut_are_not_paid_twice(posts: Posts) -> None:
    paragraphs = "\n\n".join(f"{n} " + "word " * 150 for n in range(10))
    posts.db.execute("insert into post values (1, %s)", [paragraphs])
    posts.server.script(*[answer] * 4, then=fail(503, "away"))
    posts.attach({"max_texts": 2, "concurrency": 1})
    with pytest.raises(EmbedderUnavailable):
        posts.vectorizer.run()
    assert posts.embedded == 0
    posts.server.reset()
    posts.vectorizer.run()
    assert sum(len(request.texts) for request in posts.server.requests) == 2
    posts.check()


def test_what_was_embedded_before_a_refusal_is_kept(posts: Posts) -> None:
    posts.fill(100)
    posts.server.script(*[answer] * 3, then=fail(401, "wrong key"))
    posts.attach({"max_texts": 10, "concurrency": 1}, batch_size=100)
    with pytest.raises(EmbedderRefused, match="wrong key"):
        posts.vectorizer.run()
    with pytest.raises(VectorizerPaused, match="wrong key"):
        posts.vectorizer.run()
    assert posts.embedded == 30


def test_a_wrong_answer_is_asked_for_again(posts: Posts) -> None:
    posts.fill(50)
    posts.server.script(short_of_one)
    counts = posts.attach().run()
    assert (counts.rows, counts.failed, counts.requests) == (50, 0, 3)
    posts.check()


def test_answers_that_are_always_wrong_do_not_cost_a_request_a_row(posts: Posts) -> None:
    posts.fill(500)
    posts.server.script(then=short_of_one)
    counts = posts.attach(batch_size=500).run()
    assert (posts.embedded, counts.failed) == (0, 500)
    assert counts.requests < 40
    assert all("vectors, one a text, got" in error for _, error in posts.failed())


def test_several_requests_are_in_flight(posts: Posts) -> None:
    posts.fill(160)
    posts.server.script(then=after(0.2))
    posts.attach({"max_texts": 10, "concurrency": 16}, batch_size=160).run()
    arrivals = sorted(request.at for request in posts.server.requests)
    assert len(arrivals) == 16
    assert arrivals[-1] - arrivals[0] < 16 * 0.2 / 2  # one after another it would take 3 s
    posts.check()


def test_texts_of_ten_megabytes(posts: Posts) -> None:
    text = "\n\n".join(f"paragraph {n} " + "word " * 60 for n in range(32_000))
    assert len(text) > 10_000_000
    posts.db.execute("insert into post values (1, %s)", [text])
    counts = posts.attach({"concurrency": 4}).run()
    assert counts.failed == 0
    assert counts.embedded > 9000
    assert posts.vectorizer.verify().ok


def test_a_search_for_half_a_character_is_refused_in_words(posts: Posts) -> None:
    posts.fill(3)
    posts.attach().run()
    with pytest.raises(Exception, match="surrogates not allowed"):
        posts.vectorizer.search("half a \ud83d character")


def test_an_edited_paragraph_of_a_long_text_costs_the_chunks_it_touched(posts: Posts) -> None:
    chance = random.Random(5)  # noqa: S311 - the same in every run
    paragraphs = [" ".join(chance.choices(LONG.split(), k=60)) for _ in range(150)]
    posts.db.execute("insert into post values (1, %s)", ["\n\n".join(paragraphs)])
    posts.attach(template="Post {id}: {chunk}").run()
    (chunks,) = posts.db.execute("select count(*) from post_embedding").fetchone() or (0,)
    assert chunks > 70
    for number in (0, 0, 75, 149):
        paragraphs[number] = "Edited. " + paragraphs[number]
        posts.db.execute("update post set body = %s", ["\n\n".join(paragraphs)])
        written = posts.db.execute("select id, xmin::text from post_embedding_g1").fetchall()
        counts = posts.vectorizer.run()
        assert counts.texts <= 2
        kept = posts.db.execute("select id, xmin::text from post_embedding_g1").fetchall()
        assert len(set(kept) - set(written)) <= 4
        posts.check()
    posts.db.execute("update post set body = body || ' ' where id = 1")
    assert posts.vectorizer.run().texts == 0


@pytest.mark.parametrize("paragraphs", [1, 40])
def test_other_white_space_costs_nothing_and_is_stored(posts: Posts, paragraphs: int) -> None:
    text = "\n\n".join(f"paragraph {n} " + "word " * 60 for n in range(paragraphs))
    posts.db.execute("insert into post values (1, %s), (2, 'one two')", [text])
    posts.attach().run()
    vectors = "select embedding::text from post_embedding order by source_id, chunk"
    before = posts.db.execute(vectors).fetchall()
    wrapped = text.replace(" word word", "\n  word word\r\n")
    posts.db.execute("update post set body = case id when 1 then %s else 'one  two' end", [wrapped])
    assert posts.vectorizer.run().texts == 0
    stored = "select contents from post_embedding where source_id = %s order by chunk"
    found = "".join(contents for (contents,) in posts.db.execute(stored, [1]))
    assert "".join(found.split()) == "".join(wrapped.split())
    assert "\n  word word\r\n" in found
    assert posts.db.execute(stored, [2]).fetchall() == [("one  two",)]
    assert posts.db.execute(vectors).fetchall() == before
    report = posts.vectorizer.verify()
    assert report.ok, report
    assert posts.vectorizer.run().rows == 0


@pytest.mark.parametrize("where", ["metadata", "template"])
def test_a_nul_in_json_is_the_matter_of_its_row_at_most(posts: Posts, where: str) -> None:
    posts.db.execute("alter table post add extra json")
    posts.fill(40)
    posts.db.execute("update post set extra = '{\"a\": 1}'")
    # Valid as json, but no text can hold the character, and so no jsonb.
    posts.db.execute('update post set extra = \'{"a": "\\u0000"}\' where id = 7')
    options = {"metadata": ["extra"]} if where == "metadata" else {"template": "{extra} {chunk}"}
    posts.attach(**options)
    letters: list[Any] = []
    for _ in range(40):
        posts.vectorizer.run()
        posts.db.execute("update vectorizer.post_row set available_at = now() where not dead")
        found = posts.db.execute("select key, error from vectorizer.dead_letters")
        if letters := found.fetchall():
            break
        if posts.embedded == 40:
            break
    if where == "template":
        assert (posts.embedded, letters) == (40, [])
        return
    ((key, error),) = letters
    assert (posts.embedded, key) == (39, {"id": 7})
    assert "u0000" in error


def test_half_characters_from_python_are_refused_in_words(vectorizer_url: str) -> None:
    with client.Sync(vectorizer_url, "half", 2) as store:
        store.create_tables()
        for record in (
            (uuid4(), {}, "half a \ud83d", [1.0, 2.0]),
            (uuid4(), {"a": "\udc00"}, "text", [1.0, 2.0]),
        ):
            with pytest.raises(ConfigurationError, match="record 0"):
                store.upsert([record])
        assert store.table_is_empty()
