"""The client as its users see it: checked by mypy --strict, never run (see test_typing.py)."""

from __future__ import annotations

import uuid
from datetime import datetime, timedelta, timezone
from typing import Any

import numpy as np
from numpy.typing import NDArray
from typing_extensions import assert_type

from vectorizer import client

URL = "postgresql://localhost/db"
NOW = datetime.now(timezone.utc)


def sync_use() -> None:
    with client.Sync(
        URL,
        "my_data",
        2,
        "cosine",
        "UUID",
        timedelta(days=7),
        10,
        True,
        "public",
        vector_type="halfvec",
        partitioning="native",
        normalize=True,
    ) as vec:
        assert_type(vec, client.Sync)
        vec.create_tables()
        vec.upsert([(uuid.uuid1(), {"animal": "fox"}, "the brown fox", [1.0, 1.3])])
        vec.upsert([(client.uuid_from_time(NOW), "{}", "the brown fox", np.zeros(2))])
        vec.create_embedding_index(client.DiskAnnIndex(num_neighbors=50, strict=True))
        vec.create_embedding_index(client.HNSWIndex(m=16, ef_construction=64))
        vec.create_embedding_index(client.IvfflatIndex(num_lists=100), progress=print)
        vec.create_embedding_index(client.TimescaleVectorIndex())
        hits = vec.search(
            [1.0, 9.0],
            limit=4,
            filter=[{"action": "jump"}, {"year": {"$gt": 2020}}],
            predicates=client.Predicates("times", ">", 1)
            & ~client.Predicates(("action", "==", "jump"), ("at", "<", NOW)),
            uuid_time_filter=client.UUIDTimeRange("2024-01-01", time_delta=timedelta(days=1)),
            query_params=client.HNSWIndexParams(ef_search=10),
        )
        assert_type(hits, list[client.CollectionResult])
        for hit in hits:
            assert_type(hit.metadata, dict[str, Any])
            assert_type(hit.contents, str)
            assert_type(hit.distance, float)
            assert_type(hit.embedding, NDArray[Any])
            assert_type(hit["id"], Any)
            assert_type(hit[client.SEARCH_RESULT_ID_IDX], Any)
        vec.search(np.zeros(2), max_distance=0.5, measure="l2", include=["contents"])
        vec.search("posts about cats", text="cats", mode="hybrid")
        assert_type(vec.fetch([uuid.uuid4()]), list[client.CollectionResult])
        assert_type(vec.count({"a": 1}), int)
        assert_type(vec.table_is_empty(), bool)
        assert_type(vec.centroid(), NDArray[Any] | None)
        assert_type(vec.list_collections(), list[client.CollectionInfo])
        assert_type([hit.contents for hit in vec.stream(page=100)], list[str])
        assert_type(vec.drop_partitions(older_than=timedelta(days=90)), list[str])
        with vec.connect() as connection:
            connection.execute("select 1")
        vec.delete_by_ids([uuid.uuid4()])
        vec.delete_by_metadata({"action": "jump"})
        vec.delete_all(drop_index=False)
        vec.drop_embedding_index()
        vec.drop_table()


async def async_use() -> None:
    async with client.Async(URL, "my_data", 2, distance_type="l2") as vec:
        assert_type(vec, client.Async)
        await vec.create_tables()
        await vec.upsert([("id", None, "text", [1.0, 2.0])])
        assert_type(await vec.search([1.0, 2.0], 3), list[client.CollectionResult])
        async for hit in vec.stream():
            assert_type(hit, client.CollectionResult)
        async with await vec.connect() as connection:
            await connection.execute("select 1")


def wrong_use(vec: client.Sync) -> None:
    # Each would be an unused ignore, hence an error, if mypy took it.
    vec.search([1.0], limit="10")  # type: ignore[arg-type]
    vec.search([1.0], predicates={"a": 1})  # type: ignore[arg-type]
    vec.create_embedding_index("hnsw")  # type: ignore[arg-type]
    vec.upsert(5)  # type: ignore[arg-type]
    client.Sync(URL, "my_data")  # type: ignore[call-arg]


def builder() -> None:
    query = client.QueryBuilder("t", 2, "cosine", "UUID", None, True, None)
    text, values = query.search_query([1.0, 2.0], 10, {"a": 1})
    assert_type(text, str)
    assert_type(values, list[Any])
