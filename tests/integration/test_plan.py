"""What a plan says is what a run then does."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from subject import Subject

from vectorizer import Vectorizer
from vectorizer.embedders import OpenAIEmbedder
from vectorizer.errors import SourceError
from vectorizer.testing import FakeEmbedder

if TYPE_CHECKING:
    from collections.abc import Iterator

TABLE = """
create table post (id int primary key, title text, body text, status text default 'public');
insert into post select n, 'title ' || n, 'this is body ' || n % 15 from generate_series(1, 20) n;
insert into post values (21, 'blank', '  ', 'public'), (22, 'none', null, 'public'),
  (23, 'hidden', 'x', 'draft')
"""


@pytest.fixture
def post(vectorizer_url: str) -> Iterator[Subject]:
    with Subject(vectorizer_url, where="status = 'public'") as subject:
        subject.script(TABLE)
        yield subject


def changed(post: Subject, embedder: FakeEmbedder | None = None, **options: Any) -> Vectorizer:
    options = {"chunk_column": "body", "where": "status = 'public'", **options}
    return Vectorizer(post.url, "post", embedder=embedder or FakeEmbedder(), **options)


def test_a_fresh_install(post: Subject) -> None:
    plan = post.vectorizer.plan(price=2.0, tokens_per_minute=30, requests_per_minute=3)
    assert (plan.action, plan.changes, plan.estimated) == ("install", (), False)
    assert (plan.rows_total, plan.rows_read, plan.rows, plan.chunks) == (23, 23, 20, 20)
    assert (plan.texts_to_send, plan.tokens, plan.tokens_to_send) == (15, 100, 75)
    assert (plan.cost, plan.seconds) == (75 * 2 / 1e6, 150)
    # Nothing was done.
    assert post.value("select to_regclass('post_embedding')") is None
    assert post.value("select count(*) from pg_trigger where not tgisinternal") == 0
    assert post.embedder.texts == 0
    post.vectorizer.install()
    counts = post.vectorizer.run()
    assert (counts.texts, counts.tokens, counts.requests) == (
        plan.texts_to_send, plan.tokens_to_send, plan.requests,
    )  # fmt: skip


def test_without_our_schema_nothing_of_it_stays(vectorizer_url: str) -> None:
    with Subject(vectorizer_url) as post:
        post.script(TABLE)
        assert post.vectorizer.plan().texts_to_send == 16
        assert post.value("select to_regnamespace('vectorizer')") is None


def test_what_waits(post: Subject) -> None:
    post.vectorizer.install()
    post.vectorizer.run()
    assert post.vectorizer.plan().texts_to_send == 0
    post.sql("update post set body = 'edited' where id <= 2")
    post.sql("insert into post values (100, 't', 'new')")
    with Vectorizer.connect(post.url, "post") as vectorizer:
        plan = vectorizer.plan()
    assert (plan.action, plan.texts_to_send, plan.rows) == ("run", 2, 21)
    assert post.vectorizer.run().texts == 2


@pytest.mark.parametrize(
    ("options", "action", "texts"),
    [
        ({}, "run", 0),
        ({"cache": True}, "note", 0),
        ({"metadata": ["title"]}, "compare", 0),
        ({"where": None}, "compare", 1),
        ({"template": "{title}: {chunk}"}, "generation", 20),
        ({"vectors": "halfvec"}, "generation", 0),
        ({"embedder": FakeEmbedder(8, "new")}, "generation", 15),
    ],
)
def test_a_change(post: Subject, options: dict[str, Any], action: str, texts: int) -> None:
    post.vectorizer.install()
    post.vectorizer.run()
    with changed(post, **options) as vectorizer:
        plan = vectorizer.plan()
        assert (plan.action, plan.texts_to_send) == (action, texts)
        given = {"model", "dimensions", "embedder"} if "embedder" in options else set(options)
        assert {change.option for change in plan.changes} == given
        assert post.value("select count(*) from vectorizer.vectorizer") == 1
        vectorizer.install(change=True)
        assert vectorizer.run().texts == texts


def test_a_large_table_is_sampled(post: Subject) -> None:
    post.sql("insert into post select n, 't', 'number ' || n from generate_series(1000, 20000) n")
    post.sql("analyze post")
    plan = post.vectorizer.plan(sample=2000)
    assert plan.estimated
    assert plan.rows_total == pytest.approx(19_024, rel=0.05)
    assert plan.rows_read <= 2000
    assert plan.texts_to_send == pytest.approx(19_000, rel=0.1)


def test_rows_that_would_fail(post: Subject) -> None:
    class Short(FakeEmbedder):
        max_text_tokens = 4

        def cut(self, text: str, most: int) -> list[str]:
            return [text[n : n + most] for n in range(0, len(text), most)]

    with changed(post, Short(), on_long_text="dead-letter") as vectorizer:
        assert vectorizer.plan().rows_failing == 20


def test_openai_has_its_price(post: Subject) -> None:
    embedder = OpenAIEmbedder("text-embedding-3-large", api_key="x")
    with Vectorizer(post.url, "post", embedder=embedder, chunk_column="body") as vectorizer:
        plan = vectorizer.plan()
    assert plan.price == 0.13
    assert plan.cost == pytest.approx(plan.tokens_to_send * 0.13e-6)
    assert plan.seconds is not None
    assert plan.to_json()["model"] == "text-embedding-3-large"


def test_what_cannot_be_installed_cannot_be_planned(post: Subject) -> None:
    with changed(post, chunk_column="nothing") as vectorizer, pytest.raises(SourceError):
        vectorizer.plan()
