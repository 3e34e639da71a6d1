"""The statements of a collection as text, with timescale_vector's `QueryBuilder`.

They are for reading, and for programs that run SQL themselves: placeholders are $1, $2 …, and
the table is what create_tables makes on PostgreSQL without other extensions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any, Final
from uuid import UUID

from psycopg import sql
from typing_extensions import Self

from vectorizer.collection_options import Options, Shape
from vectorizer.collection_statements import CollectionStatements, Wanted
from vectorizer.filters import Filter, refuse_empty
from vectorizer.indexes import BaseIndex
from vectorizer.naming import fitted
from vectorizer.predicates import Predicates
from vectorizer.statements import compose
from vectorizer.times import UUIDTimeRange

__all__ = ["QueryBuilder"]

_UPSERT: Final = """insert into {table} (id, metadata, contents, embedding) values ($1, $2, $3, $4)
on conflict (id) do update
set metadata = excluded.metadata, contents = excluded.contents, embedding = excluded.embedding"""
_MAX_CONNECTIONS: Final = """select greatest(1, current_setting('max_connections')::int
  - (select count(*)::int from pg_stat_activity) - 4)"""


class QueryBuilder:
    """Statements for a table; the arguments are those of a client."""

    def __init__(
        self,
        table_name: str,
        num_dimensions: int,
        distance_type: str = "cosine",
        id_type: str = "UUID",
        time_partition_interval: timedelta | None = None,
        infer_filters: bool = True,
        schema_name: str | None = None,
    ) -> None:
        self._describe(
            Options.checked(
                table_name,
                num_dimensions,
                distance_type,
                id_type,
                time_partition_interval,
                infer_filters,
                schema_name,
            )
        )

    @classmethod
    def of(cls, options: Options) -> Self:
        """Return the builder for checked options."""
        builder = cls.__new__(cls)
        builder._describe(options)  # noqa: SLF001 - its own class
        return builder

    def _describe(self, options: Options) -> None:
        self.table_name = options.table
        self.schema_name = options.schema
        self.num_dimensions = options.dimensions
        self.distance_type = options.measure.operator
        self.id_type = "uuid" if options.uuids else "text"
        self.time_partition_interval = options.interval
        self.infer_filters = options.infer_filters
        self._options = options
        self._statements = CollectionStatements(options, Shape.expected(options))

    @property
    def _table(self) -> sql.Composable:
        return self._statements.table

    def get_row_exists_query(self) -> str:
        """Return the query that finds a row if there is any."""
        return compose("select 1 from {} limit 1", self._table).as_string(None)

    def get_upsert_query(self) -> str:
        """Return the statement that writes one record; a client copies many at once."""
        return compose(_UPSERT, table=self._table).as_string(None)

    def get_approx_count_query(self) -> str:
        """Return the query that counts the records."""
        return compose("select count(*) as cnt from {}", self._table).as_string(None)

    def get_create_query(self) -> str:
        """Return the statements that make the extension, the table and its index on metadata."""
        partitioned = self._options.interval is not None
        table = self._statements.create_table(partitioned=partitioned)
        index = self._statements.create_metadata_index()
        return f"create extension if not exists vector;\n{table};\n{index};"

    def drop_embedding_index_query(self) -> str:
        """Return the statement that drops the index over the embeddings."""
        name = fitted(self.table_name, "_embedding_idx")
        index = sql.Identifier(*filter(None, (self.schema_name, name)))
        return compose("drop index if exists {}", index).as_string(None)

    def create_embedding_index_query(
        self, index: BaseIndex, num_records_callback: Callable[[], int]
    ) -> str:
        """Return the statement that makes an index over the embeddings."""
        name = sql.Identifier(fitted(self.table_name, "_embedding_idx"))
        return index.create_index_query(
            self._table.as_string(None),
            '"embedding"',
            name.as_string(None),
            self.distance_type,
            num_records_callback,
        )

    def delete_all_query(self) -> str:
        """Return the statement that deletes all records."""
        return compose("truncate {}", self._table).as_string(None)

    def delete_by_ids_query(self, ids: Sequence[UUID] | Sequence[str]) -> tuple[str, list[Any]]:
        """Return the deletion by ids, and its values."""
        text, _ = self._statements.delete_ids(ids)
        return text, [list(ids)]

    def delete_by_metadata_query(self, filter: Filter) -> tuple[str, list[Any]]:  # noqa: A002 - the documented name
        """Return the deletion by metadata, and its values."""
        refuse_empty(filter, "delete_by_metadata")
        return self._statements.of_matching("delete_records", Wanted(filter=filter))

    def drop_table_query(self) -> str:
        """Return the statement that drops the table."""
        return compose("drop table if exists {}", self._table).as_string(None)

    def default_max_db_connection_query(self) -> str:
        """Return the query for how many connections the server has left, less four."""
        return _MAX_CONNECTIONS

    def search_query(
        self,
        query_embedding: Any = None,
        limit: int = 10,
        filter: Filter | None = None,  # noqa: A002 - the documented name
        predicates: Predicates | None = None,
        uuid_time_filter: UUIDTimeRange | None = None,
    ) -> tuple[str, list[Any]]:
        """Return the search, and its values."""
        wanted = Wanted(filter, predicates, uuid_time_filter)
        return self._statements.search(query_embedding, limit, wanted)
