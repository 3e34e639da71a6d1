"""Source rows as a callback gets them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

__all__ = ["Row"]


class Row(tuple[Any, ...]):
    """A row whose values are found by position and by name, like psycopg2's DictRow.

    Position 0 is `locked_id`: the key, a tuple if it has several columns. The source's own
    columns follow in their order. Of a deleted row everything but `locked_id` is None.
    """

    __slots__ = ()
    _index: Mapping[str, int]

    def __getitem__(self, at: Any) -> Any:
        """Return the value of a column by name or position, or several for a slice."""
        if isinstance(at, str):
            return tuple.__getitem__(self, self._index[at])
        return tuple.__getitem__(self, at)

    def get(self, name: str, default: Any = None) -> Any:
        """Return the value of a column, or `default` if there is no such column."""
        return self[name] if name in self._index else default

    def keys(self) -> list[str]:
        """Return the names of the columns, `locked_id` first."""
        return list(self._index)

    def values(self) -> list[Any]:
        """Return the values in the order of `keys`."""
        return list(self)

    def items(self) -> Iterator[tuple[str, Any]]:
        """Return pairs of name and value."""
        return zip(self._index, self, strict=True)

    def __repr__(self) -> str:
        return f"Row({', '.join(f'{name}={value!r}' for name, value in self.items())})"


def row_class(columns: Sequence[str]) -> type[Row]:
    """Return a class of rows with these columns after `locked_id`."""
    # A source column called locked_id is found by position only: the name is the key's.
    index = {name: n for n, name in reversed(list(enumerate(["locked_id", *columns])))}
    ordered = dict(sorted(index.items(), key=lambda item: item[1]))
    return type("Row", (Row,), {"_index": ordered, "__slots__": ()})
