"""The statements of one collection, as text with numbered placeholders and the values for them."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from psycopg import sql

from vectorizer.binary_values import uuid_array
from vectorizer.collection_options import Options, Shape
from vectorizer.conditions import Parameters, all_of, time_condition
from vectorizer.errors import InvalidArgument
from vectorizer.filters import Filter, filter_condition
from vectorizer.naming import fitted
from vectorizer.predicates import Predicates, predicates_condition
from vectorizer.queries import query
from vectorizer.statements import compose, compose_query, relation
from vectorizer.times import UUIDTimeRange, range_condition

__all__ = ["FIELDS", "CollectionStatements", "Statement", "Wanted"]

FIELDS: Final = ("id", "metadata", "contents", "embedding")
# Reciprocal rank fusion: score = sum of weight / (60 + rank); Cormack, Clarke and Büttcher,
# SIGIR 2009, found 60 and that little depends on it.
_SMOOTHING: Final = 60
_MOST_KNOWN: Final = 1000


class Statement(NamedTuple):
    """A statement with its values."""

    text: str
    values: list[Any]


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which records a call is about: all three must agree, None does not restrict."""

    filter: Filter | None = None
    predicates: Predicates | None = None
    times: UUIDTimeRange | None = None

    @property
    def restricts(self) -> bool:
        """Whether it may leave records out."""
        return (self.filter, self.predicates, self.times) != (None, None, None)


class CollectionStatements:
    """Composes statements for a collection of that shape."""

    def __init__(self, options: Options, shape: Shape) -> None:
        self.options = options
        self.shape = shape
        self.table = relation(shape.relation)
        self._vectors = sql.Identifier(shape.vectors)
        # Composing takes longer than a search in memory; an application has few kinds of them.
        self._searches: dict[tuple[Any, ...], str] = {}

    def condition(self, wanted: Wanted, parameters: Parameters) -> sql.Composable:
        """Return the condition for what is wanted."""
        clock = self.shape.clock
        conditions: list[sql.Composable] = []
        if wanted.filter is not None:
            infer = self.options.infer_filters
            conditions.append(filter_condition(wanted.filter, clock, parameters, infer_times=infer))
        if wanted.predicates is not None:
            conditions.append(predicates_condition(wanted.predicates, clock, parameters))
        if wanted.times is not None:
            if not isinstance(wanted.times, UUIDTimeRange):
                raise InvalidArgument(f"uuid_time_filter must be a UUIDTimeRange: {wanted.times!r}")
            conditions.append(range_condition(wanted.times, clock, parameters))
        return all_of(conditions)

    def search(
        self,
        vector: Any,
        limit: int,
        wanted: Wanted,
        *,
        include: Collection[str] = FIELDS,
        max_distance: float | None = None,
    ) -> Statement:
        """Return the search for the nearest to a vector; None for any that match."""
        parameters = Parameters()
        distance = self.distance(vector, parameters)
        condition = self.condition(wanted, parameters)
        known = (vector is None, condition.as_string(None), tuple(include), limit, max_distance)
        if max_distance is None and known in self._searches:
            return Statement(self._searches[known], parameters.values)
        nearest = compose_query(
            "search_collection",
            columns=self.columns(include),
            distance=distance,
            table=self.table,
            condition=condition,
            order=sql.SQL("" if vector is None else "order by distance"),
            limit=sql.Literal(limit),
        )
        if max_distance is None:
            if len(self._searches) >= _MOST_KNOWN:
                self._searches.clear()
            self._searches[known] = nearest.as_string(None)
            return Statement(self._searches[known], parameters.values)
        # Outside, so that an index does not look for more where none are near enough.
        most = compose("{}::float8", parameters.add(max_distance))
        return _statement(compose_query("search_within", nearest=nearest, most=most), parameters)

    def distance(self, vector: Any, parameters: Parameters) -> sql.Composable:
        """Return the distance of a record to a vector; without one, -1."""
        if vector is None:
            return sql.SQL("-1.0::float8")
        return compose(
            "embedding operator({vectors}.{operator}) {value}::{type}",
            vectors=self._vectors,
            operator=sql.SQL(self.options.measure.operator),
            value=parameters.add(vector),
            type=self._type(),
        )

    def _type(self) -> sql.Composable:
        if self.shape.column_type == "bit":
            return compose("bit({})", sql.Literal(self.options.dimensions))
        return compose("{}.{}", self._vectors, sql.Identifier(self.shape.column_type))

    def columns(self, include: Collection[str] = FIELDS) -> sql.Composable:
        """Return the fields of a record; those not included are null."""
        embedding = (
            sql.SQL("bit_send(embedding)")
            if self.shape.column_type == "bit"
            else compose(
                "{}.{}(embedding)", self._vectors, sql.SQL(f"{self.shape.column_type}_send")
            )
        )
        parts = {name: sql.Identifier(name) for name in FIELDS} | {"embedding": embedding}
        return sql.SQL(", ").join(
            compose(
                "{} as {}", part if name in include or name == "id" else sql.SQL("null"),
                sql.Identifier(name),
            )
            for name, part in parts.items()
        )  # fmt: skip

    def words(self) -> sql.Composable:
        """Return the words of a record, as the index for full-text search has them."""
        return compose(
            "to_tsvector({}::regconfig, coalesce(contents, ''))",
            sql.Literal(self.options.text_config),
        )

    def hybrid(
        self,
        vector: Any,
        text: str,
        limit: int,
        wanted: Wanted,
        *,
        include: Collection[str] = FIELDS,
        weights: tuple[float, float] = (1.0, 1.0),
    ) -> Statement:
        """Return the search that fuses the ranks by meaning and by words."""
        parameters = Parameters()
        distance = self.distance(vector, parameters)
        composed = compose_query(
            "search_hybrid",
            columns=self.columns(include),
            distance=distance,
            table=self.table,
            condition=self.condition(wanted, parameters),
            condition_again=self.condition(wanted, parameters),
            words=self.words(),
            query=self._text_query(text, parameters),
            candidates=sql.Literal(max(40, 2 * limit)),
            smoothing=sql.Literal(_SMOOTHING),
            weight_of_meaning=parameters.add(weights[0]),
            weight_of_words=parameters.add(weights[1]),
            limit=sql.Literal(limit),
        )
        return _statement(composed, parameters)

    def words_alone(
        self,
        text: str,
        limit: int,
        wanted: Wanted,
        *,
        vector: Any = None,
        include: Collection[str] = FIELDS,
    ) -> Statement:
        """Return the full-text search, the best first."""
        parameters = Parameters()
        composed = compose_query(
            "search_words",
            columns=self.columns(include),
            distance=self.distance(vector, parameters),
            table=self.table,
            condition=self.condition(wanted, parameters),
            words=self.words(),
            query=self._text_query(text, parameters),
            limit=sql.Literal(limit),
        )
        return _statement(composed, parameters)

    def _text_query(self, text: str, parameters: Parameters) -> sql.Composable:
        return compose(
            "websearch_to_tsquery({}::regconfig, {}::text)",
            sql.Literal(self.options.text_config),
            parameters.add(text),
        )

    def fetch(self, ids: Sequence[Any], include: Collection[str] = FIELDS) -> Statement:
        """Return the records with these ids."""
        parameters = Parameters()
        composed = compose_query(
            "fetch_records",
            columns=self.columns(include),
            table=self.table,
            ids=parameters.add(uuid_array(ids)),
            id_type=self._id_type(),
        )
        return _statement(composed, parameters)

    def page(self, last: Any, limit: int, wanted: Wanted, include: Collection[str]) -> Statement:
        """Return the next records in the order of their ids."""
        parameters = Parameters()
        condition = self.condition(wanted, parameters)
        if last is not None:
            after = compose("id > {}::{}", parameters.add(last), self._id_type())
            condition = all_of([condition, after])
        composed = compose_query(
            "page_collection",
            columns=self.columns(include),
            table=self.table,
            condition=condition,
            limit=sql.Literal(limit),
        )
        return _statement(composed, parameters)

    def of_matching(self, name: str, wanted: Wanted) -> Statement:
        """Return a statement about all that is wanted: count, centroid, delete."""
        parameters = Parameters()
        condition = self.condition(wanted, parameters)
        names = {"table": self.table, "condition": condition}
        if name == "centroid":
            names["vectors"] = self._vectors
        return _statement(compose_query(name, **names), parameters)

    def few(self, most: int) -> Statement:
        """Return the query that counts the records, up to so many."""
        composed = compose(
            "select count(*) from (select from {} limit {}) few", self.table, sql.Literal(most)
        )
        return _statement(composed, Parameters())

    def delete_ids(self, ids: Sequence[Any], span: tuple[Any, Any] | None = None) -> Statement:
        """Return the deletion by id; span: first and last time of them, to find the partitions."""
        parameters = Parameters()
        condition = compose("id = any({}::{}[])", parameters.add(uuid_array(ids)), self._id_type())
        if span is not None:
            first, last = span
            condition = all_of([
                condition,
                time_condition(self.shape.clock, ">=", first, parameters),
                time_condition(self.shape.clock, "<=", last, parameters),
            ])  # type: ignore[assignment] # fmt: skip
        return _statement(
            compose_query("delete_records", table=self.table, condition=condition), parameters
        )

    def lock_texts(self, keys: Sequence[int]) -> Statement:
        """Return the statement that takes advisory locks, in that order, until the end."""
        return Statement(query("lock_texts"), [list(keys)])

    def _id_type(self) -> sql.SQL:
        return sql.SQL("uuid" if self.options.uuids else "text")

    def copy(self) -> str:
        """Return the COPY that `pack_rows` writes to."""
        time = sql.SQL("time," if self.shape.has_time else "")
        return compose_query("copy_records", table=self.table, time=time).as_string(None)

    def create_table(self, *, partitioned: bool) -> str:
        """Return the statement that makes the table."""
        return compose_query(
            "create_collection",
            table=self.table,
            id_type=self._id_type(),
            time_column=sql.SQL("time timestamptz not null," if partitioned else ""),
            embedding=self._column_type(),
            key=sql.SQL("id, time" if partitioned else "id"),
            partitioning=sql.SQL("partition by range (time)" if partitioned else ""),
        ).as_string(None)

    def _column_type(self) -> sql.Composable:
        if self.options.column_type == "bit":
            return self._type()
        return compose(
            "{}.{}({})",
            self._vectors,
            sql.Identifier(self.options.column_type),
            sql.Literal(self.options.dimensions),
        )

    def create_metadata_index(self) -> str:
        """Return the statement that makes the index filters use."""
        return compose_query(
            "create_collection_index",
            index=sql.Identifier(fitted(self.shape.relation.name, "_meta_idx")),
            table=self.table,
        ).as_string(None)


def _statement(composed: sql.Composable, parameters: Parameters) -> Statement:
    return Statement(composed.as_string(None), parameters.values)
