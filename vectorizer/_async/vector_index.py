"""The index over the vectors of a generation, built when its backfill is through."""

from __future__ import annotations

import logging

from vectorizer._async.collection_indexes import AsyncCollectionIndexes
from vectorizer._async.collection_tables import AsyncCollectionTables
from vectorizer._async.database import AsyncDatabase
from vectorizer.collection_options import Options
from vectorizer.definition import Installation
from vectorizer.indexes import HNSWIndex, IvfflatIndex
from vectorizer.statements import Statements

__all__ = ["ensure_index"]

log = logging.getLogger("vectorizer")

_METHODS = {"hnsw": HNSWIndex, "ivfflat": IvfflatIndex}


async def ensure_index(database: AsyncDatabase, installation: Installation) -> bool:
    """Build the index that the definition asks for, if it is time; return whether it was built.

    Writers and searches go on meanwhile. One of another method is replaced. Raises
    InvalidArgument for vectors of more dimensions than an index takes.
    """
    definition, storage = installation.definition, installation.storage
    if definition.index is None or storage is None:
        return False
    async with database.transaction() as connection:
        found = await connection.execute(
            Statements(database.schema, installation)["index_wanted"],
            {"vectorizer": installation.id},
        )
        if not (await found.fetchone() or (False,))[0]:
            return False
    log.info("%s: building its index over %s", installation, storage)
    options = Options.checked(
        storage.name,
        definition.dimensions or 0,
        schema_name=storage.schema,
        vector_type=definition.vectors,
    )
    indexes = AsyncCollectionIndexes(AsyncCollectionTables(database, options))
    await indexes.create(_METHODS[definition.index](), strict=True, progress=None)
    return True
