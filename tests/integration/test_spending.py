"""Nobody pays twice, and nobody pays more than he wants."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from subject import Subject

from vectorizer import Vectorizer
from vectorizer.errors import BudgetExhausted, EmbedderUnavailable
from vectorizer.testing import FakeEmbedder

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import ArrayLike

    Attach = Callable[..., Subject]

TABLE = """
create table post (id int primary key, title text, body text);
insert into post select n, 'title ' || n, 'this is body ' || n from generate_series(1, 20) n
"""
# What `estimate_tokens` says of any of these bodies but the shortest nine: a third of its bytes.
TOKENS = 5


@pytest.fixture
def attach(vectorizer_url: str) -> Iterator[Attach]:
    """Twenty posts with a vectorizer of these options."""
    subjects: list[Subject] = []

    def make(**options: Any) -> Subject:
        subject = Subject(vectorizer_url, **options)
        subjects.append(subject)
        subject.script(TABLE)
        subject.vectorizer.install()
        return subject

    yield make
    for subject in subjects:
        subject.__exit__()


def usage(post: Subject) -> tuple[int, ...]:
    """Return texts asked for and sent, tokens asked for and sent."""
    return post.sql(
        "select sum(texts_asked)::int, sum(texts_sent)::int, sum(tokens_asked)::int,"
        " sum(tokens_sent)::int from vectorizer.usage"
    )[0]


def test_accounts_are_kept(attach: Attach) -> None:
    post = attach()
    post.sql("update post set body = 'this is body 1' where id = 2")
    counts = post.settle()
    # Two texts are the same, and sent once.
    assert (counts.texts, usage(post)) == (19, (20, 19, 20 * TOKENS, 19 * TOKENS))
    post.sql("update post set body = 'this is other' where id = 2")
    post.settle()
    assert usage(post)[:2] == (21, 20)
    assert post.vectorizer.status()["tokens_today"] == 20 * TOKENS


def test_what_comes_back_is_in_the_cache(attach: Attach) -> None:
    post = attach(cache=True)
    post.settle()
    post.sql("update post set body = 'something else' where id <= 10")
    assert post.settle().texts == 1
    post.sql("update post set body = 'this is body ' || id")
    assert post.settle().texts == 0
    post.sql("create table begin_again as table post")
    post.sql("truncate post")
    post.settle()
    post.sql("insert into post select id + 100, title, body from begin_again")
    assert post.settle().texts == 0
    # Another table, another vectorizer, the same model: the same cache.
    post.sql("create table other (id int primary key, body text)")
    post.sql("insert into other select id, body from post")
    with Vectorizer(
        post.url, "other", embedder=FakeEmbedder(), chunk_column="body", cache=True
    ) as other:
        other.install()
        assert other.run().texts == 0
        assert other.verify().ok
    with Vectorizer(
        post.url, "other", name="elsewhere", destination="elsewhere", chunk_column="body",
        embedder=FakeEmbedder(model="another"), cache=True,
    ) as another:  # fmt: skip
        another.install()
        assert another.run().texts == 20


def test_without_a_cache_nothing_is_kept(attach: Attach) -> None:
    post = attach()
    post.settle()
    assert post.value("select count(*) from vectorizer.cache") == 0
    post.sql("update post set body = 'something else' where id = 1")
    post.settle()
    post.sql("update post set body = 'this is body 1' where id = 1")
    assert post.settle().texts == 1


def test_the_cache_is_bounded(attach: Attach) -> None:
    post = attach(cache=True)
    post.settle()
    post.sql("update vectorizer.cache set used_on = current_date - 100 where ctid <= '(0,3)'")
    post.sql(
        "update vectorizer.cache set used_on = current_date - 10 where used_on = current_date"
        " and ctid <= '(0,8)'"
    )
    assert post.value("select vectorizer.trim_cache()") == 3
    post.sql("set vectorizer.cache_max_rows = 14")
    assert post.value("select vectorizer.trim_cache()") == 3
    assert post.value("select min(used_on) = current_date - 10 from vectorizer.cache")
    # What is used is young again.
    post.sql("truncate post_embedding_g1, vectorizer.post_row")
    post.vectorizer.verify(repair=True)
    assert post.settle().texts == 6
    assert post.value("select min(used_on) = current_date from vectorizer.cache")


def test_a_new_generation_takes_over_what_it_can(attach: Attach) -> None:
    post = attach(metadata=["title"])
    post.settle()
    with Vectorizer(
        post.url, "post", embedder=post.embedder, chunk_column="body", metadata=["title"],
        vectors="halfvec",
    ) as changed:  # fmt: skip
        changed.install(change=True)
        assert changed.run().texts == 0
        assert changed.verify().ok
        assert post.vectorizer.status()["generation"] == 2
    with Vectorizer(
        post.url, "post", embedder=post.embedder, chunk_column="body", metadata=["title"],
        template="{chunk}{title}", vectors="halfvec",
    ) as changed:  # fmt: skip
        post.sql("update post set title = null where id <= 15")
        changed.install(change=True)
        assert changed.run().texts == 5


def test_the_budget_of_a_day(attach: Attach) -> None:
    post = attach(max_tokens_per_day=8 * TOKENS + 1)
    counts = post.vectorizer.run()
    assert (counts.texts, counts.rows) == (8, 20)
    assert len(post.embedded()) == 8
    status = post.vectorizer.status()
    assert (status["retrying"], status["dead_letters"]) == (12, 0)
    assert status["warnings"][0].startswith(f"the budget of {8 * TOKENS + 1} tokens a day is used")
    assert post.vectorizer.process() == 0
    # Capture, and whatever costs nothing, go on.
    embedded = sorted(post.embedded())
    post.sql("delete from post where id = %s", embedded[0])
    post.sql("update post set body = 'more than there is' where id = %s", embedded[1])
    post.sql("insert into post values (200, 't', 'this is body 1')")
    post.vectorizer.run()
    assert len(post.embedded()) == 7
    # Another day.
    post.sql("update vectorizer.usage set day = day - 1")
    row = "vectorizer.post_row"
    assert post.value(f"select max(available_at) - now() < '1 day' from {row}")
    post.sql(f"update {row} set available_at = now() where available_at > now()")
    assert post.vectorizer.run().texts == 8
    with Vectorizer(
        post.url, "post", embedder=FakeEmbedder(), chunk_column="body", max_tokens_per_day=10_000
    ) as richer:
        richer.install(change=True)
        richer.run()
        post.settle()


def test_a_larger_budget_is_used_at_once(attach: Attach) -> None:
    post = attach(max_tokens_per_day=8 * TOKENS, batch_size=5)
    assert post.vectorizer.run().texts == 8
    with Vectorizer(
        post.url, "post", embedder=post.embedder, chunk_column="body", max_tokens_per_day=10_000
    ) as richer:
        richer.install(change=True)
        assert richer.status()["warnings"] == []
        assert richer.run().texts == 12
        assert richer.verify().ok


def test_the_backfill_rests_when_the_budget_of_the_day_is_used_up(attach: Attach) -> None:
    post = attach(max_tokens_per_day=8 * TOKENS, batch_size=5)
    assert post.vectorizer.run().rows == 10
    assert (len(post.embedded()), post.vectorizer.status()["retrying"]) == (8, 2)
    # Nor is it gone through for nothing. What changes is looked at.
    post.sql("delete from post where id in (1, 2)")
    post.sql("insert into post values (100, 't', 'new')")
    assert post.vectorizer.run().rows == 3
    assert (len(post.embedded()), post.vectorizer.status()["retrying"]) == (6, 3)
    post.sql("update vectorizer.usage set day = day - 1")
    assert post.vectorizer.run().texts == 8


def test_the_budget_of_a_run(attach: Attach) -> None:
    post = attach()
    with pytest.raises(BudgetExhausted):
        post.vectorizer.run(max_tokens=7 * TOKENS)
    assert len(post.embedded()) == 7
    assert post.vectorizer.run(max_tokens=13 * TOKENS).texts == 13
    post.settle()


def test_both_budgets(attach: Attach) -> None:
    post = attach(max_tokens_per_day=5 * TOKENS)
    with pytest.raises(BudgetExhausted):
        post.vectorizer.run(max_tokens=3 * TOKENS)
    assert post.vectorizer.run(max_tokens=3 * TOKENS).texts == 2
    assert usage(post)[3] == 5 * TOKENS


def test_a_pause_that_a_provider_asks_for_holds_every_worker(attach: Attach) -> None:
    class Limited(FakeEmbedder):
        def embed(self, texts: Sequence[str]) -> ArrayLike:
            raise EmbedderUnavailable(f"429 for {len(texts)} texts", retry_after=600)

    post = attach()
    with (
        Vectorizer(post.url, "post", embedder=Limited(), chunk_column="body") as limited,
        pytest.raises(EmbedderUnavailable, match="429"),
    ):
        limited.run()
    post.sql("insert into post values (100, 't', 'new')")
    with pytest.raises(EmbedderUnavailable, match=r"asked for a pause.* 429 for 20") as caught:
        post.vectorizer.run()
    assert 590 < (caught.value.retry_after or 0) <= 600
    assert post.embedder.calls == 0
    post.sql("update vectorizer.provider set not_before = now()")
    post.sql("update vectorizer.post_row set available_at = now() where available_at is not null")
    assert post.vectorizer.run().texts == 21


def test_sync_tells_that_the_budget_was_not_enough(attach: Attach) -> None:
    post = attach(max_tokens_per_day=5 * TOKENS)
    assert post.vectorizer.sync([1, 2]).texts == 2
    with pytest.raises(BudgetExhausted, match="post: the budget of the day is used up"):
        post.vectorizer.sync(range(1, 9))
    assert len(post.embedded()) >= 5
    # What needs no model needs no budget.
    post.sql("delete from post where id = 1")
    assert post.vectorizer.sync([1, 2]).deleted == 1


def hold(post: Subject, seconds: int) -> None:
    post.sql(
        "insert into vectorizer.provider select vectorizer.provider_of(definition),"
        " now() + make_interval(secs => %s), 'too many requests' from vectorizer.vectorizer",
        seconds,
    )


def test_what_needs_no_model_is_done_in_a_long_pause(attach: Attach) -> None:
    post = attach(batch_size=5)
    post.vectorizer.process()
    first = sorted(post.embedded())
    assert len(first) == 5
    hold(post, 600)
    post.sql("delete from post where id = %s", first[0])
    post.sql("update post set body = null where id = %s", first[1])
    post.sql("update post set title = 'other', body = body where id = %s", first[2])
    post.sql("update post set body = 'changed' where id = %s", first[3])
    with pytest.raises(EmbedderUnavailable, match=r"a pause until .* UTC: too many requests"):
        post.vectorizer.run()
    assert sorted(post.embedded()) == first[2:]
    # What was changed waits as long as the provider asked for, and the rest of the table, too.
    waiting = "select count(*) from vectorizer.post_row where available_at > now() + '590 s'"
    assert post.value(waiting) == 1
    assert post.value("select count(*) from vectorizer.post_row") == 4


def test_what_waits_for_the_model_is_not_looked_at_in_each_pause(attach: Attach) -> None:
    post = attach()
    post.settle()
    post.sql("update post set body = 'changed ' || id")
    for rows in (20, 0, 0):
        hold(post, 600)
        post.sql("insert into post values (100, 't', null)")
        post.sql("delete from post where id = 100")
        assert post.vectorizer.process() == rows + 1
        with pytest.raises(EmbedderUnavailable):
            post.vectorizer.process()
        # The pause is over, and the provider asks for another.
        post.sql("truncate vectorizer.provider")
        post.sql("update vectorizer.post_row set available_at = now() where available_at > now()")
    assert post.settle().texts == 20


def test_a_new_generation_goes_on_while_the_provider_of_the_old_one_is_held(
    attach: Attach,
) -> None:
    class Elsewhere(FakeEmbedder):
        config = {"provider": "elsewhere"}  # noqa: RUF012 - as a class of the user has it

    post = attach(batch_size=5)
    post.settle()
    hold(post, 600)
    with Vectorizer(
        post.url, "post", embedder=Elsewhere(model="other"), chunk_column="body", batch_size=5
    ) as changed:
        changed.install(change=True)
        assert changed.run().texts == 20
        assert changed.status()["generation"] == 2
        assert changed.verify().ok


def test_a_short_pause_is_waited_for(attach: Attach) -> None:
    post = attach()
    hold(post, 9)
    post.sql("delete from post where id = 1")
    with pytest.raises(EmbedderUnavailable):
        post.vectorizer.process()
    assert post.value("select count(*) from vectorizer.post_row") == 0
