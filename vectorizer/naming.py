"""Names: of a vectorizer that is given none, and of objects derived from another's name."""

from __future__ import annotations

from hashlib import sha256

__all__ = ["default_name", "fitted"]

_MAX_BYTES = 63


def default_name(schema_name: str, table_name: str) -> str:
    """Return the table's name, with its schema in front unless that is `public`."""
    return table_name if schema_name == "public" else f"{schema_name}_{table_name}"


def fitted(base: str, suffix: str) -> str:
    """Return base and suffix as a name PostgreSQL keeps whole: at most 63 bytes.

    A longer base is cut and gets a hash of the whole, so that two never meet.
    """
    if len((base + suffix).encode()) <= _MAX_BYTES:
        return base + suffix
    tail = f"_{sha256(base.encode()).hexdigest()[:8]}{suffix}"
    return base.encode()[: _MAX_BYTES - len(tail.encode())].decode(errors="ignore") + tail
