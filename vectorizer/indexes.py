"""Indexes over embeddings, as timescale_vector describes them, and parameters of one search.

What each parameter means is in the documentation of pgvector (ivfflat, hnsw) and of
pgvectorscale (diskann).
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from psycopg import sql

from vectorizer.errors import InvalidArgument
from vectorizer.measures import ColumnType, Measure, checked_measure
from vectorizer.statements import compose

__all__ = [
    "BaseIndex",
    "DiskAnnIndex",
    "DiskAnnIndexParams",
    "HNSWIndex",
    "HNSWIndexParams",
    "IndexProgress",
    "IvfflatIndex",
    "IvfflatIndexParams",
    "QueryParams",
    "TimescaleVectorIndex",
    "TimescaleVectorIndexParams",
    "implied_params",
    "index_options",
]

_MANY_RECORDS: Final = 1_000_000
_FEWEST_LISTS: Final = 10
_MOST_LISTS: Final = 32_768
# An indexed vector must fit into a page of 8 kB.
_MOST_DIMENSIONS: Final = {"vector": 2000, "halfvec": 4000, "bit": 64_000}


class BaseIndex:
    """An index over the embeddings of a collection."""

    method = ""
    """The index method in SQL: ivfflat, hnsw or diskann."""

    def options(self, records: Callable[[], int]) -> dict[str, Any]:
        """Return the storage parameters; `records` counts the records where that matters."""
        raise NotImplementedError

    def check(self, measure: Measure, column_type: ColumnType, dimensions: int) -> None:
        """Raise InvalidArgument if such an index cannot serve such a collection."""
        most = _MOST_DIMENSIONS[column_type]
        if dimensions > most:
            larger = "; make the collection with vector_type='halfvec'" if most == 2000 else ""  # noqa: PLR2004
            raise InvalidArgument(
                f"{self.method} indexes at most {most} dimensions of a {column_type}, "
                f"and these have {dimensions}{larger}"
            )
        if self.method == "ivfflat" and not measure.in_ivfflat:
            raise InvalidArgument(f"ivfflat cannot index {measure.name}; choose HNSWIndex")

    def operator_class(self, measure: Measure, column_type: ColumnType) -> str | None:
        """Return the operator class to index with; None for the method's only one."""
        return measure.class_for(column_type)

    def get_index_method(self, distance_type: str) -> str:
        """Return the operator class of a distance operator, as timescale_vector calls it."""
        return checked_measure(distance_type, "vector").class_for("vector")

    def create_index_query(
        self,
        table_name_quoted: str,
        column_name_quoted: str,
        index_name_quoted: str,
        distance_type: str,
        num_records_callback: Callable[[], int],
    ) -> str:
        """Return the statement that makes the index; the names come quoted."""
        self.check(checked_measure(distance_type, "vector"), "vector", 1)
        operator_class = "" if self.method == "diskann" else self.get_index_method(distance_type)
        made = compose(
            "create index {index} on {table} using {method} ({column} {operator_class}) {options}",
            index=sql.SQL(index_name_quoted),
            table=sql.SQL(table_name_quoted),
            method=sql.SQL(self.method),
            column=sql.SQL(column_name_quoted),
            operator_class=sql.SQL(operator_class),
            options=index_options(self.options(num_records_callback)),
        )
        return made.as_string(None)

    def __repr__(self) -> str:
        given = ", ".join(f"{name}={value!r}" for name, value in vars(self).items())
        return f"{type(self).__name__}({given})"


def index_options(options: Mapping[str, Any]) -> sql.Composable:
    """Return storage parameters for CREATE INDEX."""
    if not options:
        return sql.SQL("")
    pairs = (
        compose("{} = {}", sql.SQL(name), sql.Literal(value)) for name, value in options.items()
    )
    return compose("with ({})", sql.SQL(", ").join(pairs))


@dataclass(frozen=True, slots=True)
class IndexProgress:
    """How far the build of an index is, as `pg_stat_progress_create_index` has it."""

    phase: str
    blocks_done: int
    blocks_total: int
    tuples_done: int
    tuples_total: int


_EF_SEARCH: Final = 40
_MOST_EF_SEARCH: Final = 1000


def implied_params(
    limit: int, *, restricted: bool, vector_version: tuple[int, ...]
) -> dict[str, Any]:
    """Return settings with which an index finds as many as a search wants, filter or not."""
    implied: dict[str, Any] = {}
    if limit > _EF_SEARCH:
        implied["hnsw.ef_search"] = min(limit, _MOST_EF_SEARCH)
    if vector_version >= (0, 8) and (restricted or limit > _EF_SEARCH):
        # A filter is applied to what the index finds: go on until the limit is reached.
        implied |= {
            "hnsw.iterative_scan": "strict_order",
            "ivfflat.iterative_scan": "relaxed_order",
        }
    return implied


class IvfflatIndex(BaseIndex):
    """pgvector's ivfflat: quick to build, needs data first and a rebuild when they change.

    num_records: how many records to expect, by default as many as there are now; num_lists:
    by default a thousandth of that, at least 10, or its square root above a million.
    """

    method = "ivfflat"

    def __init__(self, num_records: int | None = None, num_lists: int | None = None) -> None:
        self.num_records = _whole("num_records", num_records, 0, None)
        self.num_lists = _whole("num_lists", num_lists, 1, _MOST_LISTS)

    def get_num_records(self, num_record_callback: Callable[[], int]) -> int:
        """Return the number of records given, or else counted."""
        return num_record_callback() if self.num_records is None else int(self.num_records)

    def get_num_lists(self, num_records_callback: Callable[[], int]) -> int:
        """Return the number of lists given, or else what fits the number of records."""
        if self.num_lists is not None:
            return int(self.num_lists)
        records = self.get_num_records(num_records_callback)
        lists = math.isqrt(records) if records > _MANY_RECORDS else records // 1000
        return min(max(lists, _FEWEST_LISTS), _MOST_LISTS)

    def options(self, records: Callable[[], int]) -> dict[str, Any]:
        """Return the number of lists."""
        return {"lists": self.get_num_lists(records)}


class HNSWIndex(BaseIndex):
    """pgvector's hnsw: the best recall and speed, slow to build.

    m: connections a layer, 2 to 100; ef_construction: size of the candidate list while
    building, up to 1000 and at least twice m.
    """

    method = "hnsw"

    def __init__(self, m: int | None = 16, ef_construction: int | None = 64) -> None:
        self.m = _whole("m", 16 if m is None else m, 2, 100)
        self.ef_construction = _whole(
            "ef_construction", 64 if ef_construction is None else ef_construction, 4, 1000
        )
        if self.ef_construction < 2 * self.m:
            raise InvalidArgument(
                f"ef_construction must be at least twice m, got {self.ef_construction} and {self.m}"
            )

    def options(self, records: Callable[[], int]) -> dict[str, Any]:  # noqa: ARG002
        """Return m and ef_construction."""
        return {"m": self.m, "ef_construction": self.ef_construction}


class DiskAnnIndex(BaseIndex):
    """pgvectorscale's StreamingDiskANN, for cosine; HNSW where that extension is missing.

    search_list_size, num_neighbors, max_alpha: quality of the graph; storage_layout:
    memory_optimized or plain; num_dimensions: how many to index, 0 for all;
    num_bits_per_dimension: of the compressed form. What is None is left to the extension.
    strict: raise ExtensionMissing instead of building HNSW.
    """

    method = "diskann"

    def __init__(
        self,
        search_list_size: int | None = 100,
        num_neighbors: int | None = 50,
        max_alpha: float | None = 1.0,
        storage_layout: str | None = None,
        num_dimensions: int | None = None,
        num_bits_per_dimension: int | None = None,
        *,
        strict: bool = False,
    ) -> None:
        if storage_layout not in (None, "memory_optimized", "plain"):
            raise InvalidArgument(
                f"storage_layout is memory_optimized or plain, got {storage_layout!r}"
            )
        self.search_list_size = _whole("search_list_size", search_list_size, 10, 1000)
        self.num_neighbors = _whole("num_neighbors", num_neighbors, 10, 1000)
        self.max_alpha = _alpha(max_alpha)
        self.storage_layout = storage_layout
        self.num_dimensions = _whole("num_dimensions", num_dimensions, 0, 5000)
        self.num_bits_per_dimension = _whole(
            "num_bits_per_dimension", num_bits_per_dimension, 0, 32
        )
        self.strict = strict

    def options(self, records: Callable[[], int]) -> dict[str, Any]:  # noqa: ARG002
        """Return what was given."""
        given = {name: value for name, value in vars(self).items() if value is not None}
        del given["strict"]
        return given

    def check(self, measure: Measure, column_type: ColumnType, dimensions: int) -> None:  # noqa: ARG002
        """Raise InvalidArgument unless the collection holds vectors, compared by cosine."""
        if measure.name != "cosine":
            raise InvalidArgument(
                f"{type(self).__name__} supports only cosine distance, but distance_type is "
                f"{measure.name}; choose HNSWIndex"
            )
        if column_type != "vector":
            raise InvalidArgument(f"{type(self).__name__} does not index {column_type}")

    def operator_class(self, measure: Measure, column_type: ColumnType) -> str | None:
        """Return None: diskann's own default is cosine."""
        del measure, column_type
        return None


class TimescaleVectorIndex(DiskAnnIndex):
    """What timescale_vector called DiskAnnIndex before."""


def _whole(name: str, value: Any, least: int, most: int | None) -> Any:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int):
        raise InvalidArgument(f"{name} must be a whole number, got {value!r}")
    if value < least or (most is not None and value > most):
        limit = f"{least} or more" if most is None else f"between {least} and {most}"
        raise InvalidArgument(f"{name} must be {limit}, got {value}")
    return value


def _alpha(value: Any) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 1 <= value <= 5:  # noqa: PLR2004
        raise InvalidArgument(f"max_alpha must be between 1.0 and 5.0, got {value!r}")
    return value


class QueryParams:
    """Server settings for one search alone: `QueryParams({"hnsw.ef_search": 100})`."""

    def __init__(self, params: Mapping[str, Any]) -> None:
        for name, value in params.items():
            if not isinstance(name, str) or not _SETTING.fullmatch(name):
                raise InvalidArgument(f"{name!r} is no name of a setting, like hnsw.ef_search")
            if not isinstance(value, (str, int, float, bool)) or "\0" in str(value):
                raise InvalidArgument(f"{name} cannot be set to {value!r}")
        self.params = dict(params)

    def get_statements(self) -> list[str]:
        """Return one SET LOCAL a setting."""
        return [
            compose(
                "set local {} = {}",
                sql.SQL(".").join(map(sql.Identifier, name.split("."))),
                sql.Literal(str(value)),
            ).as_string(None)
            for name, value in self.params.items()
        ]

    def statement(self) -> tuple[sql.Composed, list[str]]:
        """Return one statement that sets them until the transaction ends, and its values."""
        calls = sql.SQL(", ").join([sql.SQL("set_config(%s, %s, true)")] * len(self.params))
        values = [part for name, value in self.params.items() for part in (name, str(value))]
        return compose("select {}", calls), values

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.params!r})"


_SETTING: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)?")
_MORE_SCANS: Final = ("off", "relaxed_order", "strict_order")


class IvfflatIndexParams(QueryParams):
    """probes: lists that one search looks into; the square root of their number is a good start."""

    def __init__(self, probes: int = 10, *, iterative_scan: str | None = None) -> None:
        params = {"ivfflat.probes": _whole("probes", probes, 1, _MOST_LISTS)}
        super().__init__({**params, **_iterative("ivfflat", iterative_scan)})


class HNSWIndexParams(QueryParams):
    """ef_search: size of the candidate list of one search, 1 to 1000.

    iterative_scan: off, relaxed_order or strict_order, whether to go on where a filter leaves
    fewer records than asked for; by default it does, in strict order.
    """

    def __init__(self, ef_search: int = 40, *, iterative_scan: str | None = None) -> None:
        params = {"hnsw.ef_search": _whole("ef_search", ef_search, 1, 1000)}
        super().__init__({**params, **_iterative("hnsw", iterative_scan)})


class DiskAnnIndexParams(QueryParams):
    """search_list_size: candidates besides those returned; rescore: how many are measured again.

    What is None is left to the server: 100 and 50.
    """

    def __init__(self, search_list_size: int | None = None, rescore: int | None = None) -> None:
        given = {
            "diskann.query_search_list_size": _whole(
                "search_list_size", search_list_size, 1, 10_000
            ),
            "diskann.query_rescore": _whole("rescore", rescore, 0, 10_000),
        }
        super().__init__({name: value for name, value in given.items() if value is not None})


class TimescaleVectorIndexParams(DiskAnnIndexParams):
    """What timescale_vector called DiskAnnIndexParams before."""


def _iterative(method: str, mode: str | None) -> dict[str, str]:
    if mode is None:
        return {}
    if mode not in _MORE_SCANS or (method == "ivfflat" and mode == "strict_order"):
        raise InvalidArgument(f"iterative_scan of {method} cannot be {mode!r}")
    return {f"{method}.iterative_scan": mode}
