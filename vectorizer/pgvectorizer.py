"""timescale_vector's pgvectorizer: changed rows go to a function of yours.

Code written for `timescale_vector.pgvectorizer` runs with only its import changed::

    from vectorizer import client, pgvectorizer
"""

from __future__ import annotations

import re
from functools import partial

import psycopg
from psycopg.rows import TupleRow
from typing_extensions import Self

from vectorizer._sync.callback import CallbackWorker, EmbedAndWrite, SourceChanged
from vectorizer._sync.database import Database
from vectorizer._sync.queue import Queue
from vectorizer._sync.schema import Schema
from vectorizer._sync.verify import Verifier
from vectorizer.definition import Definition
from vectorizer.errors import ConfigurationError, SourceError, VectorizerPaused
from vectorizer.verification import Verification

__all__ = ["Vectorize"]


class Vectorize:
    """Keeps embeddings that you write yourself in step with a table.

    service_url: libpq connection string; table_name, schema_name: the source table;
    id_column_name: a column of the table's unique index, by default of its primary key.
    work_queue_table_name: names this vectorizer; give another one for a second vectorizer on
    the same table. trigger_name and trigger_name_fn are accepted and kept for their old users:
    triggers and their functions are named after the vectorizer.

    Names quoted for use in SQL are in `table_name`, `schema_name`, `id_column_name`,
    `work_queue_table_name`, `trigger_name` and `trigger_name_fn`; as given, the table and schema
    are in `table_name_unquoted` and `schema_name_unquoted`.
    """

    def __init__(
        self,
        service_url: str,
        table_name: str,
        schema_name: str = "public",
        id_column_name: str = "id",
        work_queue_table_name: str | None = None,
        trigger_name: str = "track_changes_for_embedding",
        trigger_name_fn: str | None = None,
    ) -> None:
        self.service_url = service_url
        self.table_name_unquoted = table_name
        self.schema_name_unquoted = schema_name
        self.table_name = _quoted(table_name)
        self.schema_name = _quoted(schema_name)
        self.id_column_name = _quoted(id_column_name)
        self._name = work_queue_table_name or _identifier(
            table_name, "embedding_work_queue", schema_name
        )
        self.work_queue_table_name = _quoted(self._name)
        self.trigger_name = _quoted(trigger_name)
        self.trigger_name_fn = _quoted(
            trigger_name_fn or _identifier(table_name, "wq_for_embedding")
        )
        self._id_column = id_column_name
        self._database = Database(service_url)
        self._schema = Schema(self._database)
        self._worker: CallbackWorker | None = None

    def register(self) -> None:
        """Attach to the table, and queue every row that is in it. Idempotent.

        Raises SourceError if the table or its key is unsuitable.
        """
        if not self._schema.installed(self._name):
            self._schema.install(
                self._name, self.schema_name_unquoted, self.table_name_unquoted, self._definition()
            )

    def _definition(self) -> Definition:
        # "id" is what the old API calls the key when nobody says otherwise: the primary key counts.
        key = None if self._id_column == "id" else [self._id_column]
        return Definition.parse({"key": key})

    def process(
        self, embed_and_write_cb: EmbedAndWrite, batch_size: int = 10, autoregister: bool = True
    ) -> int:
        """Hand one batch to `embed_and_write_cb(rows, self)`; return its number of rows.

        0 means that nothing was claimable. Each row has `locked_id`, its key, and every column
        of the source; of a deleted row all columns but `locked_id` are None. The batch is ours
        alone while the callback runs; no transaction is open meanwhile. When the callback
        raises, the batch is tried again later and the exception is passed on.

        Renamed and new columns are followed. Where the table cannot be followed, the
        vectorizer is paused with the reason, and VectorizerPaused raised.
        """
        if batch_size < 1:
            raise ConfigurationError(f"batch_size must be 1 or more, got {batch_size}")
        ready = partial(self._ready, autoregister=autoregister)
        try:
            return ready().process(embed_and_write_cb, self, batch_size)
        except SourceChanged:
            self._worker = None
        try:
            return ready().process(embed_and_write_cb, self, batch_size)
        except (SourceChanged, SourceError) as error:
            self._worker = None
            self._schema.pause(self._name, str(error))
            raise VectorizerPaused(f"vectorizer {self._name} is paused now: {error}") from error

    def verify(
        self, *, repair: bool = False, embedded: str | None = None, rows: int = 10_000
    ) -> Verification:
        """Compare the table with what the callback was given; `report.ok` tells the result.

        embedded: a query that tells what is embedded, such as "select id from my_embeddings":
        its first columns are the key, in its order. Rows without an embedding are then found,
        and embeddings without a row; where the callback rightly writes nothing for a row, the
        query has to return that key, too. Without it `report.unknown` says what is not known.
        With `repair` exactly the defective keys are queued, for `process` to hand over again.
        """
        self._schema.check()
        verifier = Verifier(self._database, self._schema.find(self._name))
        return verifier.verify(repair=repair, rows=rows, embedded=embedded)

    @property
    def connection(self) -> psycopg.Connection[TupleRow]:
        """A psycopg connection whose transaction commits together with the ack of the batch.

        For use inside the callback: what is written through it is written exactly once, or not
        at all if the batch was lost to another worker. Take it when the embeddings are ready,
        because it opens a transaction, and do not commit. What the callback writes elsewhere
        may be written again, and cannot be held back.

        Raises ConfigurationError outside of a callback, LeaseLost if the batch is lost.
        """
        fence = self._worker.fence if self._worker is not None else None
        if fence is None:
            raise ConfigurationError("vectorizer.connection is there only while a callback runs")
        return fence.connection()

    def _ready(self, *, autoregister: bool) -> CallbackWorker:
        if self._worker is None:
            if autoregister:
                self.register()
            self._schema.check()
            installation = self._schema.find(self._name)
            queue = Queue(self._database, installation)
            self._worker = CallbackWorker(self._database, installation, queue)
        return self._worker

    def close(self) -> None:
        """Close the connections; they are opened again when needed."""
        self._database.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _quoted(identifier: str) -> str:
    # The quoting of SQL identifiers: double quotes around, inner ones doubled.
    return '"' + identifier.replace('"', '""') + '"'


def _identifier(base: str, suffix: str, schema_name: str = "public") -> str:
    if schema_name != "public":
        base = f"{schema_name}_{base}"
    return re.sub(r"[^a-zA-Z0-9_]", "_", f"{base}_{suffix}")
