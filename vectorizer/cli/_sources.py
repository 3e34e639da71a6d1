"""A look at a source table before anything is installed."""

from __future__ import annotations

from psycopg import sql
from psycopg.rows import class_row

from vectorizer._sync.database import Database
from vectorizer.errors import SourceError
from vectorizer.statements import compose_query
from vectorizer.suggestion import Column

__all__ = ["columns_of"]


def columns_of(url: str, table: str) -> list[Column]:
    """Return the columns of a table; raise SourceError if there is none of that name."""
    schema, _, name = table.rpartition(".")
    schema = schema or "public"
    with Database(url) as database, database.transaction() as connection:
        found = connection.execute(
            compose_query("find_relation"), {"schema_name": schema, "name": name}
        )
        (source,) = found.fetchone() or (None,)
        if source is None:
            raise SourceError(f"table {schema}.{name} does not exist in this database")
        statement = compose_query("describe_columns", source=sql.Identifier(schema, name))
        columns = connection.cursor(row_factory=class_row(Column))
        return columns.execute(statement, {"source": source}).fetchall()
