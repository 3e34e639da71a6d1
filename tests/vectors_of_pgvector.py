"""pgvector's own types, wherever its version keeps them."""

from __future__ import annotations

try:
    from pgvector import Bit, HalfVector, Vector
except ImportError:  # before 0.4
    from pgvector.psycopg import Bit, HalfVector, Vector  # type: ignore[attr-defined,no-redef]

__all__ = ["Bit", "HalfVector", "Vector"]
