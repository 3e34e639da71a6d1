"""Keys of source rows as users give them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from vectorizer.errors import ConfigurationError

__all__ = ["named_keys"]


def named_keys(keys: Iterable[Any], columns: Sequence[str]) -> list[dict[str, Any]]:
    """Return keys as mappings by column name.

    A key is a mapping, a tuple or list of as many values as there are columns, or, of a single
    column, its value. Raises ConfigurationError for anything else.
    """
    return [_named(key, columns) for key in keys]


def _named(key: Any, columns: Sequence[str]) -> dict[str, Any]:
    if isinstance(key, Mapping):
        if key.keys() != set(columns):
            raise ConfigurationError(_expected(key, columns))
        return dict(key)
    values = key if isinstance(key, (tuple, list)) else (key,)
    if len(values) != len(columns):
        raise ConfigurationError(_expected(key, columns))
    return dict(zip(columns, values, strict=True))


def _expected(key: Any, columns: Sequence[str]) -> str:
    return f"key {key!r} does not fit the key columns {', '.join(columns)}; give a value for each"
