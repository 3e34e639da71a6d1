"""timescale_vector's client on any PostgreSQL with pgvector.

Code written for `timescale_vector.client` runs with only its import changed::

    from vectorizer import client
"""

from __future__ import annotations

from vectorizer._async.collection import AsyncCollection
from vectorizer._sync.collection import Collection
from vectorizer.identifiers import uuid_from_time
from vectorizer.indexes import (
    BaseIndex,
    DiskAnnIndex,
    DiskAnnIndexParams,
    HNSWIndex,
    HNSWIndexParams,
    IndexProgress,
    IvfflatIndex,
    IvfflatIndexParams,
    QueryParams,
    TimescaleVectorIndex,
    TimescaleVectorIndexParams,
)
from vectorizer.predicates import Predicates
from vectorizer.query_builder import QueryBuilder
from vectorizer.records import CollectionInfo, CollectionResult, RankedResult
from vectorizer.times import UUIDTimeRange

__all__ = [
    "SEARCH_RESULT_CONTENTS_IDX",
    "SEARCH_RESULT_DISTANCE_IDX",
    "SEARCH_RESULT_EMBEDDING_IDX",
    "SEARCH_RESULT_ID_IDX",
    "SEARCH_RESULT_METADATA_IDX",
    "Async",
    "BaseIndex",
    "CollectionInfo",
    "CollectionResult",
    "DiskAnnIndex",
    "DiskAnnIndexParams",
    "HNSWIndex",
    "HNSWIndexParams",
    "IndexProgress",
    "IvfflatIndex",
    "IvfflatIndexParams",
    "Predicates",
    "QueryBuilder",
    "QueryParams",
    "RankedResult",
    "Sync",
    "TimescaleVectorIndex",
    "TimescaleVectorIndexParams",
    "UUIDTimeRange",
    "uuid_from_time",
]

(
    SEARCH_RESULT_ID_IDX,
    SEARCH_RESULT_METADATA_IDX,
    SEARCH_RESULT_CONTENTS_IDX,
    SEARCH_RESULT_EMBEDDING_IDX,
    SEARCH_RESULT_DISTANCE_IDX,
) = range(len(CollectionResult._fields))


class Sync(Collection):
    """A collection of vectors, used from synchronous code."""


class Async(AsyncCollection):
    """A collection of vectors, used from asynchronous code."""
