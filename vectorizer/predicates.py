"""Conditions on the metadata of a collection, with timescale_vector's `Predicates`.

Metadata may hold anything. A comparison with a number looks at numbers and at texts that are
written as one, a comparison with a time at texts in ISO 8601; any other row does not match.
"""

from __future__ import annotations

import json
import math
from datetime import datetime
from typing import Any, ClassVar, Final, TypeAlias, Union

from psycopg import sql

from vectorizer.conditions import Clock, Parameters, all_of, any_of, time_condition
from vectorizer.errors import InvalidArgument
from vectorizer.statements import compose

__all__ = ["Predicates", "json_text", "predicates_condition", "value_condition"]

UUID_TIMESTAMP: Final = "__uuid_timestamp"

# What may be cast without an error: a number of at most 200 characters and three digits of
# exponent, and a day that is in the calendar, with leap years.
_NUMBER: Final = (
    r"^\s*[-+]?([0-9]{1,200}(\.[0-9]{0,200})?|\.[0-9]{1,200})([eE][-+]?[0-9]{1,3})?\s*$"
)
_YEAR: Final = r"(?!0000)[0-9]{4}"
_DAY: Final = (
    rf"({_YEAR}-((0[13578]|1[02])-(0[1-9]|[12][0-9]|3[01])|(0[469]|11)-(0[1-9]|[12][0-9]|30)"
    r"|02-(0[1-9]|1[0-9]|2[0-8]))"
    r"|([0-9][0-9](0[48]|[2468][048]|[13579][26])|(0[48]|[2468][048]|[13579][26])00)-02-29)"
)
_TIME: Final = (
    rf"^\s*{_DAY}([T ]([01][0-9]|2[0-3]):[0-5][0-9](:[0-5][0-9](\.[0-9]{{1,9}})?)?"
    r"\s*(Z|[-+](0[0-9]|1[0-5])(:?[0-5][0-9])?)?)?\s*$"
)

Value: TypeAlias = Union[str, int, float, bool, datetime, list[Any], tuple[Any, ...]]  # noqa: UP007
Clause: TypeAlias = Union["Predicates", tuple[str, Value], tuple[str, str, Value]]


class Predicates:
    """Conditions on metadata: `Predicates("year", ">", 2020) & ~Predicates("kind", "==", "cat")`.

    clauses: a key, an operator and a value; or any number of Predicates and of tuples (key,
    value) or (key, operator, value), combined by `operator`: AND, OR or NOT (none of them).
    Operators: = == != < <= > >= @>; values: str, int, float, bool, datetime, list, tuple.
    The key `__uuid_timestamp` stands for the time in the id.
    """

    logical_operators: ClassVar[dict[str, str]] = {"AND": "AND", "OR": "OR", "NOT": "NOT"}
    operators_mapping: ClassVar[dict[str, str]] = {
        "=": "=",
        "==": "=",
        ">=": ">=",
        ">": ">",
        "<=": "<=",
        "<": "<",
        "!=": "<>",
        "@>": "@>",
    }
    PredicateValue = (str, int, float, datetime, list, tuple)

    def __init__(self, *clauses: Clause | Value, operator: str = "AND") -> None:
        if operator not in self.logical_operators:
            raise InvalidArgument(f"invalid operator: {operator!r}; choose AND, OR or NOT")
        self.operator = operator
        self.clauses: list[Clause] = []
        self.add_clause(*clauses)

    def add_clause(self, *clause: Clause | Value) -> None:
        """Add clauses, in any form the constructor takes."""
        if not clause:
            raise InvalidArgument("Predicates needs a clause: a key, an operator and a value")
        if isinstance(clause[0], str):
            self.clauses.append(_triple(clause))
        else:
            self.clauses.extend(_checked_clause(each) for each in clause)

    def __and__(self, other: Predicates) -> Predicates:
        return Predicates(self, other, operator="AND")

    def __or__(self, other: Predicates) -> Predicates:
        return Predicates(self, other, operator="OR")

    def __invert__(self) -> Predicates:
        return Predicates(self, operator="NOT")

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Predicates):
            return False
        return self.operator == other.operator and self.clauses == other.clauses

    __hash__ = None  # type: ignore[assignment] # clauses can be added

    def __repr__(self) -> str:
        return f"{self.operator}({', '.join(repr(clause) for clause in self.clauses)})"

    def build_query(self, params: list[Any]) -> tuple[str, list[Any]]:
        """Return the condition in SQL, for ids in a hypertable, and the values with its own."""
        parameters = Parameters(params)
        condition = predicates_condition(self, Clock.FUNCTION, parameters)
        return condition.as_string(None), parameters.values


def _triple(clause: tuple[Any, ...]) -> Clause:
    match clause:
        case (str() as key, str() as operator, value) if isinstance(
            value, Predicates.PredicateValue
        ):
            return (key, operator, value)
    raise InvalidArgument(
        f"invalid clause {clause!r}: expected a key, an operator and a value of type str, int, "
        f"float, bool, datetime, list or tuple"
    )


def _checked_clause(clause: Any) -> Clause:
    match clause:
        case Predicates():
            return clause
        case (str(), _) | (str(), str(), _):
            return clause  # type: ignore[no-any-return]
    raise InvalidArgument(
        f"invalid clause {clause!r}: expected Predicates, (key, value) or (key, operator, value)"
    )


def predicates_condition(
    predicates: Predicates, clock: Clock, parameters: Parameters
) -> sql.Composable:
    """Return predicates as a condition in SQL.

    Raises InvalidArgument for an unknown operator, or a value it cannot compare with.
    """
    if not isinstance(predicates, Predicates):
        raise InvalidArgument(f"predicates must be Predicates, got {predicates!r}")
    try:
        return _condition(predicates, clock, parameters)
    except RecursionError as error:
        raise InvalidArgument("the predicates are nested too deeply") from error


def _condition(predicates: Predicates, clock: Clock, parameters: Parameters) -> sql.Composable:
    conditions = [
        _condition(clause, clock, parameters)
        if isinstance(clause, Predicates)
        else _clause_condition(clause, clock, parameters)
        for clause in predicates.clauses
    ]
    match predicates.operator:
        case "AND":
            return all_of(conditions)
        case "OR":
            return any_of(conditions)
    # What is unknown, for lack of the key, is not true: NOT lets it pass.
    return compose("(({}) is not true)", any_of(conditions))


def _clause_condition(clause: Any, clock: Clock, parameters: Parameters) -> sql.Composable:
    key, written, value = clause if len(clause) == 3 else (clause[0], "=", clause[1])  # noqa: PLR2004
    operator = Predicates.operators_mapping.get(written)
    if operator is None:
        known = " ".join(Predicates.operators_mapping)
        raise InvalidArgument(f"invalid operator: {written!r}; choose one of {known}")
    if key != UUID_TIMESTAMP:
        return value_condition(key, operator, value, parameters)
    if operator == "@>" or not isinstance(value, (datetime, str)):
        raise InvalidArgument(f"{UUID_TIMESTAMP} is compared with a datetime or a text in ISO 8601")
    return time_condition(clock, operator, value, parameters)


def value_condition(
    key: str, operator: str, value: Any, parameters: Parameters, *, texts: bool = True
) -> sql.Composable:
    """Return the condition that compares one key of the metadata with a value.

    operator: one of = <> < <= > >= @>. texts: a text that is written as a number or a bool is
    one, and any scalar is a text. Raises InvalidArgument for values that cannot be compared so.
    """
    if operator == "@>":
        return _contains(key, value, parameters)
    if isinstance(value, (list, tuple, dict)):
        return _same_json(key, operator, value, parameters)
    names = {"key": parameters.add(_clean(key)), "operator": sql.SQL(operator)}
    match value:
        case bool():
            form = _AS_BOOL if texts else _JSON_BOOL
            return compose(form, **names, value=parameters.add(value))
        case int() | float():
            form = _AS_NUMBER if texts else _JSON_NUMBER
            return compose(form, **names, value=parameters.add(_decimal(value)))
        case datetime():
            names["form"] = sql.Literal(_TIME)
            return compose(_AS_TIME, **names, value=parameters.add(value.astimezone()))
        case str():
            form = _AS_TEXT if texts else _JSON_TEXT
            return compose(form, **names, value=parameters.add(_clean(value)))
    raise InvalidArgument(
        f"cannot compare {key!r} with {value!r}: expected str, int, float, bool, datetime or list"
    )


_AS_TEXT: Final = "(metadata ->> {key}::text) {operator} {value}::text"
_JSON_TEXT: Final = (
    "case jsonb_typeof(metadata -> {key}::text) when 'string' then"
    " (metadata ->> {key}::text) {operator} {value}::text end"
)
# CASE evaluates the cast only for rows that pass its condition.
_AS_NUMBER: Final = (
    "case when jsonb_typeof(metadata -> {key}::text) = 'number'"
    f" or (metadata ->> {{key}}::text) ~ '{_NUMBER.replace('{', '{{').replace('}', '}}')}'"
    " then (metadata ->> {key}::text)::numeric {operator} {value}::text::numeric end"
)
_JSON_NUMBER: Final = (
    "case jsonb_typeof(metadata -> {key}::text) when 'number' then"
    " (metadata ->> {key}::text)::numeric {operator} {value}::text::numeric end"
)
_AS_BOOL: Final = (
    "case when (metadata ->> {key}::text) in ('true', 'false')"
    " then (metadata ->> {key}::text)::boolean {operator} {value}::boolean end"
)
_JSON_BOOL: Final = (
    "case jsonb_typeof(metadata -> {key}::text) when 'boolean' then"
    " (metadata ->> {key}::text)::boolean {operator} {value}::boolean end"
)
_AS_TIME: Final = (
    "case when (metadata ->> {key}::text) ~ {form}"
    " then (metadata ->> {key}::text)::timestamptz {operator} {value}::timestamptz end"
)


def _decimal(value: float) -> str:
    if not math.isfinite(value):
        raise InvalidArgument(f"cannot compare with {value}: expected a finite number")
    return str(int(value)) if isinstance(value, int) else repr(float(value))


def _clean(text: str) -> str:
    if "\0" in text:
        raise InvalidArgument("a text with a zero byte cannot be compared: PostgreSQL stores none")
    return text


def _contains(key: str, value: Any, parameters: Parameters) -> sql.Composable:
    if isinstance(value, (list, tuple)):
        if not value:
            raise InvalidArgument("@> needs a list that is not empty")
        # As a whole, for the index on metadata.
        return compose("metadata @> {}::jsonb", parameters.add(json_text({key: value})))
    names = {"key": parameters.add(_clean(key)), "value": parameters.add(json_text(value))}
    return compose("(metadata -> {key}::text) @> {value}::jsonb", **names)


def _same_json(key: str, operator: str, value: Any, parameters: Parameters) -> sql.Composable:
    if operator not in ("=", "<>"):
        raise InvalidArgument(f"{operator} does not compare lists; choose = != or @>")
    return compose(
        "(metadata -> {key}::text) {operator} {value}::jsonb",
        key=parameters.add(_clean(key)),
        operator=sql.SQL(operator),
        value=parameters.add(json_text(value)),
    )


def json_text(value: Any) -> str:
    """Return a value as JSON; raise InvalidArgument for one that has no such form."""
    try:
        text = json.dumps(value, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidArgument(f"{value!r} cannot be written as JSON: {error}") from error
    if "\\u0000" in text:
        raise InvalidArgument("a text with a zero byte cannot be compared: PostgreSQL stores none")
    return text
