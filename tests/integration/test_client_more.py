"""What collections do beyond timescale_vector: types, measures, filters, reading, text, hybrid."""

from __future__ import annotations

import uuid
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import numpy as np
import psycopg
import pytest
from collections_of import KINDS, clients
from vectors_of_pgvector import Bit

from vectorizer import client
from vectorizer.chunking import Chunker
from vectorizer.errors import ConfigurationError, DimensionMismatch
from vectorizer.testing import FakeEmbedder

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@pytest.fixture(params=KINDS)
def make(request: pytest.FixtureRequest, vectorizer_url: str) -> Iterator[Callable[..., Any]]:
    with clients(request.param, vectorizer_url) as make:
        yield make


def filled(store: Any, *rows: tuple[Any, ...]) -> Any:
    """Write rows (contents, metadata, embedding) under the ids 1, 2, 3 …"""
    store.create_tables()
    store.upsert(
        [
            (uuid.UUID(int=n), metadata, contents, embedding)
            for n, (contents, metadata, embedding) in enumerate(rows, 1)
        ]
    )
    return store


def contents(hits: Any) -> list[str]:
    return [hit.contents for hit in hits]


POINTS = [("a", {"n": 1}, [1, 0]), ("b", {"n": 2}, [0, 2]), ("c", {"n": 3}, [3, 3])]


# Types and measures

MEASURES = {
    "cosine": lambda a, b: 1 - a @ b / np.linalg.norm(a) / np.linalg.norm(b),
    "l2": lambda a, b: np.linalg.norm(a - b),
    "inner_product": lambda a, b: -(a @ b),
    "ip": lambda a, b: -(a @ b),
    "l1": lambda a, b: np.abs(a - b).sum(),
}


@pytest.mark.parametrize("vector_type", ["vector", "halfvec"])
@pytest.mark.parametrize("measure", MEASURES)
def test_measures(make: Callable[..., Any], measure: str, vector_type: str) -> None:
    store = filled(make("items", 2, distance_type=measure, vector_type=vector_type), *POINTS)
    query = np.array([1, 0.5])
    expected = sorted(MEASURES[measure](query, np.array(point)) for _, _, point in POINTS)
    for index in (None, client.HNSWIndex()):
        if index is not None:
            store.create_embedding_index(index)
        hits = store.search(query)
        assert [hit.distance for hit in hits] == pytest.approx(expected, rel=1e-5)
        assert all(hit.embedding.dtype == np.float32 for hit in hits)
    cosine = store.search(query, measure="cosine")
    assert [hit.distance for hit in cosine] == pytest.approx(
        sorted(MEASURES["cosine"](query, np.array(point)) for _, _, point in POINTS), abs=1e-6
    )
    if measure == "l1":
        with pytest.raises(ConfigurationError, match="ivfflat cannot index l1"):
            store.create_embedding_index(client.IvfflatIndex())


BITS = [("00000000", "none"), ("11111111", "all"), ("11110000", "first"), ("10101010", "odd")]


@pytest.mark.parametrize("measure", ["hamming", "jaccard"])
def test_bits(make: Callable[..., Any], measure: str) -> None:
    store = make("items", 8, vector_type="bit", distance_type=measure)
    filled(store, *((name, {}, bits) for bits, name in BITS))
    store.upsert([(uuid.UUID(int=9), {}, "array", np.array([1, 1, 1, 0, 0, 0, 0, 0], bool))])
    for index in (None, client.HNSWIndex()):
        if index is not None:
            store.create_embedding_index(index)
        hits = store.search([1, 1, 1, 1, 0, 0, 0, 0], limit=2)
        assert contents(hits) == ["first", "array"]
        assert hits[0].embedding.tolist() == [True] * 4 + [False] * 4
    for wrong in ("1111", "1111000x", [1, 2, 0, 0, 0, 0, 0, 0], [0.5] * 8, None):
        with pytest.raises(ConfigurationError, match="record 0"):
            store.upsert([(uuid.UUID(int=1), {}, "x", wrong)])
    with pytest.raises(ConfigurationError, match="centroid"):
        store.centroid()
    with pytest.raises(ConfigurationError, match="does not measure a bit"):
        make("items", 8, vector_type="bit", distance_type="l2")


def test_bits_not_in_whole_bytes(make: Callable[..., Any]) -> None:
    store = make("items", 11, vector_type="bit")
    filled(store, ("x", {}, "10000000001"), ("y", {}, Bit("01111111110")))
    (hit, _) = store.search("10000000001")
    assert (hit.contents, hit.distance) == ("x", 0)
    assert hit.embedding.tolist() == [True, *[False] * 9, True]


def test_halfvec_beyond_its_range(make: Callable[..., Any]) -> None:
    store = make("items", 2, vector_type="halfvec")
    store.create_tables()
    with pytest.raises(ConfigurationError, match=r"record 1: .*65504"):
        store.upsert([(uuid.UUID(int=n), {}, "x", [1, 10.0 ** (5 * n)]) for n in range(2)])
    assert store.table_is_empty()


def test_more_dimensions_than_an_index_takes(make: Callable[..., Any]) -> None:
    wide = filled(make("wide", 2001), ("x", {}, np.ones(2001)))
    with pytest.raises(ConfigurationError, match="halfvec"):
        wide.create_embedding_index(client.HNSWIndex())
    half = filled(make("half", 3072, vector_type="halfvec"), ("x", {}, np.ones(3072)))
    half.create_embedding_index(client.HNSWIndex())
    assert contents(half.search(np.ones(3072))) == ["x"]


def test_normalized(make: Callable[..., Any]) -> None:
    store = filled(make("items", 2, normalize=True, distance_type="ip"), *POINTS)
    assert [hit.embedding.tolist() for hit in store.fetch([uuid.UUID(int=2)])] == [[0, 1]]
    assert [hit.distance for hit in store.search([5, 5], limit=1)] == pytest.approx([-1])
    with pytest.raises(ConfigurationError, match="record 0: a vector of zeros"):
        store.upsert([(uuid.UUID(int=1), {}, "x", [0, 0])])
    with pytest.raises(ConfigurationError, match="query_embedding: a vector of zeros"):
        store.search([0, 0])


def test_centroid(make: Callable[..., Any]) -> None:
    store = filled(make("items", 2), *POINTS)
    assert store.centroid().tolist() == pytest.approx([4 / 3, 5 / 3])
    assert store.centroid({"n": {"$lt": 3}}).tolist() == [0.5, 1]
    assert store.centroid({"n": 7}) is None
    half = filled(make("half", 2, vector_type="halfvec"), *POINTS)
    assert half.centroid().tolist() == pytest.approx([4 / 3, 5 / 3])


def test_a_distance_threshold(make: Callable[..., Any]) -> None:
    store = filled(make("items", 2, distance_type="l2"), *POINTS)
    assert contents(store.search([1, 0], max_distance=2.3)) == ["a", "b"]
    assert contents(store.search([1, 0], max_distance=0)) == ["a"]
    assert store.search([9, 9], max_distance=0.5, limit=1) == []
    for wrong in ("near", float("nan"), True):
        with pytest.raises(ConfigurationError, match="max_distance"):
            store.search([1, 0], max_distance=wrong)


# Reading


def test_fetch_count_stream_and_what_to_return(make: Callable[..., Any]) -> None:
    store = make("items", 2)
    filled(store, *((str(n), {"n": n, "odd": bool(n % 2)}, [1, n]) for n in range(25)))
    ids = [uuid.UUID(int=n) for n in (7, 3, 99, 3)]
    assert contents(store.fetch(ids)) == ["6", "2"]
    assert contents(store.fetch([str(ids[0])])) == ["6"]
    assert store.fetch([]) == []
    assert store.count() == 25
    assert store.count({"odd": True}) == 12
    assert store.count(predicates=client.Predicates("n", "<", 5)) == 5
    for page in (1, 7, 25, 1000):
        everything = list(store.stream(page=page))
        assert contents(everything) == [str(n) for n in range(25)]
    assert contents(store.stream({"odd": True}, page=5)) == [str(n) for n in range(1, 25, 2)]
    (hit,) = store.search([1, 0], limit=1, include=["metadata"])
    assert (hit.metadata, hit.contents, hit.embedding) == ({"n": 0, "odd": False}, None, None)
    assert hit.id == uuid.UUID(int=1)
    for wrong in (["score"], "id"):
        with pytest.raises(ConfigurationError, match="include"):
            store.search([1, 0], include=wrong)
    with pytest.raises(ConfigurationError, match="id 1"):
        store.fetch([uuid.UUID(int=1), "x"])


def test_list_collections(make: Callable[..., Any], vectorizer_url: str) -> None:
    for name, options in {
        "plain": {},
        "bits": {"vector_type": "bit"},
        "texts": {"id_type": "TEXT", "vector_type": "halfvec"},
        "timed": {"time_partition_interval": timedelta(days=1)},
    }.items():
        make(name, 5, **options).create_tables()
    with psycopg.connect(vectorizer_url, autocommit=True) as connection:
        connection.execute("create table other (id uuid, embedding vector(5))")
        connection.execute("create schema s")
    elsewhere = make("elsewhere", 2, schema_name="s")
    elsewhere.create_tables()
    timed = make("timed", 5, time_partition_interval=timedelta(days=1))
    timed.upsert([(uuid.uuid1(), {}, "x", [1] * 5)])
    found = {info.table_name: tuple(info)[2:5] for info in timed.list_collections()}
    assert found == {
        "bits": ("bit", 5, "UUID"),
        "elsewhere": ("vector", 2, "UUID"),
        "plain": ("vector", 5, "UUID"),
        "texts": ("halfvec", 5, "TEXT"),
        "timed": ("vector", 5, "UUID"),
    }
    assert [info.table_name for info in elsewhere.list_collections()] == ["elsewhere"]


# Filters of vecs

ANIMALS = {
    "cat": {"year": 2012, "kind": "pet", "tags": ["soft", "small"], "tame": True},
    "dog": {"year": 2015.5, "kind": "pet", "tags": ["soft"]},
    "wolf": {"year": "2012", "kind": "wild", "tags": "soft"},
    "$1": {"$1": "x", "year": [2012], "kind": None},
    "bare": {},
}
FILTERS: list[tuple[Any, set[str]]] = [
    ({"year": {"$eq": 2012}}, {"cat"}),
    ({"year": {"$eq": "2012"}}, {"wolf"}),
    ({"year": {"$eq": [2012]}}, {"$1"}),
    ({"kind": {"$eq": None}}, {"$1"}),
    ({"tame": {"$eq": True}}, {"cat"}),
    ({"year": {"$ne": 2012}}, {"dog", "wolf", "$1"}),
    ({"kind": {"$ne": None}}, {"cat", "dog", "wolf"}),
    ({"year": {"$lt": 2015}}, {"cat"}),
    ({"year": {"$lte": 2015.5}}, {"cat", "dog"}),
    ({"year": {"$gt": 2012}}, {"dog"}),
    ({"year": {"$gte": 2012}}, {"cat", "dog"}),
    ({"year": {"$gte": 2012, "$lt": 2013}}, {"cat"}),
    ({"kind": {"$gt": "pet"}}, {"wolf"}),
    ({"year": {"$in": [2012, 1999]}}, {"cat"}),
    ({"kind": {"$in": ["wild", "pet"]}}, {"cat", "dog", "wolf"}),
    ({"kind": {"$in": []}}, set()),
    ({"tags": {"$contains": "soft"}}, {"cat", "dog"}),
    ({"$and": [{"kind": "pet"}, {"year": {"$gt": 2013}}]}, {"dog"}),
    ({"$or": [{"kind": "wild"}, {"tame": True}]}, {"cat", "wolf"}),
    ({"$not": {"kind": "pet"}}, {"wolf", "$1", "bare"}),
    ({"$or": [{"$and": [{"kind": "pet"}, {"tame": True}]}, {"$not": {"tags": {"$ne": 1}}}]},
     {"cat", "$1", "bare"}),
    ({"kind": "pet", "$not": {"tame": True}}, {"dog"}),
    ([{"year": {"$gt": 2013}}, {"kind": "wild"}], {"dog", "wolf"}),
    ({"$1": "x"}, {"$1"}),
    ({"year": {"a": {"$eq": 1}}}, set()),
    ({"kind": "pet", "__start_date": "1970-01-01"}, set()),
]  # fmt: skip


@pytest.fixture
def animals(make: Callable[..., Any]) -> Any:
    return filled(make("items", 2), *((name, data, [1, 1]) for name, data in ANIMALS.items()))


@pytest.mark.parametrize(("chosen", "expected"), FILTERS, ids=[str(f) for f, _ in FILTERS])
def test_filters_of_vecs(animals: Any, chosen: Any, expected: set[str]) -> None:
    assert set(contents(animals.search([1, 1], filter=chosen))) == expected
    assert animals.count(chosen) == len(expected)
    if "__start_date" not in str(chosen) and chosen:
        animals.delete_by_metadata(chosen)
        assert set(contents(animals.search())) == set(ANIMALS) - expected


@pytest.mark.parametrize(
    "wrong",
    [
        {"year": {"$regex": "x"}},
        {"year": {"$eq": 1, "other": 2}},
        {"$xor": [{"a": 1}]},
        {"$and": []},
        {"$and": {"a": 1}},
        {"$or": [{}]},
        {"$not": {}},
        {"$not": [{"a": 1}]},
        {"$or": ["a"]},
        {"year": {"$in": 5}},
        {"year": {"$in": "abc"}},
        {"tags": {"$contains": ["a"]}},
        {"year": {"$lt": None}},
        {"year": {"$lt": [1]}},
        {"year": {1, 2}},
        {"year": float("nan")},
        {1: 2},
        {"__start_date": "yesterday"},
        {"__start_date": 5},
        {"__start_date": "2024-01-02", "__end_date": "2024-01-01"},
        {"zero": "\0"},
    ],
    ids=str,
)
def test_wrong_filters(animals: Any, wrong: Any) -> None:
    for call in (animals.search, animals.count, animals.delete_by_metadata):
        with pytest.raises(ConfigurationError) as raised:
            call(filter=wrong)
        assert isinstance(raised.value, ValueError)
    assert animals.count() == len(ANIMALS)


def test_dates_in_filters_can_be_metadata(make: Callable[..., Any]) -> None:
    store = make("items", 2, infer_filters=False)
    filled(store, ("x", {"__start_date": "2024"}, [1, 2]))
    assert contents(store.search(filter={"__start_date": "2024"})) == ["x"]


# Text


@pytest.fixture(params=["UUID", "TEXT", "timed"])
def texts(request: pytest.FixtureRequest, make: Callable[..., Any]) -> Any:
    options: dict[str, Any] = {"id_type": "TEXT"} if request.param == "TEXT" else {}
    if request.param == "timed":
        options = {"time_partition_interval": timedelta(days=30)}
    store = make("texts", 16, embedder=FakeEmbedder(), chunker=Chunker(20, 40), **options)
    store.create_tables()
    return store, [
        str(n) if request.param == "TEXT" else client.uuid_from_time(1.7e9 + n, n, 0)
        for n in range(3)
    ]


CATS = "The cat sat on the mat. The mat was red. The cat was black and slept all day long."


def test_texts(texts: Any) -> None:
    store, (one, two, _) = texts
    store.upsert([(one, {"by": "Ann"}, CATS), (two, None, "Dogs bark.")])
    assert store.count({"by": "Ann"}) >= 3
    best = store.search("dogs that bark", limit=1)[0]
    assert (best.id, best.contents) == (two, "Dogs bark.")
    assert store.search("cat mat", limit=1)[0].metadata["by"] == "Ann"
    assert store.search("cat", filter={"by": "Bob"}) == []
    (first,) = store.fetch([one])
    assert CATS.startswith(first.contents)


def test_a_shorter_text_leaves_no_stale_chunk(texts: Any) -> None:
    store, (one, two, three) = texts
    store.upsert([(one, {}, CATS), (two, {}, CATS), (three, {}, "Dogs bark.")])
    store.upsert([(one, {"new": True}, "Birds sing."), (three, {}, "  ")])
    mine = [hit for hit in store.stream() if hit.metadata["__document"] == str(one)]
    assert [(hit.id, hit.contents, hit.metadata["new"]) for hit in mine] == [
        (one, "Birds sing.", True)
    ]
    assert store.count({"__document": str(three)}) == 0
    assert store.count({"__document": str(two)}) >= 3
    store.delete_by_ids([two])
    assert store.count() == 1


def test_stored_chunks_are_not_embedded_again(make: Callable[..., Any]) -> None:
    embedder = FakeEmbedder()
    store = make("texts", 16, embedder=embedder, chunker=Chunker(10, 30))
    store.create_tables()
    one = uuid.uuid4()
    store.upsert([(one, {}, CATS)])
    before = embedder.texts
    store.upsert([(one, {"changed": 1}, CATS)])
    assert embedder.texts == before
    store.upsert([(one, {}, CATS + " It purrs.")])
    assert before < embedder.texts <= before + 2
    assert store.count({"changed": 1}) == 0


def test_one_text_written_by_many_at_once(vectorizer_url: str) -> None:
    """Whoever is last, its chunks are all there are."""
    one = uuid.uuid4()
    texts = [f"{name} one two three. " * length for length, name in enumerate("abcdef", 1)]
    with client.Sync(
        vectorizer_url, "texts", 16, embedder=FakeEmbedder(), chunker=Chunker(10, 30)
    ) as store:
        store.create_tables()
        for _ in range(5):
            with ThreadPoolExecutor(6) as threads:
                list(threads.map(lambda text: store.upsert([(one, {"of": text[0]}, text)]), texts))
            chunks = list(store.stream())
            (name,) = {hit.metadata["of"] for hit in chunks}
            places = sorted(hit.metadata["__chunk"] for hit in chunks)
            assert places == list(range(len(chunks)))
            assert any(hit.contents.startswith(name) for hit in chunks)


def test_vectors_and_texts_do_not_mix(make: Callable[..., Any]) -> None:
    store = make("texts", 16, embedder=FakeEmbedder())
    store.create_tables()
    vector = [1.0] * 16
    store.upsert([(uuid.uuid4(), {}, "with a vector", vector)])
    with pytest.raises(ConfigurationError, match="record 1"):
        store.upsert([(uuid.uuid4(), {}, "a"), (uuid.uuid4(), {}, "b", vector)])
    with pytest.raises(ConfigurationError, match="record 0: contents must be text"):
        store.upsert([(uuid.uuid4(), {}, None)])
    with pytest.raises(ConfigurationError, match="record 0"):
        store.upsert([(uuid.uuid4(), [1], "x")])
    assert store.count() == 1
    plain = make("plain", 16)
    plain.create_tables()
    with pytest.raises(ConfigurationError, match="embedder"):
        plain.search("text")
    with pytest.raises(ConfigurationError, match="record 0"):
        plain.upsert([(uuid.uuid4(), {}, "a")])
    with pytest.raises(DimensionMismatch, match="16"):
        make("texts", 17, embedder=FakeEmbedder())


# Hybrid


@pytest.fixture
def posts(make: Callable[..., Any]) -> Any:
    store = make("posts", 16, embedder=FakeEmbedder())
    store.create_tables()
    for number, text in enumerate(
        ["Part number XK-421 fits the pump.", "How a pump works, and why pumps fail.",
         "Cats sleep all day.", "A pump, a cat and a dog."]
    ):  # fmt: skip
        store.upsert([(uuid.UUID(int=number), {"n": number}, text)])
    return store


@pytest.mark.parametrize("indexed", [False, True])
def test_hybrid_search(posts: Any, indexed: bool) -> None:
    if indexed:
        posts.create_text_index()
        posts.create_embedding_index()
    hits = posts.search(text="XK-421 pump", mode="hybrid", limit=3)
    assert hits[0].metadata["n"] == 0
    assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)
    # First in both ranks: 1/61 each.
    assert hits[0].score == pytest.approx(2 / 61)
    assert hits[0].distance == pytest.approx(posts.search("XK-421 pump")[0].distance)
    both = posts.search("cats", text="cats"), posts.search(text="cats", mode="hybrid")
    assert contents(both[0]) == contents(both[1])
    (word,) = posts.search(text="sleeping", mode="text")
    assert word.contents == "Cats sleep all day."
    assert word.score > 0
    assert posts.search(text="unheard", mode="text") == []
    filtered = posts.search(text="pump", mode="hybrid", filter={"n": {"$gt": 1}})
    assert {hit.metadata["n"] for hit in filtered} == {2, 3}
    assert len(posts.search(text="pump OR cat", mode="hybrid", limit=1)) == 1
    posts.drop_text_index()
    posts.drop_text_index()


def test_the_text_index_serves_the_search(posts: Any) -> None:
    posts.create_text_index()
    posts.create_text_index()  # replaces it
    with psycopg.connect(posts.service_url) as connection:
        connection.execute("set enable_seqscan = off")
        plan = connection.execute(
            "explain select * from posts where to_tsvector('english'::regconfig,"
            " coalesce(contents, '')) @@ websearch_to_tsquery('english', 'pump')"
        )
        assert "posts_text_idx" in str(plan.fetchall())


def test_hybrid_with_a_vector_of_ones_own(make: Callable[..., Any]) -> None:
    store = filled(make("items", 2, text_config="simple", time_partition_interval=None), *POINTS)
    hits = store.search([1, 0], text="c", limit=2)
    assert set(contents(hits)) == {"a", "c"}
    assert isinstance(hits[0], client.RankedResult)
    for wrong in (
        {"text": "c"},
        {"text": "c", "mode": "both"},
        {"mode": "text"},
        {"text": "a\0", "mode": "text"},
        {"text": "c", "mode": "text", "max_distance": 1},
    ):
        with pytest.raises(ConfigurationError):
            store.search(**wrong)


def test_hybrid_on_partitions(make: Callable[..., Any]) -> None:
    store = make("items", 2, time_partition_interval=timedelta(days=1))
    store.create_tables()
    store.upsert(
        [(client.uuid_from_time(1.7e9 + n * 86_400), {}, f"day {n}", [1, n]) for n in range(5)]
    )
    store.create_text_index()
    assert store.search([1, 3], text="day 3", limit=1)[0].contents == "day 3"
