"""Filters on metadata: mappings to be contained, and the operators of vecs.

`{"kind": "cat", "year": {"$gte": 2020}}`: each key must match. The operators are vecs': $eq $ne
$lt $lte $gt $gte $in $contains for a key, $and $or $not for filters. A comparison looks at
values of the same type; a row without the key matches none but $not.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final, TypeAlias

from psycopg import sql

from vectorizer.conditions import Clock, Parameters, all_of, any_of
from vectorizer.errors import InvalidArgument
from vectorizer.predicates import json_text, value_condition
from vectorizer.statements import compose
from vectorizer.times import UUIDTimeRange, parsed_moment, range_condition
from vectorizer.types import JSON

__all__ = ["Filter", "filter_condition", "refuse_empty"]

Filter: TypeAlias = Mapping[str, JSON] | Sequence[Mapping[str, JSON]]

START_DATE: Final = "__start_date"
END_DATE: Final = "__end_date"
_COMPARISONS: Final = {"$ne": "<>", "$lt": "<", "$lte": "<=", "$gt": ">", "$gte": ">="}
_OF_A_KEY: Final = ("$eq", *_COMPARISONS, "$in", "$contains")
_OF_FILTERS: Final = ("$and", "$or", "$not")
_LIKE_AN_OPERATOR: Final = re.compile(r"\$[A-Za-z]+")


def filter_condition(
    wanted: Filter, clock: Clock, parameters: Parameters, *, infer_times: bool = True
) -> sql.Composable:
    """Return a filter as a condition in SQL: a mapping, or mappings of which any may match.

    infer_times: the keys `__start_date` and `__end_date` mean the time in the id. Raises
    InvalidArgument for what is no filter.
    """
    alternatives: Any = [wanted] if isinstance(wanted, Mapping) else wanted
    if isinstance(alternatives, str) or not isinstance(alternatives, Sequence):
        raise _not_a_filter(wanted)
    if not all(isinstance(alternative, Mapping) for alternative in alternatives):
        raise _not_a_filter(wanted)
    split = [_Split.of(alternative, infer_times=infer_times) for alternative in alternatives]
    if len(split) > 1 and all(part.is_plain for part in split):
        # One scan of the index for all of them.
        texts = [json_text(part.contained) for part in split]
        return compose("metadata @> any({}::text[]::jsonb[])", parameters.add(texts))
    return any_of([part.condition(clock, parameters) for part in split])


def refuse_empty(wanted: Filter, purpose: str) -> None:
    """Raise InvalidArgument for a filter that says nothing, and so would match everything."""
    alternatives = [wanted] if isinstance(wanted, Mapping) else wanted
    if not alternatives or not all(alternatives):
        raise InvalidArgument(
            f"{purpose} needs at least one key and value; an empty filter would match everything"
        )


class _Split:
    """One mapping of a filter: what the metadata has to contain, and everything else."""

    def __init__(self) -> None:
        self.contained: dict[str, JSON] = {}
        self.operators: list[tuple[str, str, JSON]] = []
        self.filters: list[tuple[str, JSON]] = []
        self.times: UUIDTimeRange | None = None
        self.infer_times = True

    @classmethod
    def of(cls, wanted: Mapping[str, JSON], *, infer_times: bool) -> _Split:
        split = cls()
        split.infer_times = infer_times
        times = {START_DATE, END_DATE} & set(wanted) if infer_times else set()
        for key, value in wanted.items():
            if key not in times:
                split._take(key, value)
        if times:
            split._take_times(wanted.get(START_DATE), wanted.get(END_DATE))
        return split

    def _take(self, key: Any, value: JSON) -> None:
        if not isinstance(key, str):
            raise InvalidArgument(f"a key of a filter is a text, got {key!r}")
        if key in _OF_FILTERS:
            self.filters.append((key, value))
        elif _LIKE_AN_OPERATOR.fullmatch(key):
            raise _unknown(key)
        elif isinstance(value, Mapping) and any(_is_operator(name) for name in value):
            self.operators += [(key, name, operand) for name, operand in value.items()]
        else:
            self.contained[key] = value

    def _take_times(self, start: Any, end: Any) -> None:
        bounds = parsed_moment(start), parsed_moment(end)
        if bounds != (None, None):
            self.times = UUIDTimeRange(*bounds)

    @property
    def is_plain(self) -> bool:
        return not (self.operators or self.filters or self.times)

    def condition(self, clock: Clock, parameters: Parameters) -> sql.Composable:
        conditions: list[sql.Composable] = []
        if self.contained or self.is_plain:
            text = json_text(self.contained)
            conditions.append(compose("metadata @> {}::jsonb", parameters.add(text)))
        conditions += [_compared(*operator, parameters) for operator in self.operators]
        conditions += [
            _combined(*each, clock, parameters, infer_times=self.infer_times)
            for each in self.filters
        ]
        if self.times is not None:
            conditions.append(range_condition(self.times, clock, parameters))
        return all_of(conditions)


def _is_operator(name: Any) -> bool:
    return isinstance(name, str) and bool(_LIKE_AN_OPERATOR.fullmatch(name))


def _combined(
    operator: str, operand: JSON, clock: Clock, parameters: Parameters, *, infer_times: bool
) -> sql.Composable:
    parts = [operand] if operator == "$not" else operand
    if isinstance(parts, (str, Mapping)) or not isinstance(parts, Sequence) or not parts:
        raise InvalidArgument(f"{operator} needs a list of filters, got {operand!r}")
    conditions: list[sql.Composable] = []
    for part in parts:
        if not isinstance(part, Mapping):
            raise _not_a_filter(part)
        refuse_empty(part, operator)
        conditions.append(filter_condition(part, clock, parameters, infer_times=infer_times))
    if operator == "$not":
        return compose("(({}) is not true)", conditions[0])
    return any_of(conditions) if operator == "$or" else all_of(conditions)


def _compared(key: str, operator: str, operand: JSON, parameters: Parameters) -> sql.Composable:
    if operator == "$eq":
        return _equal(key, operand, parameters)
    if operator == "$in":
        if isinstance(operand, (str, Mapping)) or not isinstance(operand, Sequence):
            raise InvalidArgument(f"$in needs a list of values, got {operand!r}")
        return any_of([_equal(key, value, parameters) for value in operand])
    if operator == "$contains":
        return _contained(key, operand, parameters)
    if operator not in _COMPARISONS:
        raise _unknown(operator)
    if operator == "$ne":
        return _json_compared(key, "<>", operand, parameters)
    return value_condition(key, _COMPARISONS[operator], operand, parameters, texts=False)


def _equal(key: str, value: JSON, parameters: Parameters) -> sql.Composable:
    exact = _json_compared(key, "=", value, parameters)
    if isinstance(value, (Mapping, list, tuple)):
        return exact
    # Containment first, for the index; an array contains its members, so it alone will not do.
    contains = compose("metadata @> {}::jsonb", parameters.add(json_text({key: value})))
    return all_of([contains, exact])


def _json_compared(key: str, operator: str, value: JSON, parameters: Parameters) -> sql.Composable:
    return compose(
        "(metadata -> {key}::text) {operator} {value}::jsonb",
        key=parameters.add(key),
        operator=sql.SQL(operator),
        value=parameters.add(json_text(value)),
    )


def _contained(key: str, value: JSON, parameters: Parameters) -> sql.Composable:
    if isinstance(value, (Mapping, list, tuple)):
        raise InvalidArgument(f"$contains needs a single value, got {value!r}")
    return compose("metadata @> {}::jsonb", parameters.add(json_text({key: [value]})))


def _unknown(operator: str) -> InvalidArgument:
    known = " ".join((*_OF_A_KEY, *_OF_FILTERS))
    return InvalidArgument(f"unknown operator {operator} in a filter; choose one of {known}")


def _not_a_filter(wanted: Any) -> InvalidArgument:
    return InvalidArgument(
        f"filter must be a mapping, or a list of which any may match; got {wanted!r}"
    )
