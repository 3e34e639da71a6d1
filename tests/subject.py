"""A source table with its vectorizer, and a look at the destination that trusts neither."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Any

import numpy as np
import psycopg
from psycopg import sql

from vectorizer import Vectorizer
from vectorizer.testing import FakeEmbedder

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from typing_extensions import Self

    from vectorizer import Counts

__all__ = ["Attach", "Subject"]

# All columns of a destination that are not a part of the source's key.
_OURS = {"id", "time", "chunk", "content_hash", "metadata", "contents", "embedding"}


class Subject:
    """A table whose column `body` is embedded, one short chunk a row.

    `visible` tells which rows are to have embeddings (blank texts never have), `text` what is
    embedded of a row: SQL over `s`. `db` writes as the application would, in autocommit.
    """

    def __init__(
        self,
        url: str,
        table: str = "post",
        *,
        schema: str = "public",
        body: str = "body",
        id: Sequence[str] = ("id",),  # noqa: A002 - as the column is called
        visible: str = "true",
        text: str | None = None,
        **options: Any,
    ) -> None:
        self.url = url
        self.table, self.schema, self.id = table, schema, tuple(id)
        self.visible = sql.SQL(visible)
        self.text = sql.SQL(text) if text else sql.SQL("s.{}").format(sql.Identifier(body))
        self.db = self.session()
        self.embedder = FakeEmbedder()
        self.vectorizer = Vectorizer(
            url, table, schema_name=schema, embedder=self.embedder, chunk_column=body, **options
        )

    def session(self) -> psycopg.Connection:
        """Open a connection that finds the table without its schema."""
        connection = psycopg.connect(self.url, autocommit=True)
        connection.execute(
            sql.SQL("set search_path = {}, public").format(sql.Identifier(self.schema))
        )
        return connection

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.vectorizer.close()
        self.db.close()

    def sql(self, text: str, *values: Any) -> list[tuple[Any, ...]]:
        """Run one statement; return its rows, if it has any."""
        cursor = self.db.execute(text, values or None)
        return cursor.fetchall() if cursor.description else []

    def value(self, text: str, *values: Any) -> Any:
        """Return the one value of a query."""
        ((value,),) = self.sql(text, *values)
        return value

    def script(self, text: str) -> None:
        """Run statements, each in a transaction of its own unless it says otherwise."""
        for statement in text.split(";"):
            if statement.strip():
                self.db.execute(statement)

    @property
    def log(self) -> sql.Identifier:
        """Name of the change log."""
        return sql.Identifier("vectorizer", self._registered("log_table"))

    @property
    def ledger(self) -> sql.Identifier:
        """Name of the table that holds what was made of each row."""
        return sql.Identifier("vectorizer", self._registered("row_table"))

    @property
    def storage(self) -> sql.Identifier:
        """Name of the table that holds the embeddings."""
        return sql.Identifier(
            *self.sql(
                "select n.nspname, c.relname from vectorizer.vectorizer v "
                "join pg_class c on c.oid = v.storage join pg_namespace n on n.oid = relnamespace "
                "where v.name = %s and v.serving",
                self.vectorizer.name,
            )[0]
        )

    def _registered(self, column: str) -> str:
        return str(
            self.value(
                f"select {column} from vectorizer.vectorizer where name = %s and serving",
                self.vectorizer.name,
            )
        )

    def logged(self) -> int:
        """Return how many entries the change log holds."""
        (count,) = self.db.execute(sql.SQL("select count(*) from {}").format(self.log)).fetchone()  # type: ignore[misc]
        return int(count)

    def embedded(self) -> dict[Any, str]:
        """Return the contents of the destination by key; a tuple if it has several columns."""
        rows = self.db.execute(
            sql.SQL("select {}, contents from {}").format(self._stored_keys(), self.storage)
        ).fetchall()
        found = {row[0] if len(row) == 2 else row[:-1]: row[-1] for row in rows}
        assert len(found) == len(rows), "a row has several chunks"
        return found

    def texts(self) -> list[str]:
        """Return the contents of the destination, sorted."""
        rows = self.db.execute(sql.SQL("select contents from {}").format(self.storage)).fetchall()
        return sorted(text for (text,) in rows)

    def settle(self) -> Counts:
        """Drain the queue, then find source and destination in step; return what was done."""
        counts = self.vectorizer.run()
        report = self.vectorizer.verify()
        assert report.ok, report
        assert (report.pending, report.dead) == (0, 0)
        self.agree()
        return counts

    def agree(self) -> None:
        """Compare source and destination by a query, and each vector with its text."""
        source = sql.SQL(
            "select {id}, ({text})::text from {table} s"
            " where ({visible}) and trim({text}::text) > ''"
        ).format(
            id=_names(self.id),
            text=self.text,
            table=sql.Identifier(self.schema, self.table),
            visible=self.visible,
        )
        stored = sql.SQL("select {}, contents from {}").format(self._stored_keys(), self.storage)
        for one, other in ((source, stored), (stored, source)):
            missing = self.db.execute(sql.SQL("({}) except all ({})").format(one, other)).fetchall()
            assert missing == []
        self._sound()

    def _sound(self) -> None:
        rows = self.db.execute(
            sql.SQL(
                "select id, (extract(epoch from time) * 1000000)::bigint, contents,"
                " content_hash = sha256(convert_to(contents, 'UTF8')), embedding::real[] from {}"
            ).format(self.storage)
        ).fetchall()
        assert all(same_hash for _, _, _, same_hash, _ in rows)
        assert all(_microseconds(identifier) == time for identifier, time, *_ in rows)
        if rows:
            expected = FakeEmbedder().embed([contents for _, _, contents, _, _ in rows])
            found = np.array([vector for *_, vector in rows])
            assert np.allclose(found, expected, atol=1e-6)

    def _stored_keys(self) -> sql.Composed:
        names = self.sql(
            "select attname from pg_attribute where attrelid = %s::regclass and attnum > 0 "
            "and not attisdropped order by attnum",
            self.storage.as_string(self.db),
        )
        return _names([name for (name,) in names if name not in _OURS])


def _names(columns: Sequence[str]) -> sql.Composed:
    return sql.SQL(", ").join(map(sql.Identifier, columns))


def _microseconds(identifier: uuid.UUID) -> int:
    """Return the time in a UUID of version 1, in microseconds since 1970."""
    return (identifier.time - 0x01B21DD213814000) // 10


if TYPE_CHECKING:
    Attach = Callable[..., Subject]
