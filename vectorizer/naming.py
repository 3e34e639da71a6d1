"""The name a vectorizer has unless one is given."""

from __future__ import annotations

__all__ = ["default_name"]


def default_name(schema_name: str, table_name: str) -> str:
    """Return the table's name, with its schema in front unless that is `public`."""
    return table_name if schema_name == "public" else f"{schema_name}_{table_name}"
