"""What a collection is meant to be (`Options`), and what its table really is (`Shape`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any, Final, Literal, TypeAlias, get_args

from vectorizer.conditions import Clock
from vectorizer.definition import Relation
from vectorizer.errors import DimensionMismatch, ExtensionMissing, InvalidArgument
from vectorizer.measures import ColumnType, Measure, checked_column_type, checked_measure

__all__ = ["NO_VECTOR", "Options", "Partitioning", "Shape"]

Partitioning: TypeAlias = Literal["auto", "native", "timescaledb"]

NO_VECTOR: Final = (
    'the extension "vector" (pgvector) is missing in this database; install pgvector on the '
    "server, then let an administrator run: CREATE EXTENSION vector"
)
_MOST_DIMENSIONS: Final = {"vector": 16_000, "halfvec": 16_000, "bit": 64_000}
_LONGEST_INTERVAL: Final = timedelta(days=366 * 1000)
_KINDS: Final = {"r": "table", "p": "partitioned", "v": "view", "m": "view", "f": "table"}
_NO_TYPMOD: Final = -1


@dataclass(frozen=True, slots=True)
class Options:
    """The arguments of a client, checked."""

    table: str
    schema: str | None
    dimensions: int
    measure: Measure
    uuids: bool
    interval: timedelta | None
    infer_filters: bool
    column_type: ColumnType
    partitioning: Partitioning
    normalize: bool
    text_config: str

    @classmethod
    def checked(
        cls,
        table_name: str,
        num_dimensions: int,
        distance_type: str = "cosine",
        id_type: str = "UUID",
        time_partition_interval: timedelta | None = None,
        infer_filters: bool = True,
        schema_name: str | None = None,
        *,
        vector_type: str = "vector",
        partitioning: str = "auto",
        normalize: bool = False,
        text_config: str = "english",
    ) -> Options:
        """Return the options; raise InvalidArgument for what cannot be."""
        column_type = checked_column_type(vector_type)
        uuids = _checked_id_type(id_type) == "UUID"
        if time_partition_interval is not None:
            _check_interval(time_partition_interval, uuids=uuids)
        if normalize and column_type == "bit":
            raise InvalidArgument("normalize does not go with vector_type bit")
        return cls(
            table=_checked_name("table_name", table_name),
            schema=None if schema_name is None else _checked_name("schema_name", schema_name),
            dimensions=_checked_dimensions(num_dimensions, column_type),
            measure=checked_measure(
                "hamming" if (column_type, distance_type) == ("bit", "cosine") else distance_type,
                column_type,
            ),
            uuids=uuids,
            interval=time_partition_interval,
            infer_filters=infer_filters,
            column_type=column_type,
            partitioning=_checked_partitioning(partitioning),
            normalize=normalize,
            text_config=_checked_name("text_config", text_config),
        )

    def with_measure(self, name: str | None) -> Options:
        """Return the same with another measure; None for the collection's own."""
        if name is None:
            return self
        return replace(self, measure=checked_measure(name, self.column_type))


def _checked_name(argument: str, name: Any) -> str:
    if not isinstance(name, str) or not name or "\0" in name:
        raise InvalidArgument(f"{argument} must be a text that is not empty, got {name!r}")
    if len(name.encode(errors="replace")) > 63:  # noqa: PLR2004 - PostgreSQL would cut it
        raise InvalidArgument(f"{argument} {name!r} is longer than the 63 bytes PostgreSQL keeps")
    try:
        name.encode()
    except UnicodeEncodeError as error:
        raise InvalidArgument(f"{argument} {name!r} cannot be written as UTF-8") from error
    return name


def _checked_id_type(id_type: Any) -> str:
    if not isinstance(id_type, str) or id_type.upper() not in ("UUID", "TEXT"):
        raise InvalidArgument(f"id_type {id_type!r} is unknown; choose UUID or TEXT")
    return id_type.upper()


def _checked_dimensions(dimensions: Any, column_type: ColumnType) -> int:
    most = _MOST_DIMENSIONS[column_type]
    if isinstance(dimensions, bool) or not isinstance(dimensions, int):
        raise InvalidArgument(f"num_dimensions must be a whole number, got {dimensions!r}")
    if not 1 <= dimensions <= most:
        raise InvalidArgument(f"num_dimensions must be between 1 and {most}, got {dimensions}")
    return dimensions


def _check_interval(interval: Any, *, uuids: bool) -> None:
    if not isinstance(interval, timedelta):
        raise InvalidArgument(f"time_partition_interval must be a timedelta, got {interval!r}")
    if not timedelta(seconds=1) <= interval <= _LONGEST_INTERVAL:
        raise InvalidArgument(
            f"time_partition_interval must be between a second and 1,000 years, got {interval}"
        )
    if not uuids:
        raise InvalidArgument("time_partition_interval needs ids of type UUID")


def _checked_partitioning(partitioning: Any) -> Partitioning:
    for known in get_args(Partitioning):
        if partitioning == known:
            return known  # type: ignore[no-any-return]
    raise InvalidArgument(
        f"partitioning {partitioning!r} is unknown; choose auto, native or timescaledb"
    )


@dataclass(frozen=True, slots=True)
class Shape:
    """A table or view as it is in the database.

    kind: table, partitioned, hypertable or view; vectors: schema of the extension `vector`;
    unix_times: a hypertable's uuid_timestamp understands version 7, too.
    """

    relation: Relation
    kind: str
    has_time: bool
    uuids: bool
    column_type: ColumnType
    vectors: str
    vector_version: tuple[int, ...]
    unix_times: bool = True
    vectorscale: bool = False

    @property
    def clock(self) -> Clock:
        """Where the time of a record is found."""
        if self.has_time:
            return Clock.COLUMN
        if self.kind == "hypertable":
            return Clock.FUNCTION
        return Clock.ID if self.uuids else Clock.NONE

    @classmethod
    def expected(cls, options: Options) -> Shape:
        """Return the shape that create_tables gives a new table on plain PostgreSQL."""
        return cls.created(options, options.schema or "public", "public", hypertable=False)

    @classmethod
    def created(cls, options: Options, schema: str, vectors: str, *, hypertable: bool) -> Shape:
        """Return the shape of a new table in a schema; vectors: where the extension lives."""
        partitioned = options.interval is not None and not hypertable
        plain = "hypertable" if hypertable else "table"
        return cls(
            relation=Relation(schema, options.table),
            kind="partitioned" if partitioned else plain,
            has_time=partitioned,
            uuids=options.uuids,
            column_type=options.column_type,
            vectors=vectors,
            vector_version=(0, 8),
        )

    @classmethod
    def found(cls, record: Sequence[Any], options: Options, *, hypertable: bool) -> Shape:
        """Return the shape of what find_collection found.

        Raises ExtensionMissing without pgvector, InvalidArgument or DimensionMismatch if this
        is no such collection; each says what to do.
        """
        schema, name, kind, columns, vectors, version, _, _, function, vectorscale = record
        if vectors is None:
            raise ExtensionMissing(NO_VECTOR)
        if name is None:
            raise InvalidArgument(
                f"there is no table {_named(options)}; call create_tables() to make it"
            )
        _check_columns(columns, options)
        return cls(
            relation=Relation(schema, name),
            kind="hypertable" if hypertable else _KINDS.get(kind, kind),
            has_time=columns.get("time", [None])[0] == "timestamptz",
            uuids=options.uuids,
            column_type=columns["embedding"][0],
            vectors=vectors,
            vector_version=tuple(int(part) for part in version.split(".") if part.isdigit()),
            unix_times="UUID version is not 1" not in (function or ""),
            vectorscale=vectorscale,
        )


def _named(options: Options) -> str:
    return options.table if options.schema is None else f"{options.schema}.{options.table}"


def _check_columns(columns: Mapping[str, Sequence[Any]], options: Options) -> None:
    types = {name: kind for name, (kind, _) in columns.items()}
    wanted = {
        "id": "uuid" if options.uuids else "text",
        "metadata": "jsonb",
        "contents": "text",
        "embedding": options.column_type,
    }
    if types.get("id") == "varchar" and not options.uuids:
        wanted["id"] = "varchar"
    if {options.column_type, types.get("embedding")} == {"vector", "halfvec"}:
        wanted["embedding"] = types["embedding"]  # they differ in precision, not in use
    for name, kind in wanted.items():
        if types.get(name) != kind:
            raise InvalidArgument(
                f"{_named(options)} is no collection as described: column {name} should be "
                f"{kind}, and is {types.get(name, 'missing')}; {_REMEDIES[name]}"
            )
    found = columns["embedding"][1]
    if found not in (_NO_TYPMOD, options.dimensions):
        raise DimensionMismatch(
            f"{_named(options)} holds vectors of {found} dimensions, and num_dimensions is "
            f"{options.dimensions}; give {found}, or choose another table_name"
        )


_REMEDIES: Final = {
    "id": "give its id_type (UUID or TEXT), or choose another table_name",
    "metadata": "choose another table_name",
    "contents": "choose another table_name",
    "embedding": "give its vector_type (vector, halfvec or bit), or choose another table_name",
}
