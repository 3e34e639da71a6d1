"""Each documented use of timescale_vector's client, with only the import changed."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Any

import numpy as np
import psycopg
import pytest
from collections_of import KINDS, clients
from vectors_of_pgvector import HalfVector, Vector

from vectorizer import client
from vectorizer.errors import CollectionWarning, ConfigurationError, ExtensionMissing

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

FOX = (uuid.uuid1(), {"animal": "fox", "action": "sit", "times": 1}, "the brown fox", [1.0, 1.3])
JUMP = (uuid.uuid1(), {"animal": "fox", "action": "jump", "times": 100}, "jumped over", [1.0, 10.8])


@pytest.fixture(params=KINDS)
def make(request: pytest.FixtureRequest, vectorizer_url: str) -> Iterator[Callable[..., Any]]:
    with clients(request.param, vectorizer_url) as make:
        yield make


@pytest.fixture
def vec(make: Callable[..., Any]) -> Any:
    store = make("my_data", 2)
    store.create_tables()
    store.upsert([FOX, JUMP])
    return store


@pytest.fixture
def zoo(make: Callable[..., Any]) -> Any:
    """Records with metadata of all kinds, each named by its contents."""
    store = make("zoo", 2)
    store.create_tables()
    store.upsert(
        [
            (uuid.uuid4(), metadata, name, [1.0, float(number)])
            for number, (name, metadata) in enumerate(ZOO.items())
        ]
    )
    return store


ZOO: dict[str, dict[str, Any]] = {
    "ten": {"n": 10, "s": "b", "at": "2024-05-01T12:00:00+02:00", "yes": True},
    "text ten": {"n": "10", "s": "a", "at": "2024-05-01", "yes": "true"},
    "decimal": {"n": "11.3", "s": "c", "at": "2024-02-29 10:00:00.5Z", "yes": False},
    "word": {"n": "abc", "s": "", "at": "2023-02-29", "yes": "no"},
    "huge": {"n": "1e999999999", "s": "é", "at": "yesterday", "yes": 1},
    "big": {"n": 12345678901234567890, "at": "0000-01-01", "yes": None},
    "bool": {"n": True, "at": 5},
    "null": {"n": None, "tags": ["a", "b"], "ids": [1, 2, 3]},
    "list": {"n": [10], "tags": ["b", 7], "ids": [3, 4]},
    "object": {"n": {"m": 10}, "tags": {"a": 1}},
    "none": {},
}


def found(store: Any, predicates: client.Predicates | None = None, **options: Any) -> set[str]:
    hits = store.search([1.0, 1.0], limit=100, predicates=predicates, **options)
    assert {hit.contents for hit in hits} == {
        hit.contents for hit in store.search(limit=100, predicates=predicates, **options)
    }
    return {hit.contents for hit in hits}


def test_basic_usage(vec: Any) -> None:
    hits = vec.search([1.0, 9.0])
    assert [hit[client.SEARCH_RESULT_CONTENTS_IDX] for hit in hits] == [JUMP[2], FOX[2]]
    assert hits[0][client.SEARCH_RESULT_DISTANCE_IDX] == pytest.approx(0.00016793422934946456)
    (record,) = vec.search([1.0, 9.0], limit=1, filter={"action": "jump"})
    assert (record["id"], record["metadata"], record["contents"]) == JUMP[:3]
    assert record["embedding"].tolist() == pytest.approx(JUMP[3])
    assert record["embedding"].dtype == np.float32
    assert record["distance"] == record.distance == record[4]
    assert dict(record)["contents"] == record.get("contents") == JUMP[2]
    assert record.get("nothing", 5) == 5
    assert list(record.keys()) == ["id", "metadata", "contents", "embedding", "distance"]
    with pytest.raises(KeyError):
        record["nothing"]
    vec.delete_by_ids([record["id"]])
    assert [hit.contents for hit in vec.search()] == [FOX[2]]
    vec.delete_by_metadata({"action": "sit"})
    assert vec.table_is_empty()
    vec.upsert([FOX])
    assert not vec.table_is_empty()
    vec.delete_all()
    assert vec.table_is_empty()
    vec.drop_table()
    vec.drop_table()
    with pytest.raises(ConfigurationError, match="create_tables"):
        vec.search([1.0, 9.0])
    vec.create_tables()
    assert vec.search([1.0, 9.0]) == []


def test_a_schema_and_text_ids(make: Callable[..., Any], vectorizer_url: str) -> None:
    with psycopg.connect(vectorizer_url, autocommit=True) as connection:
        connection.execute("create schema tschema")
    store = make("data_table", 2, id_type="TEXT", schema_name="tschema")
    store.create_tables()
    store.upsert([("Not a valid UUID", {"key": "val"}, "the brown fox", [1.0, 1.2])])
    assert not store.table_is_empty()
    store.delete_by_ids(["Not a valid UUID"])
    assert store.table_is_empty()


def test_the_schema_of_the_search_path(make: Callable[..., Any], vectorizer_url: str) -> None:
    with psycopg.connect(vectorizer_url, autocommit=True) as connection:
        connection.execute("create schema first")
        connection.execute(
            "do $$ begin execute format('alter database %I set search_path = first, public',"
            " current_database()); end $$"
        )
    store = make("items", 2)
    store.create_tables()
    store.upsert([FOX])
    store.create_embedding_index(client.HNSWIndex())
    with psycopg.connect(vectorizer_url) as connection:
        assert connection.execute("select contents from first.items").fetchall() == [(FOX[2],)]
    assert make("items", 2, schema_name="first").count() == 1
    store.drop_table()
    assert make("items", 2).list_collections() == []


def test_records_in_every_form(make: Callable[..., Any]) -> None:
    store = make("items", 2)
    store.create_tables()
    embeddings = [
        [1, 2.5],
        (1, 2.5),
        np.array([1, 2.5]),
        np.array([1, 2.5], dtype="f2"),
        Vector([1, 2.5]),
        HalfVector([1, 2.5]),
    ]
    store.upsert([(uuid.uuid4(), {}, str(n), e) for n, e in enumerate(embeddings)])
    store.upsert([(uuid.uuid4(), '{"a": {"b": [1, null]}}', None, [1, 2.5])])
    hits = store.search(embeddings[4], limit=20)
    assert len(hits) == 7
    assert all(hit.embedding.tolist() == [1, 2.5] for hit in hits)
    assert store.search(filter={"a": {"b": [1, None]}})[0].metadata == {"a": {"b": [1, None]}}
    with pytest.raises(ValueError, match="record 1: metadata is JSON text in some"):
        store.upsert([(uuid.uuid4(), {}, "x", [1, 2]), (uuid.uuid4(), "{}", "x", [1, 2])])
    with pytest.raises(ValueError, match="record 1: metadata is JSON text in some"):
        store.upsert([(uuid.uuid4(), "{}", "x", [1, 2]), (uuid.uuid4(), {}, "x", [1, 2])])


def test_filters(vec: Any) -> None:
    assert found(vec, filter={"action": "sit"}) == {FOX[2]}
    assert found(vec, filter={"action": "sit", "times": 100}) == set()
    assert found(vec, filter=[{"action": "jump"}, {"animal": "fox"}]) == {FOX[2], JUMP[2]}
    assert found(vec, filter=[{"action": "jump"}, {"no such key": 1}]) == {JUMP[2]}
    assert found(vec, filter=[]) == set()
    assert found(vec, filter={}) == {FOX[2], JUMP[2]}


def test_filters_are_not_changed(vec: Any) -> None:
    chosen = {"__start_date": "2000-01-01", "__end_date": "2100-01-01", "action": "sit"}
    before = dict(chosen)
    assert found(vec, filter=chosen) == {FOX[2]}
    assert chosen == before


def test_predicates_of_the_documentation(vec: Any) -> None:
    p = client.Predicates
    jump = {JUMP[2]}
    assert found(vec, p("times", ">", 1)) == jump
    assert found(vec, p("action", "==", "jump")) == jump
    assert found(vec, p("action", "==", "jump") & p("times", ">", 1)) == jump
    assert found(vec, p("action", "==", "jump") & p("times", "==", 1)) == set()
    either = p("times", "==", 1) | p("times", ">", 1)
    assert found(vec, p("action", "==", "jump") & either) == jump
    assert found(vec, p(("action", "==", "jump"), ("times", ">", 10))) == jump
    assert found(vec, p(("action", "jump"))) == jump
    assert found(vec, p(("action", "jump"), ("times", 1), operator="OR")) == {FOX[2], JUMP[2]}
    assert found(vec, ~p("action", "==", "jump")) == {FOX[2]}
    assert found(vec, ~p("missing", "==", "x")) == {FOX[2], JUMP[2]}
    assert found(vec, p("times", ">", 1), filter={"action": "sit"}) == set()
    growing = p("animal", "==", "fox")
    growing.add_clause("times", "<", 50)
    growing.add_clause(("action", "sit"), p("times", ">=", 1))
    assert found(vec, growing) == {FOX[2]}
    assert p("a", "=", 1) == p(("a", "=", 1))
    assert repr(p("a", "=", 1) | p("b", "<", 2)) == "OR(AND(('a', '=', 1)), AND(('b', '<', 2)))"


NUMBERS = {
    ("=", 10): {"ten", "text ten"},
    ("==", 10.0): {"ten", "text ten"},
    ("!=", 10): {"decimal", "big"},
    ("<", 11): {"ten", "text ten"},
    ("<=", 11.3): {"ten", "text ten", "decimal"},
    (">", 11): {"decimal", "big"},
    (">=", 11.29999): {"decimal", "big"},
    (">", 10**18): {"big"},
    ("=", 12345678901234567890): {"big"},
}


@pytest.mark.parametrize(("operator", "value"), NUMBERS)
def test_numbers(zoo: Any, operator: str, value: float) -> None:
    assert found(zoo, client.Predicates("n", operator, value)) == NUMBERS[operator, value]


OTHERS: list[tuple[tuple[Any, ...], set[str]]] = [
    (("s", "=", "a"), {"text ten"}),
    (("s", "!=", "a"), {"ten", "decimal", "word", "huge"}),
    (("s", ">=", "b"), {"ten", "decimal", "huge"}),
    (("s", "<", "b"), {"text ten", "word"}),
    (("n", "=", "10"), {"ten", "text ten"}),
    (("yes", "=", True), {"ten", "text ten"}),
    (("yes", "!=", True), {"decimal"}),
    (("yes", "=", False), {"decimal"}),
    (("yes", "<", True), {"decimal"}),
    (("n", "=", True), {"bool"}),
    (("tags", "@>", ["b"]), {"null", "list"}),
    (("tags", "@>", ("a", "b")), {"null"}),
    (("tags", "@>", [7, "b"]), {"list"}),
    (("ids", "@>", [3]), {"null", "list"}),
    (("ids", "@>", 3), {"null", "list"}),
    (("ids", "=", [3, 4]), {"list"}),
    (("ids", "!=", [3, 4]), {"null"}),
    (("missing", "=", 1), set()),
]


@pytest.mark.parametrize(("clause", "expected"), OTHERS, ids=[str(clause) for clause, _ in OTHERS])
def test_other_types(zoo: Any, clause: tuple[Any, ...], expected: set[str]) -> None:
    assert found(zoo, client.Predicates(*clause)) == expected
    assert found(zoo, ~client.Predicates(*clause)) == set(ZOO) - expected


def test_times_in_the_metadata(zoo: Any) -> None:
    from datetime import datetime, timezone  # noqa: PLC0415

    noon = datetime(2024, 5, 1, 10, tzinfo=timezone.utc)
    assert found(zoo, client.Predicates("at", "=", noon)) == {"ten"}
    assert found(zoo, client.Predicates("at", "<", noon)) == {"text ten", "decimal"}
    naive = noon.astimezone().replace(tzinfo=None)
    assert found(zoo, client.Predicates("at", ">=", naive)) == {"ten"}


def test_many_parameters(vec: Any) -> None:
    """Ten and more parameters: $1 is no part of $10."""
    predicates = client.Predicates(*[("times", "!=", -n) for n in range(40)])
    assert found(vec, predicates) == {FOX[2], JUMP[2]}
    assert found(vec, predicates & client.Predicates("action", "==", "jump")) == {JUMP[2]}
    chosen = [{"n": n} for n in range(30)] + [{"action": "sit"}]
    assert found(vec, predicates, filter=chosen) == {FOX[2]}


def test_deep_and_wide_predicates(vec: Any) -> None:
    predicates = client.Predicates("animal", "=", "fox")
    for _ in range(150):
        predicates &= client.Predicates("times", ">", 0) | client.Predicates("times", "<", 0)
    assert found(vec, predicates) == {FOX[2], JUMP[2]}
    for _ in range(3000):
        predicates &= client.Predicates("times", ">", 0)
    with pytest.raises(ConfigurationError, match="nested too deeply"):
        vec.search(predicates=predicates)


WRONG_PREDICATES: list[tuple[Any, str]] = [
    (("a", "~~", "x"), "operator"),
    (("a", "IN", "x"), "operator"),
    (("a", "=", None), "clause"),
    (("a", "=", {"b": 1}), "clause"),
    (("a", "="), "clause"),
    ((1, "=", 2), "clause"),
    ((("a",),), "clause"),
    ((("a", "=", 1, 2),), "clause"),
    ((), "clause"),
    (("a", "@>", []), "empty"),
    (("a", "<", [1]), "lists"),
    (("a", "=", float("nan")), "finite"),
    (("a", "<", float("inf")), "finite"),
    (("a\0", "<", 1), "zero byte"),
    (("a", "=", "\0"), "zero byte"),
    (("__uuid_timestamp", "=", 5), "datetime"),
    (("__uuid_timestamp", "@>", "2024-01-01"), "datetime"),
]


@pytest.mark.parametrize(("clauses", "message"), WRONG_PREDICATES, ids=str)
def test_wrong_predicates(vec: Any, clauses: tuple[Any, ...], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message) as raised:
        vec.search(predicates=client.Predicates(*clauses))
    assert isinstance(raised.value, ValueError)
    with pytest.raises(ConfigurationError, match="AND, OR or NOT"):
        client.Predicates("a", "=", 1, operator="XOR")
    with pytest.raises(ConfigurationError, match="must be Predicates"):
        vec.search(predicates={"a": 1})


INDEXES = [
    client.HNSWIndex(),
    client.HNSWIndex(m=16, ef_construction=64),
    client.HNSWIndex(20, 125),
    client.IvfflatIndex(),
    client.IvfflatIndex(num_records=1_000_000),
    client.IvfflatIndex(num_lists=100),
    client.IvfflatIndex(100),
]
DISKANN = [
    client.DiskAnnIndex(),
    client.DiskAnnIndex(
        num_neighbors=50, search_list_size=100, max_alpha=1.0, storage_layout="memory_optimized",
        num_dimensions=0, num_bits_per_dimension=1,
    ),
    client.DiskAnnIndex(50, 50, 1.5, "plain", 2, 1),
    client.TimescaleVectorIndex(),
]  # fmt: skip
PARAMETERS = [
    client.HNSWIndexParams(ef_search=10),
    client.IvfflatIndexParams(probes=10),
    client.DiskAnnIndexParams(rescore=400, search_list_size=10),
    client.DiskAnnIndexParams(10, 5),
    client.TimescaleVectorIndexParams(100),
    client.QueryParams({"hnsw.ef_search": 20}),
]


def definition(url: str) -> str:
    with psycopg.connect(url) as connection:
        record = connection.execute(
            "select indexdef from pg_indexes where indexname = 'my_data_embedding_idx'"
        ).fetchone()
    return "" if record is None else str(record[0])


@pytest.mark.parametrize("index", INDEXES, ids=repr)
@pytest.mark.filterwarnings("ignore:.*ivfflat")
def test_indexes(vec: Any, index: client.BaseIndex) -> None:
    vec.create_embedding_index(index)
    made = definition(vec.service_url)
    for option, value in index.options(lambda: 2).items():
        assert f"{option}='{value}'" in made
    for params in (None, *PARAMETERS):
        hits = vec.search([1.0, 9.0], limit=4, query_params=params)
        assert [hit.contents for hit in hits] == [JUMP[2], FOX[2]]
    vec.drop_embedding_index()
    assert definition(vec.service_url) == ""


@pytest.mark.parametrize("index", DISKANN, ids=repr)
def test_diskann_falls_back_to_hnsw(vec: Any, index: client.BaseIndex) -> None:
    with pytest.warns(CollectionWarning, match=r"vectorscale.*HNSWIndex"):
        vec.create_embedding_index(index)
    assert "using hnsw" in definition(vec.service_url).lower()
    assert len(vec.search([1.0, 9.0], limit=4, query_params=PARAMETERS[2])) == 2
    with pytest.raises(ExtensionMissing, match="vectorscale"):
        vec.create_embedding_index(index, strict=True)
    with pytest.raises(ExtensionMissing, match="vectorscale"):
        vec.create_embedding_index(client.DiskAnnIndex(strict=True))


def test_the_default_index(vec: Any) -> None:
    vec.create_embedding_index()
    assert "using hnsw" in definition(vec.service_url).lower()


def test_an_index_that_is_there_is_replaced(vec: Any) -> None:
    for lists in (2, 3):
        vec.create_embedding_index(client.IvfflatIndex(num_lists=lists))
        assert f"lists='{lists}'" in definition(vec.service_url)
    with psycopg.connect(vec.service_url) as connection:
        left = connection.execute("select 1 from pg_indexes where tablename = 'my_data'").fetchall()
    assert len(left) == 3  # with the primary key's and that of the metadata


def test_an_invalid_index_is_replaced(vec: Any) -> None:
    vec.create_embedding_index(client.HNSWIndex())
    with psycopg.connect(vec.service_url, autocommit=True) as connection:
        connection.execute(
            "update pg_index set indisvalid = false"
            " where indexrelid = 'my_data_embedding_idx'::regclass"
        )
        vec.create_embedding_index(client.HNSWIndex(m=5))
        valid = connection.execute(
            "select indisvalid from pg_index where indexrelid = 'my_data_embedding_idx'::regclass"
        ).fetchone()
    assert valid == (True,)
    assert "m='5'" in definition(vec.service_url)


def test_progress_is_reported(make: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    for package in ("_sync", "_async"):
        monkeypatch.setattr(f"vectorizer.{package}.collection_indexes._BEATS", 0.005)
    store = make("items", 100)
    store.create_tables()
    vectors = np.random.default_rng(1).standard_normal((5000, 100))
    store.upsert([(uuid.UUID(int=n), {}, "", v) for n, v in enumerate(vectors)])
    assert store.index_progress() is None
    reports: list[client.IndexProgress] = []
    store.create_embedding_index(client.HNSWIndex(), progress=reports.append)
    assert any(report.phase for report in reports)
    assert all(report.tuples_done <= 5000 for report in reports)


def test_ivfflat_on_an_empty_table_warns(make: Callable[..., Any]) -> None:
    store = make("items", 2)
    store.create_tables()
    with pytest.warns(CollectionWarning, match="empty"):
        store.create_embedding_index(client.IvfflatIndex())


def test_a_search_without_a_fitting_index_warns_once(make: Callable[..., Any]) -> None:
    store = make("my_data", 2)
    store.create_tables()
    store.upsert([(uuid.UUID(int=n), {}, "", [1, n]) for n in range(1000)])
    with pytest.warns(CollectionWarning, match="no index for cosine"):
        store.search([1, 2])
    store.search([1, 2])  # a warning would be an error here
    store.create_embedding_index(client.HNSWIndex())
    indexed = make("my_data", 2)
    indexed.search([1, 2])
    with pytest.warns(CollectionWarning, match="no index for euclidean"):
        indexed.search([1, 2], measure="l2")


def test_parameters_hold_for_one_search_alone(make: Callable[..., Any]) -> None:
    store = make("items", 2, max_db_connections=1)
    store.create_tables()
    store.upsert([FOX])
    store.search([1, 2], query_params=client.HNSWIndexParams(ef_search=77))
    connecting = store.connect()
    if isinstance(store, client.Sync):
        with connecting as connection:
            assert connection.execute("show hnsw.ef_search").fetchone() == ("40",)
    with pytest.raises(ConfigurationError, match="ef_search"):
        client.HNSWIndexParams(ef_search=0)
    with pytest.raises(ConfigurationError, match="probes"):
        client.IvfflatIndexParams(probes="1; drop table items")  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="name of a setting"):
        client.QueryParams({"hnsw.ef_search = 1; drop table items; --": 1})
    with pytest.raises(ConfigurationError, match="query_params"):
        store.search([1, 2], query_params={"hnsw.ef_search": 1})


def test_more_records_than_hnsw_has_candidates(make: Callable[..., Any]) -> None:
    """Also with a filter that leaves few of those near the query."""
    store = make("items", 2)
    store.create_tables()
    angles = np.linspace(0, 1.5, 3000)
    store.upsert(
        [
            (uuid.UUID(int=n), {"far": bool(a > 1.4)}, str(n), [np.cos(a), np.sin(a)])
            for n, a in enumerate(angles)
        ]
    )
    store.create_embedding_index(client.HNSWIndex())
    assert len(store.search([1, 0], limit=150)) == 150
    hits = store.search([1, 0], limit=20, filter={"far": True})
    assert [hit.contents for hit in hits] == [
        str(int((angles <= 1.4).sum()) + n) for n in range(20)
    ]


def test_distances(make: Callable[..., Any]) -> None:
    store = make("items", 2, distance_type="euclidean")
    store.create_tables()
    store.upsert([FOX, JUMP])
    nearest = store.search([1.0, 9.0])
    assert [hit.distance for hit in nearest] == pytest.approx([1.8, 7.7], rel=1e-5)
    with pytest.raises(ConfigurationError, match="only cosine"):
        store.create_embedding_index(client.DiskAnnIndex())
    for wrong in ("manhattan", "", None, "<=>; --"):
        with pytest.raises(ConfigurationError, match="distance_type"):
            make("items", 2, distance_type=wrong)


def test_the_connection_is_lent(vec: Any) -> None:
    if isinstance(vec, client.Sync):
        with vec.connect() as connection:
            assert connection.execute("select count(*) from my_data").fetchone() == (2,)


async def test_the_connection_is_lent_async(vectorizer_url: str) -> None:
    async with (
        client.Async(vectorizer_url, "my_data", 2) as store,
        await store.connect() as connection,
    ):
        assert await (await connection.execute("select 1")).fetchone() == (1,)


def test_pools_are_closed(vectorizer_url: str) -> None:
    def connections(connection: psycopg.Connection) -> int:
        found = connection.execute(
            "select count(*) from pg_stat_activity where datname = current_database()"
            " and backend_type = 'client backend' and pid <> pg_backend_pid()"
        ).fetchone()
        return int((found or (0,))[0])

    with psycopg.connect(vectorizer_url, autocommit=True) as connection:
        for _ in range(3):
            with client.Sync(vectorizer_url, "my_data", 2) as store:
                store.create_tables()
                assert connections(connection) >= 1
            store.close()
        # A session ends a moment after its connection.
        deadline = 200
        while connections(connection) and deadline:
            deadline -= 1
            connection.execute("select pg_sleep(0.01)")
        assert connections(connection) == 0
        with store:  # a closed client opens again
            assert store.table_is_empty()
