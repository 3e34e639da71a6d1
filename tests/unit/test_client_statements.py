"""What the client's pure parts make: statements, indexes, times, packed records."""

from __future__ import annotations

import struct
import uuid
from datetime import datetime, timedelta, timezone

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vectorizer import client
from vectorizer.binary_values import BinaryValue, uuid_array
from vectorizer.errors import ConfigurationError, InvalidEmbeddings
from vectorizer.identifiers import to_pg_time, uuid_from_time
from vectorizer.measures import checked_measure
from vectorizer.packing import pack_bits
from vectorizer.partitioning import Partition
from vectorizer.records import CollectionResult, Packer, RankedResult, batches
from vectorizer.texts import checked_texts, chunk_records
from vectorizer.times import id_time
from vectorizer.vectors import as_bits, as_matrix, normalized

UTC = timezone.utc
moments = st.datetimes(datetime(1600, 1, 1), datetime(5200, 1, 1)).map(  # noqa: DTZ001
    lambda moment: moment.replace(tzinfo=UTC)
)


def created(index: client.BaseIndex, distance: str = "<=>") -> str:
    text = index.create_index_query('"t"', '"embedding"', '"i"', distance, lambda: 5000)
    return " ".join(text.split())


STATEMENTS = {
    'create index "i" on "t" using hnsw ("embedding" vector_cosine_ops)'
    " with (m = 16, ef_construction = 64)": client.HNSWIndex(),
    'create index "i" on "t" using ivfflat ("embedding" vector_cosine_ops)'
    " with (lists = 10)": client.IvfflatIndex(),
    'create index "i" on "t" using diskann ("embedding" )'
    " with (search_list_size = 100, num_neighbors = 50, max_alpha = 1.0)": client.DiskAnnIndex(),
    'create index "i" on "t" using diskann ("embedding" )'
    " with (search_list_size = 20, num_neighbors = 30, max_alpha = 1.5,"
    " storage_layout = 'plain', num_dimensions = 2, num_bits_per_dimension = 1)":
        client.TimescaleVectorIndex(20, 30, 1.5, "plain", 2, 1),
}  # fmt: skip


@pytest.mark.parametrize("statement", STATEMENTS)
def test_index_statements(statement: str) -> None:
    assert created(STATEMENTS[statement]) == statement


def test_the_operator_class_follows_the_distance() -> None:
    assert "vector_l2_ops" in created(client.HNSWIndex(), "<->")
    assert "vector_ip_ops" in created(client.IvfflatIndex(), "<#>")
    with pytest.raises(ConfigurationError, match="only cosine"):
        created(client.DiskAnnIndex(), "<->")
    with pytest.raises(ConfigurationError, match="unknown"):
        created(client.HNSWIndex(), "<>")
    assert checked_measure("ip", "halfvec").class_for("halfvec") == "halfvec_ip_ops"


@pytest.mark.parametrize(
    ("records", "lists"),
    [(0, 10), (9_999, 10), (20_000, 20), (1_000_000, 1000), (1_000_001, 1000), (4_000_000, 2000)],
)
def test_lists_of_ivfflat(records: int, lists: int) -> None:
    assert client.IvfflatIndex().get_num_lists(lambda: records) == lists
    assert client.IvfflatIndex(num_records=records).options(lambda: 7) == {"lists": lists}
    assert client.IvfflatIndex(num_lists=7).get_num_lists(lambda: records) == 7


WRONG = [
    (client.HNSWIndex, {"m": 1}),
    (client.HNSWIndex, {"m": 64, "ef_construction": 100}),
    (client.HNSWIndex, {"m": "16) ; drop table t; --"}),
    (client.IvfflatIndex, {"num_lists": 0}),
    (client.IvfflatIndex, {"num_lists": 1.5}),
    (client.IvfflatIndex, {"num_records": -1}),
    (client.DiskAnnIndex, {"max_alpha": 0.5}),
    (client.DiskAnnIndex, {"max_alpha": "1.0; drop"}),
    (client.DiskAnnIndex, {"storage_layout": "fast"}),
    (client.DiskAnnIndex, {"num_neighbors": True}),
    (client.IvfflatIndexParams, {"probes": 0}),
    (client.IvfflatIndexParams, {"iterative_scan": "strict_order"}),
    (client.HNSWIndexParams, {"ef_search": 1001}),
    (client.HNSWIndexParams, {"iterative_scan": "always"}),
    (client.DiskAnnIndexParams, {"rescore": -1}),
    (client.QueryParams, {"params": {"a.b.c": 1}}),
    (client.QueryParams, {"params": {"a": None}}),
    (client.QueryParams, {"params": {"a": "\0"}}),
]


@pytest.mark.parametrize(("kind", "arguments"), WRONG, ids=[f"{k.__name__} {a}" for k, a in WRONG])
def test_wrong_parameters(kind: type, arguments: dict[str, object]) -> None:
    with pytest.raises(ConfigurationError):
        kind(**arguments)


def test_settings() -> None:
    assert client.DiskAnnIndexParams(10, 5).get_statements() == [
        'set local "diskann"."query_search_list_size" = \'10\'',
        'set local "diskann"."query_rescore" = \'5\'',
    ]
    assert client.DiskAnnIndexParams().params == {}
    assert client.TimescaleVectorIndexParams(7).params == {"diskann.query_search_list_size": 7}
    hostile = client.QueryParams({"application_name": "'; drop table t; --"})
    assert hostile.get_statements() == ["set local \"application_name\" = '''; drop table t; --'"]


def test_the_builder_of_statements() -> None:
    builder = client.QueryBuilder("My table", 2, "cosine", "UUID", None, True, "my_schema")
    assert (builder.distance_type, builder.id_type) == ("<=>", "uuid")
    text, values = builder.search_query(
        [1, 2], 5, {"a": 1}, client.Predicates("b", ">", 2), client.UUIDTimeRange("2024-01-01")
    )
    assert 'from "my_schema"."My table"' in text
    assert "limit 5" in text
    assert values[:2] == [[1, 2], '{"a": 1}']
    assert [f"${n}" in text for n in range(1, len(values) + 2)] == [True] * len(values) + [False]
    assert "on conflict (id) do update" in builder.get_upsert_query()
    assert builder.delete_by_ids_query([uuid.UUID(int=1)])[1] == [[uuid.UUID(int=1)]]
    assert "metadata @> $1" in builder.delete_by_metadata_query({"a": 1})[0]
    assert '"my_schema"."My table_embedding_idx"' in builder.drop_embedding_index_query()
    assert "using hnsw" in builder.create_embedding_index_query(client.HNSWIndex(), lambda: 1)
    assert "vectorscale" not in builder.get_create_query()
    for query in (
        builder.get_row_exists_query(),
        builder.get_approx_count_query(),
        builder.delete_all_query(),
        builder.drop_table_query(),
    ):
        assert '"my_schema"."My table"' in query
    assert "max_connections" in builder.default_max_db_connection_query()
    with pytest.raises(ConfigurationError, match="everything"):
        builder.delete_by_metadata_query({})


# Times


@given(moments)
def test_a_time_survives_in_an_id(moment: datetime) -> None:
    assert id_time(uuid_from_time(moment)) == to_pg_time(moment)


@given(st.datetimes(datetime(1970, 1, 2), datetime(5200, 1, 1)))  # noqa: DTZ001
def test_a_time_survives_in_an_id_of_version_7(moment: datetime) -> None:
    moment = moment.replace(microsecond=moment.microsecond // 1000 * 1000, tzinfo=UTC)
    milliseconds = (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(milliseconds=1)
    identifier = uuid.UUID(int=milliseconds << 80 | 7 << 76 | 2 << 62 | 5)
    assert id_time(identifier) == to_pg_time(moment)


def test_time_ranges_in_words_and_sql() -> None:
    start = datetime(2024, 1, 1, tzinfo=UTC)
    day = client.UUIDTimeRange(start, time_delta=timedelta(days=1), start_inclusive=False)
    assert str(day) == "UUIDTimeRange (2024-01-01 00:00:00+00:00, 2024-01-02 00:00:00+00:00)"
    assert day == client.UUIDTimeRange("2024-01-01T00:00:00Z", day.end_date, start_inclusive=False)
    assert hash(day) == hash(client.UUIDTimeRange(start, day.end_date, start_inclusive=False))
    text, values = day.build_query(["before"])
    assert text == (
        "(public.uuid_timestamp(id) > $2::timestamptz) and "
        "(public.uuid_timestamp(id) < $3::timestamptz)"
    )
    assert values == ["before", day.start_date, day.end_date]
    assert client.UUIDTimeRange("None", start, end_inclusive=True).build_query([])[0] == (
        "public.uuid_timestamp(id) <= $1::timestamptz"
    )


def test_what_partitions_leave_open() -> None:
    def at(day: int) -> datetime:
        return datetime(2024, 1, day, tzinfo=UTC)

    week = Partition(at(8), at(15))
    assert week.without([]) == [week]
    assert week.without([(at(1), at(8)), (at(15), at(16))]) == [week]
    assert week.without([(at(10), at(11))]) == [Partition(at(8), at(10)), Partition(at(11), at(15))]
    assert week.without([(at(1), at(9)), (at(14), None)]) == [Partition(at(9), at(14))]
    assert week.without([(at(8), at(15))]) == week.without([(None, None)]) == []
    names = {part.name("t") for part in week.without([(at(10), at(11))])}
    assert names == {"t_20240108", "t_20240111"}
    second = Partition(at(8), at(8) + timedelta(seconds=1))
    assert second.name("t") == "t_20240108_0000"
    assert Partition(second.end, at(9)).name("t") == "t_20240108_000001"


# Records


def test_results_are_tuples_with_names() -> None:
    hit = CollectionResult(1, {"a": 1}, "text", [1], 0.5)
    assert hit == (1, {"a": 1}, "text", [1], 0.5)
    assert hit[-1] == hit["distance"] == 0.5
    assert hit[:2] == (1, {"a": 1})
    assert dict(hit) == dict(hit.items())
    assert hit.values() == tuple(hit)
    with pytest.raises(IndexError):
        hit[5]
    ranked = RankedResult.from_row((1, {}, "", None, 0.5, 0.03), "vector")
    assert (ranked.score, len(ranked)) == (0.03, 5)


def test_batches() -> None:
    assert list(batches([], 2)) == []
    assert [list(batch) for batch in batches(iter([[1], [2], [3]]), 2)] == [[[1], [2]], [[3]]]
    records = [[1], [2]]
    assert next(batches(records, 2)) is records


def test_vectors_of_lists_and_of_arrays_are_the_same() -> None:
    vectors = np.random.default_rng(1).standard_normal((20, 7)).astype("f4")
    assert (as_matrix(vectors.tolist(), 20, 7) == vectors).all()
    packer = Packer(7, "vector", uuids=True)
    assert packer.pack(vectors.tolist()) == packer.pack(list(vectors))
    for wrong in ([1e39] * 7, ["x"] * 7, [None] * 7, [1] * 6):
        with pytest.raises(InvalidEmbeddings):
            as_matrix([wrong], 1, 7)


def test_bits_are_packed_from_the_left() -> None:
    (field,) = pack_bits(as_bits(["1000000001"], 1, 10))
    assert field == struct.pack(">ii", 6, 10) + b"\x80\x40"


def test_normalized() -> None:
    assert normalized(np.array([[3, 4]], "f4")).tolist() == [
        [pytest.approx(0.6), pytest.approx(0.8)]
    ]
    tiny = np.array([[1e-30, 0]], "f4")
    assert normalized(tiny).tolist() == [[1, 0]]


def test_arrays_of_ids() -> None:
    value = uuid_array([uuid.UUID(int=1), uuid.UUID(int=2)])
    assert isinstance(value, BinaryValue)
    assert len(value.data) == 20 + 2 * 20
    assert uuid_array(["a"]) == ["a"]
    assert uuid_array([]) == []


# Texts


def test_chunks_have_ids_of_their_own() -> None:
    (text,) = checked_texts([(uuid.uuid4(), {"a": 1}, "x")], uuids=True)
    records = chunk_records(text, ["one", "two", "one"])
    assert records[0][0] == text.id
    assert len({identifier for identifier, _, _ in records}) == 3
    assert records == chunk_records(text, ["one", "two", "one"])
    assert [metadata["__chunk"] for _, metadata, _ in records] == [0, 1, 2]
    timed = uuid_from_time(1.7e9)
    (text,) = checked_texts([(timed, None, "x")], uuids=True)
    assert {id_time(identifier) for identifier, _, _ in chunk_records(text, ["a", "b"])} == {  # type: ignore[arg-type]
        id_time(timed)
    }
    (last,) = checked_texts([("id", {}, "x"), ("id", {}, "y")], uuids=False)
    assert last.contents == "y"
    assert str(chunk_records(last, ["a", "b"])[1][0]).startswith("id#")
