"""How far two vectors are apart: the names of measures, pgvector's operators, and what fits what.

Operators and operator classes are those of pgvector's reference: `<->` l2, `<#>` negative inner
product, `<=>` cosine, `<+>` l1, `<~>` hamming and `<%>` jaccard (both for bits).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal, TypeAlias, get_args

from vectorizer.errors import InvalidArgument

__all__ = ["ColumnType", "Measure", "checked_column_type", "checked_measure"]

ColumnType: TypeAlias = Literal["vector", "halfvec", "bit"]
"""Type of the column `embedding`: float32, float16, or one bit a component."""


@dataclass(frozen=True, slots=True)
class Measure:
    """A distance: its operator in SQL, and how the operator classes of its indexes are called."""

    name: str
    operator: str
    operator_class: str
    for_bits: bool = False
    in_ivfflat: bool = True

    def class_for(self, column_type: ColumnType) -> str:
        """Return the operator class of an index over a column of that type."""
        return f"{column_type}_{self.operator_class}_ops"


_MEASURES: Final = (
    Measure("cosine", "<=>", "cosine"),
    Measure("euclidean", "<->", "l2"),
    Measure("inner_product", "<#>", "ip"),
    Measure("l1", "<+>", "l1", in_ivfflat=False),
    Measure("hamming", "<~>", "hamming", for_bits=True),
    Measure("jaccard", "<%>", "jaccard", for_bits=True, in_ivfflat=False),
)
_BY_NAME: Final = {
    **{measure.name: measure for measure in _MEASURES},
    **{measure.operator: measure for measure in _MEASURES},
    "l2": _MEASURES[1],
    "ip": _MEASURES[2],
}


def checked_column_type(column_type: str) -> ColumnType:
    """Return the type of the column `embedding`; raise InvalidArgument for another."""
    for known in get_args(ColumnType):
        if column_type == known:
            return known  # type: ignore[no-any-return]
    raise InvalidArgument(f"vector_type {column_type!r} is unknown; choose vector, halfvec or bit")


def checked_measure(name: str, column_type: ColumnType) -> Measure:
    """Return the measure of a name or an operator.

    Raises InvalidArgument if there is none, or if the column cannot be measured so.
    """
    measure = _BY_NAME.get(name) if isinstance(name, str) else None
    fitting = [m for m in _MEASURES if m.for_bits == (column_type == "bit")]
    names = ", ".join(m.name for m in fitting)
    if measure is None:
        raise InvalidArgument(f"distance_type {name!r} is unknown; choose one of {names}")
    if measure not in fitting:
        raise InvalidArgument(
            f"distance_type {name!r} does not measure a {column_type}; choose one of {names}"
        )
    return measure
