"""What a user can get wrong: one clear line, exit code 2, our own exception, nothing changed."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import psycopg
import pytest

from vectorizer import OpenAIEmbedder, Vectorizer, client, embedded, errors, pgvectorizer
from vectorizer.cli import main
from vectorizer.embedders import create
from vectorizer.testing import FakeEmbedder
from vectorizer.testing.pytest_plugin import database

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

DEBIAN_PROGRAMS = Path("/usr/lib/postgresql/15/bin")
SECRET = "geheim-4711"  # noqa: S105 - made up
OPTIONS = ("--chunk-column", "contents", "--embedder", "fake", "--dimensions", "16")

TABLES = """
create table blog (id int primary key, title text, contents text);
create table second (id int primary key, contents text);
create table nokey (id int, contents text);
create view recent as select * from blog;
create materialized view stored as select * from blog;
create table taken (id int primary key);
"""

# Every object, every registry row: what installing could have changed.
CATALOGS = """
select 'relation', oid::text, relname::text, relkind::text from pg_class where oid >= 16384
union all select 'function', oid::text, proname::text, '' from pg_proc where oid >= 16384
union all select 'trigger', oid::text, tgname::text, '' from pg_trigger
union all select 'schema', oid::text, nspname::text, '' from pg_namespace
  where nspname !~ '^pg_(toast_)?temp'
union all select 'extension', oid::text, extname::text, extversion::text from pg_extension
union all select 'column', attrelid::text, attname::text, atttypid::text from pg_attribute
  where attrelid >= 16384
order by 1, 2, 3, 4
"""
REGISTRY = "select to_jsonb(v) || to_jsonb(p) from vectorizer.vectorizer v, vectorizer.progress p"


@dataclass(frozen=True)
class Case:
    """A mistake: as arguments of the command line, in the library, and what must be named."""

    name: str
    arguments: tuple[str, ...]
    library: Callable[[str], Any]
    error: type[errors.VectorizerError]
    words: tuple[str, ...]


def vectorizer(url: str, table: str = "second", **options: Any) -> Vectorizer:
    given = {"embedder": FakeEmbedder(16), "chunk_column": "contents", **options}
    return Vectorizer(url, table, **given)


def install(table: str = "second", **options: Any) -> Callable[[str], None]:
    def call(url: str) -> None:
        with vectorizer(url, table, **options) as made:
            made.install()

    return call


def register(table: str, **options: Any) -> Callable[[str], None]:
    def call(url: str) -> None:
        with pgvectorizer.Vectorize(url, table, **options) as made:
            made.register()

    return call


def search(**options: Any) -> Callable[[str], None]:
    def call(url: str) -> None:
        with vectorizer(url, "blog") as made:
            made.search("cats", **options)

    return call


def connect(name: str) -> Callable[[str], None]:
    return lambda url: Vectorizer.connect(url, name).close()


def openai() -> OpenAIEmbedder:
    return OpenAIEmbedder("text-embedding-3-small")


CASES = (
    Case("no such table", ("install", "missing", *OPTIONS), install("missing"),
         errors.SourceError, ("public.missing", "does not exist", "check")),
    Case("no such schema", ("install", "shop.blog", *OPTIONS), install(schema_name="shop"),
         errors.SourceError, ("shop.", "does not exist", "check")),
    Case("no primary key", ("install", "nokey", *OPTIONS), install("nokey"),
         errors.SourceError, ("nokey", "no primary key", "add a primary key")),
    Case("callback, no primary key", (), register("nokey"),
         errors.SourceError, ("nokey", "no primary key", "add a primary key")),
    Case("callback, no such key column", (), register("blog", id_column_name="uid"),
         errors.SourceError, ("uid", "its columns are: id, title, contents")),
    Case("no chunk column", ("install", "second", *OPTIONS[2:], "--chunk-column", "body"),
         install(chunk_column="body"),
         errors.SourceError, ("no column body", "chunk_column", "its columns are: id, contents")),
    Case("no metadata column", ("install", "second", *OPTIONS, "--metadata", "author"),
         install(metadata=["author"]),
         errors.SourceError, ("no column author", "metadata", "its columns are: id, contents")),
    Case("no time column", ("install", "second", *OPTIONS, "--time-column", "at"),
         install(time_column="at"),
         errors.SourceError, ("no column at", "time_column", "its columns are: id, contents")),
    Case("template's unknown column",
         ("install", "second", *OPTIONS, "--template", "{who}: {chunk}"),
         install(template="{who}: {chunk}"),
         errors.SourceError, ("no column who", "template", "its columns are: id, contents")),
    Case("template without chunk", ("install", "second", *OPTIONS, "--template", "{contents}"),
         install(template="{contents}"),
         errors.TemplateError, ("lacks {chunk}", "allowed are")),
    Case("malformed template", ("install", "second", *OPTIONS, "--template", "{chunk} {"),
         install(template="{chunk} {"),
         errors.TemplateError, ("unpaired {", "character 9", "allowed are")),
    Case("template with an attribute", ("install", "second", *OPTIONS, "--template", "{chunk.x}"),
         install(template="{chunk.x}"),
         errors.TemplateError, ("{chunk.x}", "attribute access", "allowed are")),
    Case("another dimension", ("install", "blog", *OPTIONS[:-1], "8"),
         install("blog", embedder=FakeEmbedder(8)),
         errors.DimensionMismatch, ("blog_embedding", "16", "8", "change")),
    Case("another model", ("install", "blog", *OPTIONS, "--model", "other"),
         install("blog", embedder=FakeEmbedder(16, "other")),
         errors.ConfigurationError, ("blog_embedding", "fake", "other", "change")),
    Case("another definition", ("install", "blog", *OPTIONS, "--metadata", "title"),
         install("blog", metadata=["title"]),
         errors.AlreadyInstalled, ("blog", "metadata", '["title"]', "choose another name")),
    Case("taken destination", ("install", "second", *OPTIONS, "--destination", "taken"),
         install(destination="taken"),
         errors.AlreadyInstalled, ("public.taken", "exists already", "choose another")),
    Case("no API key", ("install", "second", *OPTIONS[:2], "--embedder", "openai",
                        "--model", "text-embedding-3-small"), lambda _: openai(),
         errors.ConfigurationError, ("no API key for OpenAI", "set OPENAI_API_KEY")),
    Case("unknown embedder", ("install", "second", *OPTIONS[:2], "--embedder", "minilmm"),
         lambda _: create({"provider": "minilmm"}),
         errors.ConfigurationError, ("'minilmm'", "minilm", "openai", "module:name")),
    Case("embedder's module missing", ("install", "second", *OPTIONS[:2], "--embedder", "nono:No"),
         lambda _: create({"provider": "nono:No"}),
         errors.ConfigurationError, ("'nono:No'", "No module named")),
    Case("embedder's unknown option",
         ("install", "second", *OPTIONS[:2], "--embedder", "minilm", "--dimensions", "3"),
         lambda _: create({"provider": "minilm", "dimensions": 3}),
         errors.ConfigurationError, ("'minilm'", "dimensions")),
    Case("not an embedder", (), install(embedder=object()),
         errors.ConfigurationError, ("lacks model, dimensions or embed",)),
    Case("view", ("install", "recent", *OPTIONS), install("recent"),
         errors.SourceError, ("recent is a view", "attach the vectorizer to the table")),
    Case("materialized view", ("install", "stored", *OPTIONS), install("stored"),
         errors.SourceError, ("stored is a materialized view", "attach the vectorizer")),
    Case("interval without unit",
         ("install", "second", *OPTIONS, "--partition-interval", "month"),
         install(partition_interval="month"),
         errors.ConfigurationError, ("interval",)),
    Case("interval of nothing", ("install", "second", *OPTIONS, "--partition-interval", "0d"),
         install(partition_interval=timedelta(0)), errors.ConfigurationError, ("0",)),
    Case("interval in the past", ("install", "second", *OPTIONS, "--partition-interval=-3d"),
         install(partition_interval=timedelta(days=-3)), errors.ConfigurationError, ("-",)),
    Case("endless interval",
         ("install", "second", *OPTIONS, "--partition-interval", "9" * 12 + "d"), (
             install(partition_interval="nonsense")),
         errors.ConfigurationError, ("interval",)),
    Case("chunk sizes upside down", ("install", "second", *OPTIONS, "--chunk-size", "900,100"),
         install(chunk_size=(900, 100)), errors.ConfigurationError, ("900", "100")),
    Case("chunk size in words", ("install", "second", *OPTIONS, "--chunk-size", "big"),
         install(chunk_size="big"), errors.ConfigurationError, ("chunk",)),
    Case("chunk overlap", ("install", "second", *OPTIONS, "--chunk-overlap", "5000"),
         install(chunk_overlap=5000), errors.ConfigurationError, ("5000",)),
    Case("run of an unknown name", ("run", "nobody"), connect("nobody"),
         errors.NotInstalled, ("'nobody'", "installed: blog")),
    Case("status of an unknown name", ("status", "nobody"),
         lambda url: vectorizer(url, name="nobody").status(),
         errors.NotInstalled, ("'nobody'", "installed: blog")),
    Case("search of an unknown name", ("search", "nobody", "cats"), connect("nobody"),
         errors.NotInstalled, ("'nobody'", "installed: blog")),
    Case("uninstall of an unknown name", ("uninstall", "nobody"),
         lambda url: vectorizer(url, name="nobody").uninstall(),
         errors.NotInstalled, ("nobody", "installed: blog")),
    Case("limit 0", ("search", "blog", "cats", "--limit", "0"), search(limit=0),
         errors.ConfigurationError, ("limit", "1")),
    Case("malformed filter", ("search", "blog", "cats", "--filter", "Pets"),
         search(filter=["Pets"]),
         errors.ConfigurationError, ("filter", "'Pets'")),
    Case("batch of 0", ("run", "--batch-size", "0"),
         lambda url: vectorizer(url, batch_size=0),
         errors.ConfigurationError, ("batch", "1")),
    Case("negative dimensions", ("install", "second", *OPTIONS[:-1], "-1"),
         lambda _: FakeEmbedder(-1), errors.ConfigurationError, ("-1",)),
    Case("no column given", ("install", "second"), install(chunk_column=3),
         errors.ConfigurationError, ("chunk",)),
    Case("unknown option", ("status", "--colour"), lambda _: create({}),
         errors.ConfigurationError, ()),
    Case("unknown command", ("sttus",), lambda _: create({"provider": 3}),
         errors.ConfigurationError, ()),
)  # fmt: skip
MALFORMED = (
    f"postgres:/reader:{SECRET}@localhost/blog",
    f"mysql://reader:{SECRET}@localhost/blog",
    f"postgresql://reader:{SECRET}@[::1/blog",
    f"reader:{SECRET}@localhost/blog",
)


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("VECTORIZER_URL", "DATABASE_URL", "OPENAI_API_KEY", "OPENAI_BASE_URL"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def complaint(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., str]:
    """Run the command line, which must fail with 2 and one line on stderr; return that."""

    def call(*arguments: str) -> str:
        monkeypatch.setattr(sys, "argv", ["vectorizer", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        out, err = capsys.readouterr()
        assert ended.value.code == 2, err
        assert out == ""
        (line,) = err.splitlines()
        assert line.startswith("vectorizer: ")
        assert "TRACEBACK" not in line.upper()
        assert SECRET not in line
        return line

    return call


@pytest.fixture(scope="module")
def site(vectorizer_server: str, vectorizer_template: str) -> Iterator[str]:
    """URL of a database with one vectorizer, on `blog`; nothing here may change it."""
    with database(vectorizer_server, vectorizer_template) as url:
        with psycopg.connect(url) as connection:
            connection.execute(TABLES)
        with vectorizer(url, "blog") as made:
            made.install()
            made.run()
        yield url


def contents(url: str) -> list[tuple[Any, ...]]:
    with psycopg.connect(url) as connection:
        found = connection.execute(CATALOGS).fetchall()
        if ("vectorizer",) in connection.execute("select nspname from pg_namespace").fetchall():
            found += connection.execute(REGISTRY).fetchall()
        return found


@pytest.mark.parametrize(
    "case", [case for case in CASES if case.arguments], ids=lambda case: case.name
)
def test_the_command_line_says_what_is_wrong(
    case: Case, site: str, complaint: Callable[..., str]
) -> None:
    before = contents(site)
    # An option that the parser refuses needs no URL, and a command it does not know takes none.
    url = () if case.name == "unknown command" else ("--url", site)
    line = complaint(*case.arguments, *url)
    missing = [word for word in case.words if word not in line]
    assert missing == [], line
    assert contents(site) == before


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_library_raises_an_error_of_ours(case: Case, site: str) -> None:
    before = contents(site)
    with pytest.raises(case.error) as raised:
        case.library(site)
    missing = [word for word in case.words if word not in str(raised.value)]
    assert missing == [], str(raised.value)
    assert contents(site) == before


def test_a_temporary_table_is_refused(site: str, complaint: Callable[..., str]) -> None:
    with psycopg.connect(site, autocommit=True) as connection:
        connection.execute("create temporary table passing (id int primary key, contents text)")
        row = connection.execute(
            "select nspname from pg_namespace where oid = pg_my_temp_schema()"
        ).fetchone()
        assert row is not None
        before = contents(site)
        line = complaint("install", f"{row[0]}.passing", *OPTIONS, "--url", site)
        assert "passing is a temporary table" in line
        with pytest.raises(errors.SourceError, match="temporary table"):
            install("passing", schema_name=row[0])(site)
        assert contents(site) == before


@pytest.mark.parametrize(
    "case",
    [
        case
        for case in CASES
        if case.arguments[:1] == ("install",)
        and "blog" not in case.arguments
        and case.error in (errors.SourceError, errors.AlreadyInstalled)
    ],
    ids=lambda case: case.name,
)
def test_a_failing_first_install_leaves_nothing(case: Case, vectorizer_url: str) -> None:
    with psycopg.connect(vectorizer_url) as connection:
        connection.execute(TABLES)
    before = contents(vectorizer_url)
    with pytest.raises(case.error):
        case.library(vectorizer_url)
    assert contents(vectorizer_url) == before


@pytest.mark.parametrize(
    "arguments",
    [("run",), ("status",), ("search", "blog", "cats"), ("uninstall", "blog")],
    ids=lambda arguments: arguments[0],
)
def test_nothing_is_installed_yet(
    arguments: tuple[str, ...], vectorizer_url: str, complaint: Callable[..., str]
) -> None:
    before = contents(vectorizer_url)
    line = complaint(*arguments, "--url", vectorizer_url)
    assert "no vectorizer is installed in this database" in line
    assert "run: vectorizer install TABLE" in line
    assert contents(vectorizer_url) == before


def test_an_unreachable_server(complaint: Callable[..., str]) -> None:
    url = f"postgresql://reader:{SECRET}@127.0.0.1:1/blog"
    line = complaint("run", "--url", url)
    assert "cannot connect to database blog at 127.0.0.1:1" in line
    assert "check host, port, user and password" in line
    with pytest.raises(errors.DatabaseUnavailable, match="cannot connect") as raised:
        install()(url)
    assert SECRET not in str(raised.value)


def test_a_socket_that_is_not_there(complaint: Callable[..., str], tmp_path: Path) -> None:
    url = f"postgresql:///blog?host={quote(str(tmp_path), safe='')}"
    line = complaint("install", "blog", *OPTIONS, "--url", url)
    assert f"cannot connect to database blog at {tmp_path}" in line


def test_a_database_that_does_not_exist(site: str, complaint: Callable[..., str]) -> None:
    url = psycopg.conninfo.make_conninfo(site, dbname="nowhere")
    line = complaint("status", "--url", url)
    assert "cannot connect to database nowhere" in line
    assert '"nowhere" does not exist' in line


@pytest.mark.parametrize("url", MALFORMED)
def test_a_malformed_url(url: str, complaint: Callable[..., str]) -> None:
    assert "the given database URL is malformed" in complaint("status", "--url", url)


def test_a_port_that_is_no_number(complaint: Callable[..., str]) -> None:
    url = f"postgresql://reader:{SECRET}@localhost:port/blog"
    line = complaint("status", "--url", url)
    assert "cannot connect to database blog at localhost:port" in line
    assert "check host, port" in line


@pytest.mark.parametrize("url", MALFORMED)
def test_a_malformed_url_in_the_library(url: str) -> None:
    with pytest.raises(errors.DatabaseUnavailable) as raised:
        connect("blog")(url)
    assert SECRET not in str(raised.value)


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """URL, without user and password, of a server where the role `reader` needs a password."""
    folder = tmp_path_factory.mktemp("guarded")
    with embedded.start(folder, durable=False) as server:
        with psycopg.connect(server.url, autocommit=True) as connection:
            connection.execute("create role reader login password 'right'")
            (rules,) = connection.execute("show hba_file").fetchone() or ("",)
            Path(rules).write_text("local all reader scram-sha-256\nlocal all all trust\n")
            connection.execute("select pg_reload_conf()")
        yield server.url.partition("@")[2]


def test_a_wrong_password(guarded: str, complaint: Callable[..., str]) -> None:
    url = f"postgresql://reader:{SECRET}@{guarded}"
    line = complaint("status", "--url", url)
    assert "cannot connect to database postgres" in line
    assert 'password authentication failed for user "reader"' in line
    assert "check host, port, user and password" in line
    with pytest.raises(errors.DatabaseUnavailable, match="password authentication failed"):
        install()(url)
    # The right one gets as far as the question what is installed.
    assert "no vectorizer is installed" in complaint(
        "status", "--url", f"postgresql://reader:right@{guarded}"
    )


def test_a_missing_password(guarded: str, complaint: Callable[..., str]) -> None:
    line = complaint("status", "--url", f"postgresql://reader@{guarded}")
    assert "no password supplied" in line


def test_a_role_that_may_not_create_the_extension(vectorizer_server: str) -> None:
    with database(vectorizer_server) as url, psycopg.connect(url) as connection:
        role = f"plain_{os.urandom(4).hex()}"
        connection.execute(f"create role {role} login".encode())
        connection.commit()
        try:
            plain = psycopg.conninfo.make_conninfo(url, user=role)
            before = contents(url)
            with (
                client.Sync(plain, "records", 4) as store,
                pytest.raises(errors.ExtensionMissing, match="CREATE EXTENSION vector"),
            ):
                store.create_tables()
            assert contents(url) == before
        finally:
            connection.execute(f"drop role {role}".encode())
            connection.commit()


@pytest.fixture
def server_without_pgvector(tmp_path: Path) -> Iterator[str]:
    """URL of Debian's PostgreSQL 15, which has no pgvector, in a folder of its own."""
    if not (DEBIAN_PROGRAMS / "initdb").exists():
        pytest.skip("Debian's PostgreSQL 15 is not here: apt install postgresql-15")
    user = None
    home = tmp_path
    with ExitStack() as stack:
        if os.geteuid() == 0:
            user = "postgres"
            # pytest's folders are closed to other users.
            home = Path("/tmp") / f"vectorizer-{os.urandom(4).hex()}"  # noqa: S108 - made closed
            home.mkdir(mode=0o700)
            shutil.chown(home, user)
            stack.callback(shutil.rmtree, home)

        def run(program: str, *arguments: str) -> None:
            subprocess.run(
                [DEBIAN_PROGRAMS / program, "-D", home / "data", *arguments],
                check=True, user=user, cwd="/", stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            )  # fmt: skip

        run("initdb", "-U", "postgres", "--auth=trust", "--no-sync")
        options = f"-c listen_addresses= -c fsync=off -k {home}"
        run("pg_ctl", "start", "-w", "-l", str(home / "log"), "-o", options)
        stack.callback(run, "pg_ctl", "stop", "-w", "-m", "immediate")
        yield f"postgresql://postgres@/postgres?host={quote(str(home), safe='')}"


@pytest.mark.needs_apt
def test_the_extension_is_missing(
    server_without_pgvector: str, complaint: Callable[..., str]
) -> None:
    url = server_without_pgvector
    with psycopg.connect(url) as connection:
        connection.execute("create table blog (id int primary key, contents text)")
    with client.Sync(url, "records", 4) as store, pytest.raises(errors.ExtensionMissing):
        store.create_tables()
    before = contents(url)
    line = complaint("install", "blog", *OPTIONS, "--url", url)
    assert 'the extension "vector" (pgvector) is missing in database postgres' in line
    assert "CREATE EXTENSION vector" in line
    with pytest.raises(errors.ExtensionMissing, match="install pgvector"):
        install("blog")(url)
    assert contents(url) == before
