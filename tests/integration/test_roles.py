"""Three roles: the installer owns, the worker embeds, the reader searches, and none does more."""

from __future__ import annotations

import re
import uuid
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from psycopg.conninfo import make_conninfo
from psycopg.errors import InsufficientPrivilege
from test_cli import Cli, cli

from vectorizer import Vectorizer
from vectorizer._sync.database import Database
from vectorizer._sync.schema import Schema
from vectorizer._sync.upkeep import CHORES, Upkeep
from vectorizer.errors import DatabaseError
from vectorizer.testing import FakeEmbedder

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["cli"]

MONTH = timedelta(days=30)


@dataclass(frozen=True)
class Roles:
    """Names of roles of this test's own, and how to connect as one."""

    url: str
    installer: str
    worker: str
    reader: str

    def url_of(self, role: str) -> str:
        return make_conninfo(self.url, user=role)

    @contextmanager
    def session(self, role: str) -> Iterator[psycopg.Connection[Any]]:
        with psycopg.connect(self.url_of(role), autocommit=True) as connection:
            yield connection

    def schema(self, stack: ExitStack, role: str) -> Schema:
        return Schema(stack.enter_context(Database(self.url_of(role))))


@pytest.fixture
def roles(vectorizer_url: str) -> Iterator[Roles]:
    """The installer owns the schema `shop` with the table `post`, and may make a schema."""
    mark = uuid.uuid4().hex[:8]
    made = Roles(vectorizer_url, f"installer_{mark}", f"worker_{mark}", f"reader_{mark}")
    names = (made.installer, made.worker, made.reader)
    with psycopg.connect(vectorizer_url, autocommit=True) as admin:
        for name in names:
            admin.execute(f"create role {name} login")
        try:
            admin.execute(
                f"grant create on database {admin.info.dbname} to {made.installer};"
                f"create schema shop authorization {made.installer}"
            )
            with made.session(made.installer) as owner:
                owner.execute(
                    "create table shop.post (id int, body text, at timestamptz not null,"
                    "  primary key (id, at)) partition by range (at);"
                    "create table shop.post_2025 partition of shop.post"
                    "  for values from ('2025-01-01') to ('2026-01-01');"
                    "create table shop.post_now partition of shop.post"
                    "  for values from ('2026-01-01') to ('2100-01-01');"
                    "create table shop.secret (id int primary key, body text);"
                    "insert into shop.post select n, 'text ' || n,"
                    "  case when n > 10 then now() else '2025-05-01' end"
                    "  from generate_series(1, 20) n"
                )
            yield made
        finally:
            # The roles are the cluster's: what they own and hold here goes first.
            for name in names:
                admin.execute(f"drop owned by {name} cascade")
                admin.execute(f"drop role {name}")


def posts(roles: Roles, role: str, model: str = "fake", **options: Any) -> Vectorizer:
    return Vectorizer(
        roles.url_of(role),
        "post",
        schema_name="shop",
        name="post",
        embedder=FakeEmbedder(model=model),
        chunk_column="body",
        time_column="at",
        partition_interval=MONTH,
        cache=True,
        **options,
    )


@pytest.fixture
def installed(roles: Roles) -> Roles:
    """The worker was made one before anything was installed, the reader afterwards."""
    with ExitStack() as stack:
        schema = roles.schema(stack, roles.installer)
        schema.migrate()
        assert schema.grant_role("worker", roles.worker) == []
        stack.enter_context(posts(roles, roles.installer)).install()
        assert schema.grant_role("reader", roles.reader) == []
        assert schema.role_grants("worker", roles.worker) == []
        assert schema.role_grants("reader", roles.reader) == []
    return roles


def embedded(owner: psycopg.Connection[Any]) -> list[tuple[Any, ...]]:
    return owner.execute(
        "select source_id, contents from shop.post_embedding order by source_id"
    ).fetchall()


def in_step(owner: psycopg.Connection[Any], worker: Vectorizer) -> None:
    source = owner.execute("select id, body from shop.post order by id").fetchall()
    assert embedded(owner) == source
    report = worker.verify()
    assert report.ok, report
    assert (report.pending, report.dead) == (0, 0)


def test_a_worker_does_all_of_its_job(installed: Roles) -> None:
    with (
        installed.session(installed.installer) as owner,
        posts(installed, installed.worker) as worker,
        Database(installed.url_of(installed.worker)) as database,
    ):
        assert worker.run().embedded == 20  # makes partitions of what it does not own
        in_step(owner, worker)
        owner.execute(
            "update shop.post set body = 'edited' where id = 3; delete from shop.post where id = 4;"
            "insert into shop.post values (21, 'far away', '2030-01-01')"
        )
        worker.run()
        in_step(owner, worker)
        owner.execute("truncate shop.post_2025")
        worker.run()
        in_step(owner, worker)
        # A partition that comes with rows is found by upkeep, with triggers of its own.
        owner.execute(
            "create table shop.old (like shop.post);"
            "insert into shop.old values (30, 'from the archive', '2020-01-01');"
            "alter table shop.post attach partition shop.old"
            " for values from ('2020-01-01') to ('2021-01-01')"
        )
        owner.execute("drop view shop.post_embedding")
        tasks = all_chores(owner, Upkeep(database))
        assert {"follow", "partitions", "view"} <= tasks <= set(CHORES)
        worker.run()
        in_step(owner, worker)
        owner.execute("truncate shop.old")
        worker.run()
        in_step(owner, worker)


def all_chores(owner: psycopg.Connection[Any], upkeep: Upkeep) -> set[str]:
    """Do every chore twice, the first time they only look; none may fail."""
    done = set()
    for _ in range(2):
        done |= {chore.task for chore in upkeep.run_due()}
        owner.execute("update vectorizer.upkeep set due_at = now()")
    return done | {chore.task for chore in upkeep.run_due()}


def test_a_worker_drops_what_is_older_than_the_retention(installed: Roles) -> None:
    with (
        installed.session(installed.installer) as owner,
        posts(installed, installed.worker) as worker,
        Database(installed.url_of(installed.worker)) as database,
    ):
        worker.run()
        old = "select count(*) from shop.post_embedding where time < '2026-01-01'"
        assert owner.execute(old).fetchone() == (10,)
        owner.execute(
            "update vectorizer.vectorizer set definition = definition ||"
            """ '{"retention": "3600 seconds"}'"""
        )
        assert "retention" in all_chores(owner, Upkeep(database))
        assert owner.execute(old).fetchone() == (0,)
        assert worker.verify().ok


def test_a_worker_mends_retries_and_pauses(installed: Roles) -> None:
    with (
        installed.session(installed.installer) as owner,
        posts(installed, installed.worker) as worker,
        ExitStack() as stack,
    ):
        worker.run()
        owner.execute("delete from shop.post_embedding_g1 where source_id = 5")
        assert not worker.verify(repair=True).ok
        worker.run()
        in_step(owner, worker)
        schema = installed.schema(stack, installed.worker)
        assert schema.retry("post") == 0
        assert schema.collapse("post") == 0
        schema.wait_for_sync("post", 10)
        schema.pause("post", "by the worker")
        assert schema.status("post")[0]["reason"] == "by the worker"
        assert schema.dead_letters() == []
        assert schema.extras()["post", 1]["partitions"] > 1


def test_a_worker_brings_a_new_generation_to_serve(installed: Roles) -> None:
    with (
        installed.session(installed.installer) as owner,
        posts(installed, installed.worker) as worker,
        posts(installed, installed.installer, "new") as changed,
        posts(installed, installed.worker, "new") as next_worker,
        ExitStack() as stack,
    ):
        worker.run()
        changed.install(change=True)
        next_worker.run()
        in_step(owner, next_worker)
        (status,) = (
            row
            for row in installed.schema(stack, installed.installer).status("post")
            if row["serving"]
        )
        assert (status["generation"], status["model"]) == (2, "new")
        with posts(installed, installed.reader, "new") as reader:
            assert reader.search("text 7", limit=1)[0].contents == "text 7"


def test_a_worker_sees_of_other_tables_what_is_joined(installed: Roles) -> None:
    query = (
        "select p.id, p.at, a.name as author, p.id % 2 as author_id"
        " from shop.post p join shop.author a on a.id = p.id % 2"
    )
    options: dict[str, Any] = {
        "template": "{author}: {chunk}",
        "joined": {"query": query, "parents": {"shop.author": ["author_id"]}},
    }
    with (
        installed.session(installed.installer) as owner,
        posts(installed, installed.installer, **options) as changed,
        posts(installed, installed.worker, **options) as worker,
    ):
        owner.execute("create table shop.author (id int primary key, name text, secret text)")
        owner.execute("insert into shop.author values (0, 'Zoe', 'x'), (1, 'Una', 'y')")
        changed.install(change=True)
        worker.run()
        assert embedded(owner)[0] == (1, "Una: text 1")
        owner.execute("update shop.author set name = 'Ann' where id = 1")
        assert worker.run().texts == 10
        report = worker.verify()
        assert (report.ok, report.pending, report.dead) == (True, 0, 0)
        with (
            installed.session(installed.worker) as connection,
            pytest.raises(InsufficientPrivilege),
        ):
            connection.execute("select secret from shop.author")


def test_an_index_is_built_by_the_owner(installed: Roles) -> None:
    """CREATE INDEX CONCURRENTLY is nothing a function could do for a worker."""
    with (
        posts(installed, installed.worker) as worker,
        posts(installed, installed.installer, index="hnsw") as installer,
        ExitStack() as stack,
    ):
        worker.run()
        installer.install(change=True)
        schema = installed.schema(stack, installed.worker)
        assert Upkeep(schema.database).run_due() is not None
        assert worker.run().embedded == 0
        (warning,) = schema.status("post")[0]["warnings"]
        assert 'run "vectorizer run post" as its owner' in warning
        installer.run()
        assert schema.status("post")[0]["warnings"] == []


def test_a_reader_searches(installed: Roles) -> None:
    with (
        posts(installed, installed.worker) as worker,
        posts(installed, installed.reader) as reader,
        installed.session(installed.reader) as session,
    ):
        worker.run()
        (found,) = reader.search("text 7", limit=1)
        assert found.contents == "text 7"
        rows = session.execute("select contents from shop.post_embedding").fetchall()
        assert len(rows) == 20


FORBIDDEN_TO_ALL = (
    "select * from shop.secret",
    "insert into shop.post values (99, 'mine', now())",
    "update shop.post set body = 'mine'",
    "delete from shop.post",
    "truncate shop.post",
    "create table shop.mine (id int)",
    "create table vectorizer.mine (id int)",
    "drop table shop.post_embedding_g1 cascade",
    "alter table shop.post disable trigger all",
    "create trigger mine after insert on vectorizer.post_log execute function vectorizer.fail()",
    "create trigger mine after insert on shop.post execute function vectorizer.post_insert()",
    "truncate vectorizer.lease",
    "drop table vectorizer.post_log",
    "update vectorizer.vectorizer set source = 'shop.secret'::regclass",
    'update vectorizer.vectorizer set definition = definition || \'{"model": "mine"}\'',
    "update vectorizer.vectorizer set storage = 'shop.secret'::regclass",
    "update vectorizer.vectorizer set key = '[]'",
    "insert into vectorizer.vectorizer overriding system value select * from vectorizer.vectorizer",
    "delete from vectorizer.vectorizer",
    "insert into vectorizer.migration values (99, 'mine')",
    "select vectorizer.uninstall('post')",
    "select vectorizer.uninstall('post', true)",
    "select vectorizer.suspend('post')",
    "select vectorizer.pause('post', discard => true)",
    "select vectorizer.install('mine', 'shop.post', '{}')",
    "select vectorizer.drop_capture(v) from vectorizer.vectorizer v",
    "select vectorizer.make_partition('shop.post_embedding_g1', 'mine', now(), now())",
    "alter function vectorizer.follow_parts_as_owner(integer) security invoker",
)
FORBIDDEN_TO_READERS = (
    "select * from shop.post",
    "delete from shop.post_embedding",
    "delete from shop.post_embedding_g1",
    "insert into shop.post_embedding_g1 select * from shop.post_embedding_g1",
    "select * from vectorizer.post_log",
    "select * from vectorizer.post_row",
    "select * from vectorizer.lease",
    "select * from vectorizer.usage",
    "select * from vectorizer.cache",
    "update vectorizer.vectorizer set paused_at = now()",
    "select vectorizer.pause('post')",
    "select vectorizer.retry('post')",
    "select vectorizer.collapse('post')",
    "select vectorizer.add_partition(1, 'mine', now(), now() + interval '1 day')",
    "select vectorizer.add_partition_as_owner(1, 'mine', now(), now() + interval '1 day')",
    "select vectorizer.follow_parts(1)",
    "select vectorizer.follow_parts_as_owner(1)",
    "select vectorizer.switch_as_owner(1)",
    "select vectorizer.drop_expired(1)",
    "select vectorizer.drop_expired_as_owner(1)",
)


@pytest.mark.parametrize("role", ["worker", "reader"])
def test_and_does_nothing_else(installed: Roles, role: str) -> None:
    statements = FORBIDDEN_TO_ALL + (FORBIDDEN_TO_READERS if role == "reader" else ())
    permitted = []
    with installed.session(getattr(installed, role)) as session:
        for statement in statements:
            try:
                session.execute(statement.encode())
            except (InsufficientPrivilege, psycopg.errors.RaiseException) as error:
                assert error.sqlstate == "42501", (statement, error)  # noqa: PT017
            except psycopg.Error as error:
                permitted.append((statement, str(error)[:200]))
            else:
                permitted.append((statement, "done"))
    assert permitted == []


def test_a_worker_cannot_switch_what_should_not_serve(installed: Roles) -> None:
    """The function that acts for the owner decides by itself whether it is time."""
    with (
        installed.session(installed.worker) as session,
        posts(installed, installed.installer, "new") as changed,
        posts(installed, installed.worker) as worker,
    ):
        worker.run()
        changed.install(change=True)
        number = "select id from vectorizer.vectorizer where generation = 2"
        found = session.execute(f"select vectorizer.switch_as_owner(({number}))")
        assert found.fetchone() == (False,)
        with pytest.raises(InsufficientPrivilege):
            session.execute("select vectorizer.switch('post', 2, true)")


# (owner, search path, may PUBLIC execute it?, body) of each function that runs with its owner's
# rights, whose own statements name everything with its schema where no path is set.
AUDIT = """
select p.proname, pg_get_userbyid(p.proowner), p.proconfig, has_function_privilege('public', p.oid, 'execute'), p.prosrc
from pg_proc p join pg_namespace n on n.oid = p.pronamespace
where p.prosecdef and n.nspname in ('vectorizer', 'shop', 'public') order by 1
"""  # noqa: E501
# What a trigger's function may call: our own and pg_catalog's, by full name.
CALLS = re.compile(r'(?<![\w".])([a-z_]\w*)\s*\(', re.IGNORECASE)


_ACTIONS = ("delete", "delete_all", "insert", "insert_all", "truncate", "update")


def test_every_function_with_its_owners_rights_is_safe(installed: Roles) -> None:
    with installed.session(installed.installer) as session:
        found = session.execute(AUDIT).fetchall()
        names = [name for name, *_ in found]
        assert sorted(name for name in names if name.endswith("_as_owner")) == [
            "add_partition_as_owner",
            "drop_expired_as_owner",
            "follow_parts_as_owner",
            "mend_view_as_owner",
            "switch_as_owner",
        ]
        assert [name for name in names if not name.endswith("_as_owner")] == [
            f"post_{action}" for action in _ACTIONS
        ]
        for name, owner, settings, public, body in found:
            assert owner == installed.installer, name
            assert not public, name
            if name.endswith("_as_owner"):
                assert "search_path=pg_catalog, pg_temp" in settings, name
            else:
                bare = set(CALLS.findall(body)) - {"values", "row", "operator", "kind"}
                assert {call for call in bare if not call.startswith("source_")} == set(), body
                assert all(
                    target.startswith("vectorizer.") or target == "changed;"
                    for target in re.findall(r"(?:into|from) (\S+)", body)
                ), body


def test_our_functions_are_executed_by_nobody_without_the_schema(installed: Roles) -> None:
    with psycopg.connect(installed.url, autocommit=True) as admin:
        role = f"stranger_{uuid.uuid4().hex[:8]}"
        admin.execute(f"create role {role} login")
        try:
            with installed.session(role) as session:
                for statement in (
                    "select vectorizer.known_names()",
                    "select * from vectorizer.status",
                    "select * from shop.post_embedding",
                ):
                    with pytest.raises(InsufficientPrivilege):
                        session.execute(statement)
        finally:
            admin.execute(f"drop role {role}")


def test_what_comes_later_is_granted_too(installed: Roles) -> None:
    """By the next install, and by the next migration."""
    with ExitStack() as stack:
        owner = stack.enter_context(installed.session(installed.installer))
        owner.execute("create table shop.page (id int primary key, body text)")
        owner.execute("insert into shop.page values (1, 'a page')")
        page = {"schema_name": "shop", "embedder": FakeEmbedder(), "chunk_column": "body"}
        installer = Vectorizer(installed.url_of(installed.installer), "page", **page)
        stack.enter_context(installer).install()
        worker = stack.enter_context(Vectorizer(installed.url_of(installed.worker), "page", **page))
        assert worker.run().embedded == 1
        owner.execute(
            f"revoke all on vectorizer.progress from {installed.worker};"
            "update vectorizer.migration set functions = null"
        )
        with pytest.raises(DatabaseError, match="permission denied"):
            worker.verify()
        installed.schema(stack, installed.installer).migrate()
        owner.execute("update shop.page set body = 'another'")
        assert worker.run().embedded == 1


def test_a_table_of_somebody_else(roles: Roles, cli: Cli) -> None:
    """The installer may attach it, but not let others read it: that is for its owner."""
    with (
        psycopg.connect(roles.url, autocommit=True) as admin,
        posts(roles, roles.installer) as installer,
    ):
        installer.install()
        admin.execute(f"alter table shop.post owner to {admin.info.user}")
        admin.execute(f"grant select, trigger on shop.post to {roles.installer}")
        url = roles.url_of(roles.installer)
        wanted = f"grant select on table shop.post to {roles.worker};"
        done = cli("grant", "worker", roles.worker, "--url", url, "--dry-run")
        assert (done.code, wanted in done.out) == (0, True)
        done = cli("grant", "worker", roles.worker, "--url", url)
        assert (done.code, done.out.strip()) == (1, wanted)
        assert "let the owners run the above" in done.err
        admin.execute(wanted.encode())
        done = cli("grant", "worker", roles.worker, "--url", url)
        assert (done.code, done.out) == (0, f"{roles.worker} can do the work of a worker.\n")
        done = cli("grant", "worker", roles.worker, "--url", url, "--json")
        assert done.json == {"dry_run": False, "statements": []}
        with posts(roles, roles.worker) as worker:
            assert worker.run().embedded == 20


def test_a_dry_run_grants_nothing(installed: Roles, cli: Cli) -> None:
    with psycopg.connect(installed.url, autocommit=True) as admin:
        admin.execute(f"drop owned by {installed.reader}")
        url = installed.url_of(installed.installer)
        printed = cli("grant", "reader", installed.reader, "--url", url, "--dry-run")
        assert printed.code == 0
        with installed.session(installed.reader) as session, pytest.raises(InsufficientPrivilege):
            session.execute("select * from shop.post_embedding")
        # What is printed is what makes a reader: nothing else is needed.
        with installed.session(installed.installer) as owner:
            owner.execute(printed.out.encode())
        with posts(installed, installed.reader) as reader:
            assert reader.search("text", limit=1) == []


def test_who_lacks_a_right_is_told_what_to_do(installed: Roles, cli: Cli) -> None:
    done = cli("status", "--url", installed.url_of(installed.reader))
    assert (done.code, done.err.count("\n")) == (2, 1)
    assert "permission denied" in done.err
    assert "vectorizer grant worker ROLE" in done.err


def test_a_role_that_does_not_exist(installed: Roles, cli: Cli) -> None:
    done = cli("grant", "worker", "nobody", "--url", installed.url)
    assert (done.code, done.err.count("\n")) == (2, 1)
    assert "role nobody does not exist; create role nobody login, then try again" in done.err
    done = cli("grant", "king", "nobody", "--url", installed.url)
    assert done.code == 2
