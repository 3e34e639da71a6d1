"""A collection of vectors with metadata and contents: create, write, search, index, delete."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import datetime, timedelta
from types import TracebackType
from typing import TYPE_CHECKING, Any
from uuid import UUID

import psycopg
from psycopg.rows import TupleRow
from typing_extensions import Self

from vectorizer._async.collection_indexes import AsyncCollectionIndexes
from vectorizer._async.collection_partitions import AsyncCollectionPartitions
from vectorizer._async.collection_search import AsyncCollectionSearch, Mode
from vectorizer._async.collection_tables import AsyncCollectionTables
from vectorizer._async.collection_texts import AsyncCollectionTexts
from vectorizer._async.collection_writer import AsyncCollectionWriter
from vectorizer._async.database import AsyncDatabase
from vectorizer.collection_options import Options
from vectorizer.collection_statements import FIELDS, Wanted
from vectorizer.errors import InvalidArgument
from vectorizer.filters import Filter
from vectorizer.indexes import BaseIndex, IndexProgress, QueryParams
from vectorizer.predicates import Predicates
from vectorizer.query_builder import QueryBuilder
from vectorizer.records import CollectionInfo, CollectionResult, Record
from vectorizer.texts import Splitter, is_text
from vectorizer.times import UUIDTimeRange
from vectorizer.types import Embedder

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

__all__ = ["AsyncCollection"]

_CONNECTIONS = 10
# A search is a round trip; asking before each whether its connection lives would be another.
_UNCHECKED_SECONDS = 1.0


class AsyncCollection:
    """A table of vectors, with timescale_vector's API and more.

    service_url: libpq connection string or URL; table_name, schema_name: the table, in the
    first schema of the search_path unless told otherwise; num_dimensions: components of each
    vector; distance_type: cosine, euclidean (or l2), inner_product (the negative one, as
    pgvector has it) or l1, for bits hamming (their default) or jaccard; id_type: UUID or TEXT.

    time_partition_interval: partition the table by the time in its ids (UUIDs of version 1 or
    7); partitioning: native, timescaledb, or auto: a hypertable where that extension is
    installed. max_db_connections: most connections at once, 10 by default; infer_filters:
    whether `__start_date` and `__end_date` in a filter mean the time in the id.

    vector_type: vector, halfvec or bit; normalize: bring vectors to length 1 on their way in;
    embedder, chunker: for texts in place of vectors; text_config: the language of full-text
    search, as PostgreSQL calls it.

    Methods raise InvalidArgument (a ConfigurationError, and a ValueError) for wrong arguments
    and DatabaseError for what the server refuses; nothing of a refused call is written. One
    client may be used by many threads or tasks at once.
    """

    def __init__(
        self,
        service_url: str,
        table_name: str,
        num_dimensions: int,
        distance_type: str = "cosine",
        id_type: str = "UUID",
        time_partition_interval: timedelta | None = None,
        max_db_connections: int | None = None,
        infer_filters: bool = True,
        schema_name: str | None = None,
        *,
        vector_type: str = "vector",
        partitioning: str = "auto",
        normalize: bool = False,
        embedder: Embedder | None = None,
        chunker: Splitter | None = None,
        text_config: str = "english",
    ) -> None:
        options = Options.checked(
            table_name,
            num_dimensions,
            distance_type,
            id_type,
            time_partition_interval,
            infer_filters,
            schema_name,
            vector_type=vector_type,
            partitioning=partitioning,
            normalize=normalize,
            text_config=text_config,
        )
        connections = _CONNECTIONS if max_db_connections is None else max_db_connections
        if isinstance(connections, bool) or not isinstance(connections, int) or connections < 1:
            raise InvalidArgument(f"max_db_connections must be 1 or more, got {connections!r}")
        self.service_url = service_url
        self.time_partition_interval = time_partition_interval
        self.infer_filters = infer_filters
        self.builder = QueryBuilder.of(options)
        self._database = AsyncDatabase(
            service_url, max_connections=connections, unchecked_seconds=_UNCHECKED_SECONDS
        )
        self._tables = AsyncCollectionTables(self._database, options)
        self._writer = AsyncCollectionWriter(self._tables)
        self._search = AsyncCollectionSearch(self._tables)
        self._indexes = AsyncCollectionIndexes(self._tables)
        self._partitions = AsyncCollectionPartitions(self._tables)
        self._has_texts = embedder is not None
        # Bits may be written as text, too: "0110".
        self._takes_bits = options.column_type == "bit" and embedder is None
        self._texts = AsyncCollectionTexts(
            self._writer, self._search, embedder, chunker, num_dimensions, uuids=options.uuids
        )

    async def __aenter__(self) -> Self:
        await self._database.open()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    async def connect(
        self,
    ) -> AbstractAsyncContextManager[psycopg.AsyncConnection[TupleRow]]:
        """Open the connections; otherwise the first call does.

        What is returned lends one of them, in autocommit mode, to a `with` block.
        """
        await self._database.open()
        return self._database.connection()

    async def close(self) -> None:
        """Close the connections. They are opened again when needed."""
        await self._database.close()

    async def create_tables(self) -> None:
        """Create the table and its index on metadata where they are missing.

        The extension `vector` is created if it is missing and the role may do so; else
        ExtensionMissing says what an administrator has to run.
        """
        await self._tables.create()

    async def drop_table(self) -> None:
        """Drop the table with all that is in it; harmless if there is none."""
        await self._tables.drop()

    async def table_is_empty(self) -> bool:
        """Whether there is no record."""
        return await self._tables.is_empty()

    async def upsert(self, records: Iterable[Record]) -> None:
        """Write records (id, metadata, contents, embedding); a known id is replaced.

        metadata is a mapping, or JSON text; not both in one call. embedding is a list, an array,
        or one of pgvector's types. Of several records with one id the last counts. With an
        embedder, records may be (id, metadata, contents): the contents are cut into chunks and
        embedded, and replace every chunk stored under that id before.

        Raises InvalidArgument naming the position of the first record that cannot be written;
        nothing is written then.
        """
        if not self._has_texts:
            await self._writer.upsert(records)
            return
        everything = list(records)
        if everything and is_text(everything[0]):
            await self._texts.upsert(everything)
        else:
            await self._writer.upsert(everything)

    async def delete_by_ids(self, ids: Sequence[UUID] | Sequence[str]) -> None:
        """Delete the records with these ids, or with an embedder all chunks of these texts."""
        await self._writer.delete_by_ids(ids, texts=self._has_texts)

    async def delete_by_metadata(self, filter: Filter) -> None:  # noqa: A002 - the documented name
        """Delete the records whose metadata a filter matches, or any of a list of filters.

        An empty mapping would match everything, and is refused with InvalidArgument.
        """
        await self._writer.delete_by_metadata(filter)

    async def delete_all(self, drop_index: bool = True) -> None:
        """Delete all records, and the index over the embeddings unless it is to stay."""
        if drop_index:
            await self._indexes.drop()
        await self._tables.truncate()

    async def drop_partitions(self, older_than: datetime | timedelta | str) -> list[str]:
        """Drop the partitions that hold nothing but records older than a time; return their names.

        older_than: a time, or a timedelta back from now.
        """
        return await self._partitions.drop(older_than)

    async def search(
        self,
        query_embedding: ArrayLike | str | None = None,
        limit: int = 10,
        filter: Filter | None = None,  # noqa: A002 - the documented name
        predicates: Predicates | None = None,
        uuid_time_filter: UUIDTimeRange | None = None,
        query_params: QueryParams | None = None,
        *,
        text: str | None = None,
        mode: Mode | None = None,
        max_distance: float | None = None,
        measure: str | None = None,
        include: Sequence[str] = FIELDS,
    ) -> list[CollectionResult]:
        """Return the records nearest to a vector, nearest first; without one, any that match.

        query_embedding: a vector, or with an embedder a text. filter: metadata that must match,
        or a list of mappings of which any may match, with the operators of vecs ($gt, $in,
        $or …); predicates: Predicates; uuid_time_filter: a range of the times in ids.
        query_params: settings for this search alone. max_distance: leave out what is further.
        measure: another distance than the collection's; include: which of id, metadata,
        contents and embedding to return, the others are None.

        text, mode: `hybrid` (the default with a text) fuses the ranks by distance and by words,
        `text` ranks by words alone, in the syntax of web searches; results have a `score` then.
        """
        query: Any = query_embedding
        if query is None and text is not None and mode != "text" and self._has_texts:
            query = text
        if isinstance(query, str) and not self._takes_bits:
            query = await self._texts.embedded(query)
        return await self._search.search(
            query,
            limit,
            Wanted(filter, predicates, uuid_time_filter),
            text=text,
            mode=mode,
            params=query_params,
            include=include,
            measure=measure,
            max_distance=max_distance,
        )

    async def fetch(
        self, ids: Sequence[UUID] | Sequence[str], *, include: Sequence[str] = FIELDS
    ) -> list[CollectionResult]:
        """Return the records with these ids, in that order; an id without a record has none."""
        return await self._search.fetch(ids, include)

    async def count(
        self,
        filter: Filter | None = None,  # noqa: A002 - as in search
        predicates: Predicates | None = None,
        uuid_time_filter: UUIDTimeRange | None = None,
    ) -> int:
        """Return the number of records that match; of all without arguments."""
        return await self._search.count(Wanted(filter, predicates, uuid_time_filter))

    async def stream(
        self,
        filter: Filter | None = None,  # noqa: A002 - as in search
        predicates: Predicates | None = None,
        uuid_time_filter: UUIDTimeRange | None = None,
        *,
        include: Sequence[str] = FIELDS,
        page: int = 1000,
    ) -> AsyncIterator[CollectionResult]:
        """Iterate over all records that match, in the order of their ids, a page at a time.

        No transaction stays open: what changes meanwhile may or may not be seen.
        """
        wanted = Wanted(filter, predicates, uuid_time_filter)
        async for hit in self._search.stream(wanted, include, page):
            yield hit

    async def centroid(
        self,
        filter: Filter | None = None,  # noqa: A002 - as in search
        predicates: Predicates | None = None,
        uuid_time_filter: UUIDTimeRange | None = None,
    ) -> NDArray[Any] | None:
        """Return the average of the embeddings that match, or None if none does."""
        return await self._search.centroid(Wanted(filter, predicates, uuid_time_filter))

    async def create_embedding_index(
        self,
        index: BaseIndex | None = None,
        *,
        strict: bool = False,
        progress: Callable[[IndexProgress], object] | None = None,
    ) -> None:
        """Build an index over the embeddings; one that is there is replaced once it is ready.

        index: HNSWIndex, IvfflatIndex or DiskAnnIndex; None chooses DiskAnnIndex where
        pgvectorscale is installed and the distance is cosine, HNSWIndex elsewhere. Writers may
        go on meanwhile, except on a hypertable. strict: raise ExtensionMissing instead of
        building HNSW in place of DiskAnn. progress: called twice a second while it is built.
        """
        await self._indexes.create(index, strict=strict, progress=progress)

    async def index_progress(self) -> IndexProgress | None:
        """Return how far the build of an index on this table is; None while there is none."""
        return await self._indexes.progress()

    async def drop_embedding_index(self) -> None:
        """Drop the index over the embeddings; harmless if there is none."""
        await self._indexes.drop()

    async def create_text_index(
        self, *, progress: Callable[[IndexProgress], object] | None = None
    ) -> None:
        """Build the index for searches by words (mode `text` and `hybrid`)."""
        await self._indexes.create_text(progress)

    async def drop_text_index(self) -> None:
        """Drop the index for searches by words; harmless if there is none."""
        await self._indexes.drop("text")

    async def list_collections(self) -> list[CollectionInfo]:
        """Return the collections in this schema, or without one in the whole database."""
        return await self._tables.list_all()
