"""The commands around the configuration, and the SQL that the others would run."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, fields
from datetime import timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest

from vectorizer.cli import main
from vectorizer.config import load
from vectorizer.worker import WorkerOptions

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

REPOSITORY = Path(__file__).parents[2]

COLUMNS = (
    "create table blog (id int primary key, title text, author text, contents text, "
    "published_at timestamptz)"
)


@dataclass
class Done:
    code: Any
    out: str
    err: str


Cli = Callable[..., Done]


@pytest.fixture
def cli(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Cli:
    """Run the command line in a folder of its own."""
    for name in ("VECTORIZER_URL", "DATABASE_URL", "VECTORIZER_CONFIG"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)

    def call(*arguments: str) -> Done:
        monkeypatch.setattr(sys, "argv", ["vectorizer", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        captured = capsys.readouterr()
        return Done(ended.value.code, captured.out, captured.err)

    return call


@pytest.fixture
def blog(vectorizer_url: str) -> str:
    with psycopg.connect(vectorizer_url) as connection:
        connection.execute(COLUMNS)
        connection.execute(
            "insert into blog values (1, 'Cats', 'Ada', repeat('long text ', 50), now())"
        )
    return vectorizer_url


def ask(url: str, statement: str) -> Any:
    with psycopg.connect(url, autocommit=True) as connection:
        return (connection.execute(statement).fetchone() or (None,))[0]


def test_from_init_to_an_installed_vectorizer_and_back(cli: Cli, blog: str, tmp_path: Path) -> None:
    done = cli("init", "blog", "--embedder", "fake", "--url", blog)
    assert done.code == 0, done.err
    text = (tmp_path / "vectorizer.toml").read_text()
    assert 'template = "{title}: {chunk}"' in text
    assert "# concurrency = 4" in text
    assert cli("config", "check").out.startswith("vectorizer.toml: ok")
    (tmp_path / "vectorizer.toml").write_text(f'[database]\nurl = "{blog}"\n' + text.replace(
        "[database]", ""))  # fmt: skip
    done = cli("install")
    assert done.code == 0, done.err
    assert ask(blog, "select definition ->> 'time_column' from vectorizer.vectorizer") == (
        "published_at"
    )
    assert cli("run").code == 0
    assert ask(blog, "select contents from blog_embedding").startswith("Cats: long text")
    # What is installed, as TOML, installs the same again.
    shown = cli("config", "show", "blog").out
    (tmp_path / "again.toml").write_text(shown)
    before = ask(blog, "select definition from vectorizer.vectorizer")
    assert cli("--config", "again.toml", "install", "--url", blog).code == 0
    assert ask(blog, "select definition from vectorizer.vectorizer") == before
    assert json.loads(cli("config", "show", "blog", "--json").out)["vectorizers"]["blog"][
        "metadata"
    ] == ["author"]


def test_init_does_not_replace_a_file_or_take_a_column_that_is_not_there(
    cli: Cli, blog: str, tmp_path: Path
) -> None:
    done = cli("init", "blog", "--chunk-column", "body", "--url", blog)
    assert (done.code, "no column body" in done.err) == (2, True)
    assert not (tmp_path / "vectorizer.toml").exists()
    assert cli("init", "blog", "--url", blog).code == 0
    done = cli("init", "blog", "--url", blog)
    assert (done.code, "--force" in done.err) == (2, True)
    assert cli("init", "blog", "--url", blog, "--force").code == 0
    assert cli("init", "nothing", "--url", blog, "--force").code == 2


def test_init_takes_the_options_of_install(cli: Cli, blog: str, tmp_path: Path) -> None:
    options = ("--embedder", "openai", "--model", "mine", "--dimensions", "3", "--name", "b")
    more = ("--chunk-size", "10,20", "--key", "id", "--cache")
    done = cli("init", "blog", *options, *more, "--url", blog)
    assert done.code == 0, done.err
    section = load(tmp_path / "vectorizer.toml", {}, {}).config.vectorizers["b"]
    assert section.embedder == {"provider": "openai", "model": "mine", "dimensions": 3}
    assert (section.chunk_size, section.key, section.cache) == ((10, 20), ("id",), True)


def test_what_init_comments_out_may_be_used(cli: Cli, blog: str, tmp_path: Path) -> None:
    assert cli("init", "blog", "--url", blog).code == 0
    file = tmp_path / "vectorizer.toml"
    file.write_text(re.sub(r"^# (?=\w+ = )", "", file.read_text(), flags=re.MULTILINE))
    config = load(file, {}, {}).config
    assert config.vectorizers["blog"].retention == timedelta(weeks=520)
    assert config.vectorizers["blog"].embedder == {"provider": "minilm"}
    assert config.worker.schedules == {"blog": "*/5 * * * *"}
    given = tomllib.loads(file.read_text())["worker"]
    assert set(given) == {field.name for field in fields(WorkerOptions)}


def test_what_sends_nothing_needs_no_key(
    cli: Cli, blog: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    flags = ("--chunk-column", "contents", "--embedder", "openai")
    planned = cli("plan", "blog", *flags, "--url", blog)
    assert (planned.code, "at $0.02 a million tokens" in planned.out) == (0, True)
    assert "no API key" in cli("install", "blog", *flags, "--url", blog).err
    printed = cli("sql", "install", "blog", *flags)
    assert (printed.code, "not-needed" in printed.out) == (0, False)
    assert cli("migrate", "--url", blog).code == 0
    ask(blog, printed.out)
    assert cli("plan", "blog", "--url", blog).code == 0
    # All that the file defines.
    more = ("--name", "more", "--destination", "more")
    assert cli("init", "blog", *more, "--url", blog).code == 0
    done = cli("plan", "--json", "--url", blog)
    assert [plan["name"] for plan in json.loads(done.out)] == ["more"]


def test_an_embedder_in_the_working_folder_is_found(blog: str, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("def embed(texts):\n    return [[1.0, 2.0] for _ in texts]\n")
    program = tmp_path / "bin" / "vectorizer"
    program.parent.mkdir()
    program.write_text("from vectorizer.cli import main\nmain()\n")
    for command in (
        ("install", "blog", "--chunk-column", "contents", "--embedder", "mine:embed",
         "--model", "m"),
        ("run",),
    ):  # fmt: skip
        done = subprocess.run(
            [sys.executable, program, *command, "--url", blog],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
            check=False,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
    assert ask(blog, "select count(*) from blog_embedding") > 0


def test_flags_go_over_the_file_when_installing(cli: Cli, blog: str, tmp_path: Path) -> None:
    (tmp_path / "vectorizer.toml").write_text(
        '[vectorizers.blog]\ntable = "blog"\nchunk_column = "contents"\n'
        'metadata = ["author"]\nembedder = { provider = "fake" }\n'
        '[vectorizers.other]\ntable = "nothing"\nchunk_column = "contents"\n'
    )
    assert cli("install", "--name", "blog", "--metadata", "title", "--url", blog).code == 0
    assert ask(blog, "select definition -> 'metadata' from vectorizer.vectorizer") == ["title"]
    done = cli("install", "blog", "--url", blog)
    assert (done.code, "another definition" in done.err) == (2, True)
    assert cli("install", "blog", "--change", "--yes", "--url", blog).code == 0
    assert ask(blog, "select definition -> 'metadata' from vectorizer.vectorizer") == ["author"]
    assert cli("install", "--metadata", "title", "--url", blog).code == 2


def test_config_show_tells_sources_and_hides_the_password(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "vectorizer.toml").write_text(
        '[database]\nurl = "postgresql://me:secret@host/db"\n[worker]\nconcurrency = 7\n'
    )
    done = cli("config", "show")
    assert "secret" not in done.out
    assert "concurrency = 7 # vectorizer.toml" in done.out
    keys = json.loads(cli("config", "show", "--json").out)
    assert {"key": "worker.concurrency", "value": 7, "source": "vectorizer.toml"} in keys
    (tmp_path / "vectorizer.toml").write_text("[worker]\nconcurency = 7\n")
    done = cli("config", "check")
    assert (done.code, "did you mean concurrency?" in done.err) == (2, True)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("pause", "it's", "--reason", "a 'b' %s"), "pause('it''s', 'a ''b'' %s', false);"),
        (("suspend", "blog"), "suspend('blog');"),
        (("resume", "blog"), "resume('blog');"),
        (("uninstall", "blog", "--drop-embeddings"), "uninstall('blog', true);"),
        (("retry", "blog", "--all"), "retry('blog', NULL);"),
        (("grant", "worker", "shop"), "grant_role('worker', 'shop');"),
        (("collapse", "blog"), "collapse('blog');"),
        (("switch", "blog", "1"), "switch('blog', 1, false);"),
        (("drop-generation", "blog", "1"), "drop_generation('blog', 1);"),
    ],
)
def test_sql_prints_what_would_be_run_without_a_database(
    cli: Cli, arguments: tuple[str, ...], expected: str
) -> None:
    done = cli("sql", *arguments)
    assert (done.code, done.err) == (0, "")
    assert done.out == f'select "vectorizer".{expected}\n'
    if arguments[0] != "grant":  # this prints what the role lacks
        assert cli(*arguments, "--dry-run").out == done.out


def test_the_sql_of_a_migration_and_an_installation_does_the_same(cli: Cli, blog: str) -> None:
    script = cli("sql", "migrate")
    assert script.code == 0, script.err
    options = ("blog", "--chunk-column", "contents", "--embedder", "fake", "--metadata", "author")
    install = cli("sql", "install", *options)
    assert install.code == 0, install.err
    with psycopg.connect(blog, autocommit=True) as connection:
        connection.execute(script.out.encode())
        connection.execute(install.out.encode())
    before = ask(blog, "select definition from vectorizer.vectorizer")
    assert cli("install", *options, "--url", blog).code == 0
    assert ask(blog, "select definition from vectorizer.vectorizer") == before
    assert cli("migrate", "--url", blog).out == "The schema is up to date.\n"
    assert cli("run", "--url", blog).code == 0
    assert 'create table "vectorizer".vectorizer' in script.out
    assert cli("migrate", "--dry-run", "--url", blog).out == "-- The schema is up to date.\n"
    # Where only functions are missing, the dry run holds no more than them.
    ask(blog, "update vectorizer.migration set functions = 'older' returning 1")
    left = cli("migrate", "--dry-run", "--url", blog).out
    assert 'create table "vectorizer".vectorizer' not in left
    assert "create or replace function" in left
    with psycopg.connect(blog, autocommit=True) as connection:
        connection.execute(left.encode())
    assert cli("migrate", "--url", blog).out == "The schema is up to date.\n"


def test_a_migration_tool_keeps_its_transaction(cli: Cli, blog: str) -> None:
    script = cli("sql", "migrate", "--no-transaction").out
    assert not re.search(r"^(begin|commit);$", script, re.MULTILINE)
    with psycopg.connect(blog) as connection:
        connection.execute(script.encode())
        connection.rollback()
        assert connection.execute("select to_regnamespace('vectorizer')").fetchone() == (None,)
        told: list[str | None] = []
        connection.add_notice_handler(lambda notice: told.append(notice.message_primary))
        connection.execute(script.encode())
    assert told == []
    assert cli("migrate", "--url", blog).out == "The schema is up to date.\n"


def test_functions_tell_nothing_but_what_matters(cli: Cli, blog: str) -> None:
    flags = ("--chunk-column", "contents", "--embedder", "fake")
    assert cli("install", "blog", *flags, "--url", blog).code == 0
    commands = (
        ("suspend", "blog"), ("resume", "blog"), ("pause", "blog", "--discard"), ("resume", "blog"),
        ("uninstall", "blog"), ("install", "blog", *flags),
        ("uninstall", "blog", "--drop-embeddings"),
    )  # fmt: skip
    told: list[str | None] = []
    with psycopg.connect(blog, autocommit=True) as connection:
        connection.add_notice_handler(lambda notice: told.append(notice.message_primary))
        for command in commands:
            connection.execute(cli("sql", *command).out.encode())
    assert told == []


def test_what_a_repair_would_queue(cli: Cli, blog: str) -> None:
    flags = ("--chunk-column", "contents", "--embedder", "fake")
    assert cli("install", "blog", *flags, "--url", blog).code == 0
    assert cli("run", "--url", blog).code == 0
    ask(blog, "delete from blog_embedding_g1 returning 1")
    done = cli("verify", "--repair", "--dry-run", "--url", blog)
    assert (done.code, "1 keys would be queued: vectorizer verify blog --repair" in done.out) == (
        1, True,
    )  # fmt: skip
    assert json.loads(cli("status", "--json", "--url", blog).out)[0]["waiting"] == 0
    assert "1 keys are queued" in cli("verify", "--repair", "--url", blog).out
    assert json.loads(cli("status", "--json", "--url", blog).out)[0]["waiting"] == 1


def test_the_sql_of_a_retry_takes_keys_as_they_are_printed(cli: Cli, blog: str) -> None:
    flags = ("--chunk-column", "contents", "--embedder", "fake")
    assert cli("install", "blog", *flags, "--url", blog).code == 0
    assert cli("run", "--url", blog).code == 0
    ask(blog, "update vectorizer.blog_row set dead = true returning 1")
    assert ask(blog, cli("sql", "retry", "blog", '{"id": 7}').out) == 0
    assert ask(blog, cli("sql", "retry", "blog", '{"id": 1}').out) == 1
    done = cli("sql", "retry", "blog", "seven")
    assert (done.code, "as dead-letters prints it" in done.err) == (2, True)


def test_sql_of_a_command_that_changes_nothing_is_refused(cli: Cli) -> None:
    done = cli("sql", "status")
    assert (done.code, "choose one of: install" in done.err) == (2, True)


def test_commands_print_json(cli: Cli, blog: str) -> None:
    done = cli("install", "blog", "--chunk-column", "contents", "--embedder", "fake",
               "--url", blog, "--json")  # fmt: skip
    assert json.loads(done.out) == [
        {"name": "blog", "source": "blog", "destination": "blog_embedding"}
    ]
    for arguments in (
        ("pause", "blog"),
        ("resume", "blog"),
        ("suspend", "blog"),
        ("resume", "blog"),
        ("retry", "blog", "--all"),
        ("collapse", "blog"),
        ("migrate",),
        ("uninstall", "blog"),
    ):
        done = cli(*arguments, "--json", "--url", blog)
        assert done.code == 0, done.err
        assert isinstance(json.loads(done.out), dict)
