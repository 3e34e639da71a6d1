"""Our own objects in the database: migrations, installing, uninstalling, looking up."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import psycopg
from psycopg import sql
from psycopg.rows import dict_row
from psycopg.types.json import Jsonb
from tenacity import AsyncRetrying, retry_if_exception, stop_after_delay, wait_random_exponential

from vectorizer._async.database import AsyncDatabase
from vectorizer.database_errors import is_conflict
from vectorizer.definition import Definition, Installation
from vectorizer.errors import NotInstalled, SchemaVersionError, SourceError
from vectorizer.plan import Change
from vectorizer.queries import functions, migrations
from vectorizer.statements import compose, compose_query
from vectorizer.types import JSON

__all__ = ["AsyncSchema"]


class _TakenBack(Exception):
    """Undoes what was only to be looked at."""

    def __init__(self, installation: Installation, changes: list[Change]) -> None:
        super().__init__()
        self.installation = installation
        self.changes = changes


class AsyncSchema:
    """The schema that holds registry, queues and functions in one database.

    script: takes the statements that would change the database, instead of the database.
    """

    def __init__(self, database: AsyncDatabase, *, script: list[str] | None = None) -> None:
        self.database = database
        self._script = script
        self._names = {
            "schema": sql.Identifier(database.schema),
            "schema_name": sql.Literal(database.schema),
        }

    async def version(self) -> int:
        """Return the number of the last migration in the database; 0 if there is none."""
        async with self.database.transaction() as connection:
            found = await connection.execute(
                compose_query("find_relation"),
                {"schema_name": self.database.schema, "name": "migration"},
            )
            if await found.fetchone() == (None,):
                return 0
            number = await connection.execute(
                compose("select coalesce(max(number), 0) from {schema}.migration", **self._names)
            )
            return int((await number.fetchone() or (0,))[0])

    async def migrate(self) -> list[str]:
        """Bring the schema up to this program's version; return the names of what was applied.

        Safe from several processes at once. Raises SchemaVersionError if the schema is newer.
        """
        await self.database.require_primary()
        if await self._is_current():
            return []
        async with self.database.transaction() as connection:
            return await self._migrate(connection)

    async def _migrate(self, connection: psycopg.AsyncConnection[Any]) -> list[str]:
        await connection.execute(_LOCK)
        await connection.execute(compose(_BOOTSTRAP, **self._names), prepare=False)
        rows = await connection.execute(
            compose("select number from {schema}.migration", **self._names)
        )
        done = {number for (number,) in await rows.fetchall()}
        missing = [migration for migration in migrations() if migration.number not in done]
        for migration in missing:
            await connection.execute(compose(migration.text, **self._names), prepare=False)
            await connection.execute(
                compose(
                    "insert into {schema}.migration (number, name) values (%s, %s)",
                    **self._names,
                ),
                [migration.number, migration.name],
            )
        await self._make_functions(connection)
        return [migration.name for migration in missing]

    async def _make_functions(self, connection: psycopg.AsyncConnection[Any]) -> None:
        # They name each other in any order.
        await connection.execute("set local check_function_bodies = off")
        await connection.execute(compose(functions().text, **self._names), prepare=False)
        await connection.execute(
            compose(
                "update {schema}.migration set functions = %s "
                "where number = (select max(number) from {schema}.migration)",
                **self._names,
            ),
            [functions().digest],
        )
        await connection.execute(compose("select {schema}.renew_grants()", **self._names))

    async def _is_current(self) -> bool:
        if await self._checked_version() < migrations()[-1].number:
            return False
        async with self.database.transaction() as connection:
            found = await connection.execute(
                compose(
                    "select functions from {schema}.migration order by number desc limit 1",
                    **self._names,
                )
            )
            return await found.fetchone() == (functions().digest,)

    async def check(self) -> None:
        """Raise SchemaVersionError unless the schema is exactly of this program's version."""
        version = await self._checked_version()
        if version == 0:
            raise NotInstalled(
                f"no vectorizer is installed in this database (it has no schema "
                f"{self.database.schema!r}); run: vectorizer install TABLE"
            )
        if version < migrations()[-1].number:
            raise SchemaVersionError(
                f"schema {self.database.schema!r} is at version {version}, this program needs "
                f"{migrations()[-1].number}; bring it up to date with: vectorizer migrate"
            )

    async def _checked_version(self) -> int:
        version = await self.version()
        if version > migrations()[-1].number:
            raise SchemaVersionError(
                f"schema {self.database.schema!r} is at version {version}, newer than the "
                f"{migrations()[-1].number} this program knows; upgrade pg-vectorizer"
            )
        return version

    async def install(
        self,
        name: str,
        schema_name: str,
        table: str,
        definition: Definition,
        *,
        change: bool = False,
    ) -> int:
        """Attach a vectorizer to a table; return its id. Installing twice changes nothing.

        With `change`, one that is installed with another definition gets this one; else that
        is refused. Brings the schema up to date where it is not. Raises SourceError,
        ConfigurationError, AlreadyInstalled or ExtensionMissing; nothing at all is changed
        then.
        """
        if self._script is not None:
            path = sql.Identifier(schema_name, table).as_string(None)
            self._write(
                "select {schema}.install(%s, %s::regclass, %s, %s)",
                name,
                path,
                Jsonb(definition.to_json()),
                change,
            )
            return 0
        await self.database.require_primary()
        current = await self._is_current()
        async for attempt in _patient():
            with attempt:
                async with self.database.transaction() as connection:
                    if not current:
                        await self._migrate(connection)
                    source = await self._source(connection, schema_name, table)
                    return await self._install(connection, name, source, definition, change)
        raise AssertionError("unreachable: the last attempt raises")

    async def preview(
        self, name: str, schema_name: str, table: str, definition: Definition
    ) -> tuple[Installation, list[Installation], list[Change]]:
        """Install or change a vectorizer and take it back at once.

        Returns how it would be installed, the generations there are now, the serving one first,
        and what would change of that. Raises what `install` raises.
        """
        current = await self._is_current()
        before: list[Installation] = []
        async for attempt in _patient():
            with attempt:
                try:
                    async with self.database.transaction() as connection:
                        if not current:
                            await self._migrate(connection)
                        before = await self._generations(connection, name)
                        raise await self._previewed(
                            connection, name, schema_name, table, definition
                        )
                except _TakenBack as preview:
                    return preview.installation, before, preview.changes
        raise AssertionError("unreachable: the last attempt raises")

    async def _previewed(
        self,
        connection: psycopg.AsyncConnection[Any],
        name: str,
        schema_name: str,
        table: str,
        definition: Definition,
    ) -> _TakenBack:
        found = await connection.execute(
            compose(
                "select definition from {schema}.vectorizer "
                "where name = %s and serving and uninstalled_at is null",
                **self._names,
            ),
            [name],
        )
        (old,) = await found.fetchone() or (None,)
        source = await self._source(connection, schema_name, table)
        made = await self._install(connection, name, source, definition, change=True)
        changes = await connection.execute(
            compose(
                "select c.* from {schema}.vectorizer v, {schema}.changes(%s, v.definition) c "
                "where v.id = %s and %s",
                **self._names,
            ),
            [Jsonb(old or {}), made, old is not None],
        )
        generations = await self._generations(connection, name)
        installation = next(one for one in generations if one.id == made)
        return _TakenBack(installation, [Change(*change) for change in await changes.fetchall()])

    async def _source(
        self, connection: psycopg.AsyncConnection[Any], schema_name: str, table: str
    ) -> int:
        found = await connection.execute(
            compose_query("find_relation"), {"schema_name": schema_name, "name": table}
        )
        (source,) = await found.fetchone() or (None,)
        if source is None:
            raise SourceError(
                f"table {schema_name}.{table} does not exist in this database, or its schema "
                f"may not be used by this role; check the name, and the schema before its dot"
            )
        return int(source)

    async def _install(
        self,
        connection: psycopg.AsyncConnection[Any],
        name: str,
        source: int,
        definition: Definition,
        change: bool,
    ) -> int:
        installed = await connection.execute(
            compose("select {schema}.install(%s, %s::oid::regclass, %s, %s)", **self._names),
            [name, source, Jsonb(definition.to_json()), change],
        )
        (number,) = await installed.fetchone() or (0,)
        return int(number)

    async def uninstall(self, name: str, *, drop_embeddings: bool = False) -> None:
        """Detach a vectorizer; its embeddings stay unless they are to be dropped.

        Raises NotInstalled if there is none of that name.
        """
        await self._call("select {schema}.uninstall(%s, %s)", name, drop_embeddings)

    async def pause(self, name: str, reason: str, *, discard: bool = False) -> None:
        """Stop embedding; with `discard` stop capturing, too, and empty the log."""
        await self._call("select {schema}.pause(%s, %s, %s)", name, reason, discard)

    async def suspend(self, name: str) -> None:
        """Take capture off for a migration of the source table; `resume` puts it back."""
        await self._call("select {schema}.suspend(%s)", name)

    async def resume(self, name: str) -> None:
        """Go on after a pause or a suspension; after the latter every row is compared."""
        await self._call("select {schema}.resume(%s)", name)

    async def retry(self, name: str, keys: Sequence[Mapping[str, JSON]] | None = None) -> int:
        """Give dead letters another life, those with these keys or all; return how many."""
        wanted = None if keys is None else [Jsonb(dict(key)) for key in keys]
        return int(await self._call("select {schema}.retry(%s, %s)", name, wanted) or 0)

    async def collapse(self, name: str) -> int:
        """Shrink the log to one entry a key; return how many entries went."""
        return int(await self._call("select {schema}.collapse(%s)", name) or 0)

    async def wait_for_sync(self, name: str, timeout: float) -> None:
        """Wait, at most `timeout` seconds, until all that is committed now can be searched.

        Raises SyncFailed at once for a new dead letter or a pause, SyncTimeout after the time.
        """
        async with self.database.connection() as connection:
            await connection.execute(
                compose(
                    "call {schema}.wait_for_sync(%s, make_interval(secs => %s))", **self._names
                ),
                [name, timeout],
            )

    async def missing_script(self, *, transaction: bool = True) -> str:
        """Return the SQL that `migrate` would run in this database; empty if it has all."""
        if await self._is_current():
            return ""
        return self.migration_script(await self.version(), transaction=transaction)

    def migration_script(self, after: int = 0, *, transaction: bool = True) -> str:
        """Return the SQL that brings a schema of version `after` up to this program's.

        transaction: whether with BEGIN and COMMIT; it has to be run in one.
        """
        missing = [migration for migration in migrations() if migration.number > after]
        parts: list[sql.Composable] = [
            sql.SQL(f"-- From version {after} to {migrations()[-1].number}."),
            sql.SQL(_LOCK + ";"),
            sql.SQL("set local client_min_messages = warning;"),
            compose(_BOOTSTRAP, **self._names),
        ]
        for migration in missing:
            parts.append(compose(migration.text, **self._names))
            parts.append(
                compose(
                    "insert into {schema}.migration (number, name) values ({number}, {name});",
                    number=sql.Literal(migration.number),
                    name=sql.Literal(migration.name),
                    **self._names,
                )
            )
        parts += [
            sql.SQL("set local check_function_bodies = off;"),
            compose(functions().text, **self._names),
            compose(
                "update {schema}.migration set functions = {digest} "
                "where number = (select max(number) from {schema}.migration);",
                digest=sql.Literal(functions().digest),
                **self._names,
            ),
            compose("select {schema}.renew_grants();", **self._names),
        ]
        body = sql.SQL("\n").join(parts).as_string(None)
        return f"begin;\n{body}\ncommit;" if transaction else body

    def _write(self, statement: str, *arguments: object) -> None:
        # The arguments are literals here: a script is to be read, and run by something else.
        assert self._script is not None  # noqa: S101 - asked by the callers
        values = {f"_{n}": sql.Literal(value) for n, value in enumerate(arguments)}
        for name in values:
            statement = statement.replace("%s", f"{{{name}}}", 1)
        written = compose(f"{statement};", **self._names, **values).as_string(None)
        self._script.append(written)

    async def _call(self, statement: str, *arguments: object) -> JSON:
        if self._script is not None:
            self._write(statement, *arguments)
            return None
        await self.database.require_primary()
        async for attempt in _patient():
            with attempt:
                async with self.database.transaction() as connection:
                    result = await connection.execute(
                        compose(statement, **self._names), list(arguments)
                    )
                    return (await result.fetchone() or (None,))[0]
        raise AssertionError("unreachable: the last attempt raises")

    async def switch(self, name: str, generation: int | None = None, *, force: bool = False) -> int:
        """Let readers see another generation, by default the newest; return its number.

        Raises NotCaughtUp unless it is in step with the source, or forced.
        """
        number = await self._call("select {schema}.switch(%s, %s, %s)", name, generation, force)
        return int(number or 0)

    async def switch_when_caught_up(self, vectorizer: int) -> bool:
        """Let a new generation serve if it has caught up; return whether it was switched to."""
        async with self.database.transaction() as connection:
            found = await connection.execute(
                compose("select {schema}.switch_when_caught_up(%s)", **self._names), [vectorizer]
            )
            return bool((await found.fetchone() or (False,))[0])

    async def drop_generation(self, name: str, generation: int) -> None:
        """Drop a generation that readers do not see, with its embeddings."""
        await self._call("select {schema}.drop_generation(%s, %s)", name, generation)

    async def grant_role(self, kind: str, role: str) -> list[str]:
        """Make a role a `worker` or a `reader` of all vectorizers, also of those to come.

        Returns the statements that somebody with more rights has to run.
        """
        if self._script is not None:
            self._write("select {schema}.grant_role(%s, %s)", kind, role)
            return []
        await self.database.require_primary()
        async with self.database.transaction() as connection:
            left = await connection.execute(
                compose("select {schema}.grant_role(%s, %s)", **self._names), [kind, role]
            )
            return [statement for (statement,) in await left.fetchall()]

    async def role_grants(self, kind: str, role: str) -> list[str]:
        """Return the statements that `grant_role` would run: what the role does not hold yet."""
        async with self.database.transaction() as connection:
            found = await connection.execute(
                compose(
                    "select statement from {schema}.role_grants(%s, %s) where not held",
                    **self._names,
                ),
                [kind, role],
            )
            return [statement for (statement,) in await found.fetchall()]

    async def note_unserved(self, name: str, reason: str) -> None:
        """Note why this process cannot serve a vectorizer, for status to tell until one can."""
        await self._note("note_unserved", {"name": name, "reason": reason})

    async def clear_unserved(self, name: str) -> None:
        """Take back what a process noted that could not serve a vectorizer."""
        await self._note("clear_unserved", {"name": name})

    async def _note(self, query: str, values: Mapping[str, str]) -> None:
        async with self.database.transaction() as connection:
            await connection.execute(compose_query(query, **self._names), values)

    async def find(self, name: str) -> Installation:
        """Return an installed vectorizer; raise NotInstalled if there is none of that name."""
        return (await self.generations(name))[0]

    async def serving(self, name: str) -> int | None:
        """Return the id of the generation that readers see; None if there is none of that name."""
        async with self.database.transaction() as connection:
            found = await connection.execute(
                compose_query("find_serving", **self._names), {"name": name}
            )
            record = await found.fetchone()
        return None if record is None else int(record[0])

    async def generations(self, name: str) -> list[Installation]:
        """Return every generation of a vectorizer, the serving one first."""
        async with self.database.transaction() as connection:
            found = await self._generations(connection, name)
            if not found:
                cursor = connection.cursor(row_factory=dict_row)
                known = await cursor.execute(
                    compose("select {schema}.known_names() as names", **self._names)
                )
                names = (await known.fetchone() or {})["names"]
                raise NotInstalled(f"there is no vectorizer {name!r}; {names}")
        return found

    async def _generations(
        self, connection: psycopg.AsyncConnection[Any], name: str
    ) -> list[Installation]:
        cursor = connection.cursor(row_factory=dict_row)
        await cursor.execute(compose_query("find_generations", **self._names), {"name": name})
        return [Installation.from_record(record) for record in await cursor.fetchall()]

    async def installed(self, name: str) -> bool:
        """Whether a vectorizer of that name is installed.

        False also without our schema, and with an older one, which `install` brings up to date.
        """
        return await self.version() >= migrations()[-1].number and name in await self.names()

    async def names(self) -> list[str]:
        """Return the names of all installed vectorizers, sorted."""
        async with self.database.transaction() as connection:
            rows = await connection.execute(compose_query("list_names", **self._names))
            return [name for (name,) in await rows.fetchall()]

    async def status(self, name: str | None = None) -> list[dict[str, JSON]]:
        """Return the rows of the view `status`: of one vectorizer, or of all."""
        return await self._view("status", name)

    async def extras(self) -> dict[tuple[str, int], dict[str, int]]:
        """Return partitions and what was asked for today, by name and generation: for metrics."""
        async with self.database.transaction() as connection:
            cursor = connection.cursor(row_factory=dict_row)
            found = await cursor.execute(compose_query("extras", **self._names))
            rows = await found.fetchall()
        return {(row.pop("name"), row.pop("generation")): row for row in rows}

    async def dead_letters(self, name: str | None = None) -> list[dict[str, JSON]]:
        """Return the rows of the view `dead_letters`: of one vectorizer, or of all."""
        return await self._view("dead_letters", name)

    async def _view(self, view: str, name: str | None) -> list[dict[str, Any]]:
        async with self.database.transaction() as connection:
            cursor = connection.cursor(row_factory=dict_row)
            await cursor.execute(
                compose_query("list_view", view=sql.Identifier(view), **self._names),
                {"name": name},
            )
            return await cursor.fetchall()


_LOCK = "select pg_advisory_xact_lock(hashtextextended('vectorizer.migrate', 0))"
_BOOTSTRAP = """
create schema if not exists {schema};
create table if not exists {schema}.migration (
  number integer primary key,
  name text not null,
  applied_at timestamptz not null default now()
);
"""


def _patient() -> AsyncRetrying:
    # Each try gives up its place in the lock queue after two seconds, so that we do not make the
    # application wait behind us while we wait behind a long transaction.
    return AsyncRetrying(
        retry=retry_if_exception(is_conflict),
        wait=wait_random_exponential(multiplier=0.2, max=5),
        stop=stop_after_delay(60),
        reraise=True,
    )
