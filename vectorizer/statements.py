"""The statements of one vectorizer: query files with its tables and columns filled in.

The key columns have names of their own in our tables (`source_<column>`), so that a source
column called `lease` or `seq` does no harm and a rename in the source changes nothing here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from psycopg import sql

from vectorizer.definition import Definition, Installation, KeyColumn, Relation
from vectorizer.queries import query

if TYPE_CHECKING:
    from typing_extensions import LiteralString

__all__ = ["Statements", "compose", "compose_query", "relation", "without_placeholders"]


def compose(text: str, *parts: sql.Composable, **names: sql.Composable) -> sql.Composed:
    """Fill the placeholders of one of our own SQL files."""
    # The text is a file of this package, never anything a user gave.
    return sql.SQL(text).format(*parts, **names)


def compose_query(name: str, **names: sql.Composable) -> sql.Composed:
    """Fill the placeholders of `sql/queries/<name>.sql`."""
    return compose(query(name), **names)


def relation(what: Relation) -> sql.Identifier:
    """Return the qualified name of a table or view."""
    return sql.Identifier(what.schema, what.name)


def _trusted(text: str) -> sql.SQL:
    # Only for what PostgreSQL printed or has checked: names of types, functions, operators.
    return sql.SQL(text)


class Statements:
    """Composes each query file once for an installed vectorizer.

    `statements["claim_changes"]` is `sql/queries/claim_changes.sql` for its tables.
    """

    def __init__(
        self, schema: str, installation: Installation, reuse: Relation | None = None
    ) -> None:
        self._bare_names = _placeholders(schema, installation)
        if reuse is not None:
            self._bare_names["reuse"] = relation(reuse)
        self._names = {name: without_placeholders(part) for name, part in self._bare_names.items()}
        self._composed: dict[str, sql.Composed] = {}

    def __getitem__(self, name: str) -> sql.Composed:
        if name not in self._composed:
            self._composed[name] = compose(query(name), **self._names)
        return self._composed[name]

    def bare(self, name: str) -> sql.Composed:
        """Return a statement that is run without parameters, where a percent sign means itself."""
        return compose(query(name), **self._bare_names)

    def after_cursor(self, name: str, *, started: bool) -> sql.Composed:
        """Return a claim that goes on after a cursor, or begins where there is none yet."""
        alias = "s" if name == "claim_backfill" else "l"
        return self._compose(name, after_cursor=self._where(alias, started=started))

    def lock_progress(self, *, wait: bool) -> sql.Composed:
        """Return the statement that locks the cursors; if it must not wait, it may find none."""
        unless_locked = sql.SQL("" if wait else "skip locked")
        return self._compose("lock_progress", unless_locked=unless_locked)

    def vacuum_log(self, *, truncate: bool) -> sql.Composed:
        """Return the VACUUM of the log; with `truncate` its end is given back to the disk."""
        return self._compose("vacuum_log", truncate=sql.Literal(truncate))

    def verify_end(self, *, started: bool, embedded: str | None = None) -> sql.Composed:
        """Return the statement that finds where a range of keys ends."""
        names = {f"after_{alias}": self._where(alias, started=started) for alias in "srd"}
        chunks: sql.Composable = sql.SQL("")
        if embedded is not None or "storage" in self._names:
            chunks = self._compose("verify_end_of_chunks", **names, **self._storage(embedded))
        return self._compose("verify_end", ends_of_chunks=chunks, **names)

    def verify_range(
        self, *, started: bool, ended: bool, embedded: str | None = None
    ) -> sql.Composed:
        """Return the statement that compares a range of keys.

        embedded: query by the user, whose first columns are the keys of what is embedded.
        """
        names = {f"within_{a}": self._within(a, started=started, ended=ended) for a in "srd"}
        stored = "storage" in self._names
        unseen = "verify_no_chunks" if embedded is None else "verify_embedded"
        return self._compose(
            "verify_range",
            chunks=self._compose(
                "verify_chunks" if stored else unseen, **names, **self._storage(embedded)
            ),
            # A callback does not tell how many chunks it wrote: some, if it was asked to.
            chunks_known=sql.SQL("r.chunks" if embedded is None else "1"),
            elsewhere=sql.Literal(embedded is not None),
            **names,
        )

    def _storage(self, embedded: str | None) -> dict[str, sql.Composable]:
        if embedded is None:
            return {}
        # SQL by the user, run with the rights that he has.
        query = without_placeholders(_trusted(embedded.rstrip().rstrip(";")))
        return {
            "storage": compose(
                "(select {} from ({}\n) as q({}))",
                self._names["typed_keys"],
                query,
                self._names["names"],
            )
        }

    def plan_rows(self, *, started: bool) -> sql.Composed:
        """Return the statement that reads source rows in the order of their keys."""
        return self._plan_rows(
            sample=sql.SQL(""),
            after_s=self._where("s", started=started),
            order=compose("order by {}", self._names["s_keys"]),
        )

    def plan_sample(self) -> sql.Composed:
        """Return the statement that reads source rows of some of its pages."""
        return self._plan_rows(
            sample=sql.SQL("tablesample system (%(percent)s)"),
            after_s=sql.SQL(""),
            order=sql.SQL(""),
        )

    def _plan_rows(self, **names: sql.Composable) -> sql.Composed:
        stored = sql.SQL("'{{}}'::bytea[]").format()
        if "reuse" in self._names:
            stored = self._compose("plan_stored")
        return self._compose("plan_rows", stored=stored, **names)

    def _compose(self, name: str, **more: sql.Composable) -> sql.Composed:
        return compose(query(name), **{**self._names, **more})

    def _where(self, alias: str, *, started: bool) -> sql.Composable:
        if not started:
            return sql.SQL("")
        return compose("where {}", self._within(alias, started=True, ended=False))

    def _within(self, alias: str, *, started: bool, ended: bool) -> sql.Composable:
        keys = self._names["s_keys" if alias == "s" else f"{alias}_names"]
        conditions = []
        if started:
            conditions.append(compose("({}) > ({})", keys, self._names["cursor"]))
        if ended:
            conditions.append(compose("({}) <= ({})", keys, self._names["last"]))
        return sql.SQL(" and ").join(conditions) if conditions else sql.SQL("true")


def _placeholders(schema: str, installation: Installation) -> dict[str, sql.Composable]:
    key = installation.key
    names: dict[str, sql.Composable] = {
        "schema": sql.Identifier(schema),
        "log": sql.Identifier(schema, installation.log_table),
        "row": sql.Identifier(schema, installation.row_table),
        "source": relation(installation.source),
        "expect_columns": compose(
            "{}.expect_columns({}::oid, {})",
            sql.Identifier(schema),
            sql.Literal(installation.source_oid),
            sql.Literal(installation.source_columns),
        ),
        "dimensions": sql.Literal(installation.definition.dimensions),
        "vectors": sql.Identifier(installation.definition.vectors),
        "vectors_send": sql.Identifier(f"{installation.definition.vectors}_send"),
        "names": _names(key),
        "names_desc": _joined(key, lambda k: compose("{} desc", sql.Identifier(k.name))),
        "record": _joined(
            key, lambda k: compose("{} {}", sql.Identifier(k.name), _trusted(k.type))
        ),
        "cursor": _joined(
            key, lambda k: compose("(select {} from cursor)", sql.Identifier(k.name))
        ),
        "last": _joined(key, lambda k: compose("(select {} from last)", sql.Identifier(k.name))),
        "key_object": _key_object(key, None),
        "typed_keys": _joined(
            key,
            lambda k: compose(
                "q.{}::{} as {}", sql.Identifier(k.name), _trusted(k.type), sql.Identifier(k.name)
            ),
        ),
        "k_sends": _joined(
            key, lambda k: compose("{}({})", _trusted(k.send), sql.Identifier("k", k.name))
        ),
        "s_keys": _joined(key, lambda k: sql.Identifier("s", k.current)),
        "s_key_as_names": _joined(
            key,
            lambda k: compose("{} as {}", sql.Identifier("s", k.current), sql.Identifier(k.name)),
        ),
        "s_matches_k": _match(key, "s", "k", source=True),
        "s_matches_l": _match(key, "s", "l", source=True),
        "s_matches_d": _match(key, "s", "d", source=True),
        "s_key_object": _object(key, lambda k: sql.Identifier("s", k.current)),
        "source_oid": sql.Literal(installation.source_oid),
        "row_matches_k": _match(key, "r", "k"),
        "row_matches_l": _match(key, "r", "l"),
        "p_matches_k": _match(key, "p", "k"),
        "d_matches_k": _match(key, "d", "k"),
        "l_matches_j": _match(key, "l", "j"),
        "after_cursor": sql.SQL(""),
        "or_parents": sql.SQL("")
        if installation.parents_table is None
        else compose(
            "or exists (select from {})", sql.Identifier(schema, installation.parents_table)
        ),
        **_source_expressions(schema, installation),
    }
    for alias in "djklr":
        names[f"{alias}_names"] = _names(key, alias)
        names[f"{alias}_key_object"] = _key_object(key, alias)
    if installation.storage is not None:
        names["storage"] = relation(installation.storage)
    if installation.destination is not None:
        names["destination"] = relation(installation.destination)
    if installation.vector_schema is not None:
        names["vector_schema"] = sql.Identifier(installation.vector_schema)
    return names


def without_placeholders(part: sql.Composable) -> sql.Composable:
    """Return a part for a statement that has parameters: a percent sign in it means itself."""
    return sql.SQL(part.as_string(None).replace("%", "%%"))


def _source_expressions(schema: str, installation: Installation) -> dict[str, sql.Composable]:
    definition = installation.definition
    # Columns by the names they have now; what the definition calls them stays in the metadata.
    current = installation.columns or {}
    if installation.columns is None:
        # A callback may read any column, so any of them counts.
        image: sql.Composable = sql.SQL("s.*")
    else:
        joined = sorted({*definition.parsed_template.columns, *definition.metadata} - {*current})
        image = sql.SQL(", ").join(
            [
                *(sql.Identifier("s", current[name]) for name in sorted(current)),
                *(sql.Identifier("j", name) for name in joined),
            ]
        )
    if installation.revision:
        # What is made of a row has changed, so it counts as changed.
        image = compose("{}, {}", sql.Literal(installation.revision), image)
    texts = (definition.chunk_column, *definition.parsed_template.columns)
    return {
        "join": _join(schema, installation),
        "visible": _visible(definition, current),
        "aged": _aged(definition, current),
        "source_hash": compose("sha256(convert_to(row({})::text, 'UTF8'))", image),
        "time": _time(definition, current),
        "metadata": compose(
            "jsonb_build_object({})::text",
            sql.SQL(", ").join(
                compose("{}, {}", sql.Literal(name), _column(name, current))
                for name in definition.metadata
            ),
        ),
        "columns": compose(
            "array[{}]::text[]",
            sql.SQL(", ").join(
                compose("{}::text", _column(name, current)) for name in texts if name is not None
            ),
        ),
    }


def _column(name: str, current: Mapping[str, str]) -> sql.Identifier:
    # What the source does not have, the query of `joined` has.
    return sql.Identifier("s", current[name]) if name in current else sql.Identifier("j", name)


def _join(schema: str, installation: Installation) -> sql.Composable:
    if installation.joined_query is None:
        return sql.SQL("")
    joined: sql.Composable = sql.Identifier(schema, installation.joined_view or "")
    if installation.joined_view is None:
        joined = compose("({})", _trusted(installation.joined_query.rstrip().rstrip(";")))
    return compose(
        "left join lateral (select * from {} as q where {} order by q::text limit 1) as j on true",
        joined,
        _joined(
            installation.key,
            lambda k: compose(
                "{} {} {}",
                sql.Identifier("q", k.column),
                _trusted(k.equals),
                sql.Identifier("s", k.current),
            ),
            " and ",
        ),
    )


def _time(definition: Definition, current: Mapping[str, str]) -> sql.Composable:
    time: sql.Composable = sql.SQL("coalesce(r.time, now())")
    if definition.time_column is not None:
        time = compose("{}::timestamptz", sql.Identifier("s", current[definition.time_column]))
    # A row that is filtered out, or too old, is like one that has no time: not published.
    for condition in _conditions(definition, current):
        time = compose("case when ({}) then {} end", condition, time)
    return time


def _visible(definition: Definition, current: Mapping[str, str]) -> sql.Composable:
    conditions = [compose("coalesce(({}), false)", c) for c in _conditions(definition, current)]
    if definition.time_column is not None:
        conditions.append(
            compose("{} is not null", sql.Identifier("s", current[definition.time_column]))
        )
    return sql.SQL(" and ").join(conditions) if conditions else sql.SQL("true")


def _conditions(definition: Definition, current: Mapping[str, str]) -> list[sql.Composable]:
    conditions = []
    if definition.where is not None:
        conditions.append(_predicate(definition.where, current))
    if definition.retention is not None:
        conditions.append(compose("not {}", _aged(definition, current)))
    return conditions


def _aged(definition: Definition, current: Mapping[str, str]) -> sql.Composable:
    if definition.retention is None or definition.time_column is None:
        return sql.SQL("false")
    return compose(
        "coalesce({}::timestamptz < now() - {}::interval, false)",
        sql.Identifier("s", current[definition.time_column]),
        sql.Literal(f"{definition.retention.total_seconds():.0f} seconds"),
    )


def _predicate(where: str, current: Mapping[str, str]) -> sql.Composable:
    # SQL by whoever installed the vectorizer, checked by PostgreSQL at that time.
    predicate = _trusted(where)
    if all(name == now for name, now in current.items()):
        return predicate
    # Columns were renamed since: it sees them under the names that it uses.
    columns = sql.SQL(", ").join(
        compose("{} as {}", sql.Identifier("s", now), sql.Identifier(name))
        for name, now in sorted(current.items())
    )
    return compose("select ({}) from (select {}) as s", predicate, columns)


def _joined(
    key: tuple[KeyColumn, ...],
    part: Callable[[KeyColumn], sql.Composable],
    by: LiteralString = ", ",
) -> sql.Composed:
    return sql.SQL(by).join(part(column) for column in key)


def _names(key: tuple[KeyColumn, ...], alias: str | None = None) -> sql.Composed:
    return _joined(key, lambda k: sql.Identifier(*filter(None, (alias, k.name))))


def _key_object(key: tuple[KeyColumn, ...], alias: str | None) -> sql.Composed:
    return _object(key, lambda k: sql.Identifier(*filter(None, (alias, k.name))))


def _object(
    key: tuple[KeyColumn, ...], value: Callable[[KeyColumn], sql.Composable]
) -> sql.Composed:
    pairs = _joined(key, lambda k: compose("{}, {}", sql.Literal(k.name), value(k)))
    return compose("jsonb_build_object({})", pairs)


def _match(
    key: tuple[KeyColumn, ...], left: str, right: str, *, source: bool = False
) -> sql.Composed:
    return _joined(
        key,
        lambda k: compose(
            "{} {} {}",
            sql.Identifier(left, k.current if source else k.name),
            _trusted(k.equals),
            sql.Identifier(right, k.name),
        ),
        " and ",
    )
