"""The index over the vectors: built when the backfill is through, used, and followed."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from subject import Subject

from vectorizer import Vectorizer
from vectorizer.testing import FakeEmbedder

if TYPE_CHECKING:
    from collections.abc import Iterator

TABLE = """
create table post (id int primary key, body text, kind text,
  at timestamptz default '2026-01-15');
insert into post (id, body, kind)
  select n, 'text ' || n, case when n % 100 = 0 then 'rare' else 'usual' end
  from generate_series(1, 400) n
"""


@pytest.fixture
def post(vectorizer_url: str) -> Iterator[Subject]:
    with Subject(vectorizer_url, index="hnsw", metadata=["kind"]) as subject:
        subject.script(TABLE)
        subject.vectorizer.install()
        yield subject


def changed(post: Subject, embedder: FakeEmbedder | None = None, **options: Any) -> Vectorizer:
    options = {"chunk_column": "body", "metadata": ["kind"], **options}
    return Vectorizer(post.url, "post", embedder=embedder or FakeEmbedder(), **options)


def methods(post: Subject, storage: str = "post_embedding_g1") -> list[str]:
    rows = post.sql(
        "select m.amname from pg_index i join pg_class c on c.oid = i.indexrelid"
        " join pg_am m on m.oid = c.relam where i.indrelid = %s::regclass and i.indisvalid"
        " and m.amname in ('hnsw', 'ivfflat')",
        storage,
    )
    return [name for (name,) in rows]


def test_it_is_built_when_everything_is_embedded(post: Subject) -> None:
    post.vectorizer.process()
    assert methods(post) == []
    post.settle()
    assert methods(post) == ["hnsw"]
    post.sql("set enable_seqscan = off")
    plan = post.sql(
        "explain select * from post_embedding order by embedding <=> %s::vector limit 5",
        str([1] * 16),
    )
    assert "Index Scan using post_embedding_g1" in str(plan)


def test_a_filter_or_a_high_limit_loses_nothing(post: Subject) -> None:
    post.settle()
    post.sql("alter database current set enable_seqscan = off".replace(
        "current", str(post.value("select quote_ident(current_database())"))
    ))  # fmt: skip
    with changed(post, index="hnsw") as vectorizer:
        assert len(vectorizer.search("text 7", filter={"kind": "rare"}, limit=4)) == 4
        assert len(vectorizer.search("text 7", limit=200)) == 200


def test_another_method_replaces_it(post: Subject) -> None:
    post.settle()
    with changed(post, index="ivfflat") as vectorizer:
        vectorizer.install(change=True)
        assert vectorizer.run().texts == 0
        assert methods(post) == ["ivfflat"]


def test_a_new_generation_has_its_own_before_it_serves(post: Subject) -> None:
    post.settle()
    with changed(post, FakeEmbedder(8, "new"), index="hnsw", vectors="halfvec") as vectorizer:
        vectorizer.install(change=True)
        while vectorizer.status()["generation"] == 1:
            vectorizer.process()
        assert methods(post, "post_embedding_g2") == ["hnsw"]
        assert vectorizer.search("text 7", limit=1)[0].key == {"id": 7}


def test_partitions_have_theirs(post: Subject) -> None:
    post.settle()
    with changed(
        post, index="hnsw", time_column="at", partition_interval=timedelta(days=30)
    ) as vectorizer:
        vectorizer.install(change=True)
        vectorizer.run()
        post.sql("insert into post values (1000, 'later', 'rare', '2026-06-01')")
        vectorizer.run()
        assert vectorizer.verify().ok
    partitions = post.sql(
        "select inhrelid::regclass::text from pg_inherits"
        " where inhparent = 'post_embedding_g2'::regclass"
    )
    assert len(partitions) == 2
    for (partition,) in partitions:
        assert methods(post, partition) == ["hnsw"]
