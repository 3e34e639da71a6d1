"""Every command against a real database: what it prints, its JSON, its exit code."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psycopg
import pytest

from vectorizer import embedded
from vectorizer._sync.database import Database
from vectorizer._sync.schema import Schema
from vectorizer.cli import app, main

REPOSITORY = Path(__file__).parents[2]
COMMANDS = [command.name for command in app.registered_commands]
INSTALL = ("--chunk-column", "contents", "--embedder", "fake", "--dimensions", "16")
# Refuses some texts, as a provider's filter would.
PICKY = """
from vectorizer.testing import FakeEmbedder

class Picky(FakeEmbedder):
    config = {"provider": "picky_embedder:Picky"}

    def embed(self, texts):
        if any("poison" in text for text in texts):
            raise ValueError("this text is refused")
        return super().embed(texts)
"""

# Goes away after one answer.
ONE_ANSWER = """
from vectorizer.errors import EmbedderUnavailable
from vectorizer.testing import FakeEmbedder

class OneAnswer(FakeEmbedder):
    config = {"provider": "failing_embedder:OneAnswer"}

    def embed(self, texts):
        if self.calls:
            raise EmbedderUnavailable("nobody is there")
        return super().embed(texts)
"""


@dataclass
class Done:
    code: int | str | None
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


Cli = Callable[..., Done]


@pytest.fixture
def cli(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Cli:
    """Run the command line in this process, from its arguments to its exit code."""
    for name in ("VECTORIZER_URL", "DATABASE_URL"):
        monkeypatch.delenv(name, raising=False)

    def call(*arguments: str) -> Done:
        monkeypatch.setattr(sys, "argv", ["vectorizer", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        return Done(ended.value.code, *capsys.readouterr())

    return call


@pytest.fixture
def blog(vectorizer_url: str) -> str:
    """URL of a database with a table `blog` of three posts, one of them unpublished."""
    with psycopg.connect(vectorizer_url) as connection:
        connection.execute(
            "create table blog (id serial primary key, title text, category text, contents text,"
            " published_time timestamptz)"
        )
        connection.execute(
            "insert into blog (title, category, contents, published_time) values"
            " ('Cats', 'Pets', 'a cat sleeps on the radiator', '2024-03-01'),"
            " ('Indexes', 'Databases', 'an index [makes] reads quick', '2025-07-02'),"
            " ('Draft', 'Pets', 'not yet published', null)"
        )
    return vectorizer_url


@pytest.fixture
def installed(blog: str, cli: Cli) -> str:
    """URL of that database with a vectorizer on it."""
    options = ("--metadata", "title, category", "--time-column", "published_time")
    assert cli("install", "blog", *INSTALL, *options, "--url", blog).code == 0
    return blog


def execute(url: str, statement: str) -> list[tuple[Any, ...]]:
    with psycopg.connect(url) as connection:
        cursor = connection.execute(statement.encode())
        return cursor.fetchall() if cursor.description else []


def test_version(cli: Cli) -> None:
    done = cli("--version")
    assert (done.code, done.out) == (0, f"vectorizer {version('pg-vectorizer')}\n")


def test_help_lists_the_commands(cli: Cli) -> None:
    done = cli("--help")
    assert done.code == 0
    assert all(f" {command} " in done.out for command in COMMANDS)
    assert cli() == done
    assert cli("-h") == done


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_a_command_has_an_example(cli: Cli, command: str) -> None:
    done = cli(command, "--help")
    assert (done.code, done.err) == (0, "")
    assert f"Example: vectorizer {command}" in done.out


def test_quiet_and_verbose_stand_before_or_after_the_command(cli: Cli, installed: str) -> None:
    assert cli("--quiet", "pause", "blog", "--url", installed).out == ""
    assert cli("resume", "blog", "--quiet", "--url", installed).out == ""
    assert cli("resume", "blog", "--url", installed).out == "Vectorizer blog goes on.\n"
    assert "there is no vectorizer '--quiet'" in cli("run", "--url", installed, "--", "--quiet").err


@pytest.mark.parametrize("command", [*COMMANDS, "config check", "config show"])
def test_every_command_has_json_and_a_dry_run(cli: Cli, command: str) -> None:
    words = cli(*command.split(), "--help").out.split()
    assert ("--json" in words) == (command != "sql")  # which prints SQL
    changes_nothing = command in (
        "demo", "init", "plan", "run", "worker", "status", "doctor", "search", "dead-letters",
        "wait", "sql", "config check", "config show",
    )  # fmt: skip
    assert ("--dry-run" in words) == (not changes_nothing)


def test_install_says_what_comes_next(cli: Cli, blog: str) -> None:
    done = cli("install", "blog", *INSTALL, "--url", blog)
    assert (done.code, done.err) == (0, "")
    assert done.out == (
        "Vectorizer blog is installed on blog; embeddings go to blog_embedding.\n"
        "Embed what is there: vectorizer run blog\n"
    )


def test_installing_again_changes_nothing(cli: Cli, blog: str) -> None:
    options = ("install", "blog", *INSTALL, "--partition-interval", "30d", "--url", blog)
    assert cli(*options).code == 0
    registry = "select * from vectorizer.vectorizer, vectorizer.progress"
    before = execute(blog, registry)
    assert cli(*options).code == 0
    assert execute(blog, registry) == before


def test_install_takes_every_option(cli: Cli, blog: str) -> None:
    execute(blog, "create schema shop; alter table blog set schema shop")
    done = cli(
        "install", "shop.blog", *INSTALL,
        "--template", "{title}: {chunk}", "--metadata", "category", "--time-column",
        "published_time", "--partition-interval", "4w", "--retention", "5200w",
        "--destination", "public.found",
        "--name", "posts", "--model", "other", "--chunk-size", "10,20", "--chunk-overlap", "5",
        "--url", blog,
    )  # fmt: skip
    assert done.code == 0, done.err
    ((definition,),) = execute(blog, "select definition from vectorizer.vectorizer")
    assert definition == {
        "chunk_column": "contents",
        "template": "{title}: {chunk}",
        "metadata": ["category"],
        "time_column": "published_time",
        "partition_interval": "2419200 seconds",
        "retention": "3144960000 seconds",
        "destination": "public.found",
        "embedder": {"provider": "fake", "dimensions": 16, "model": "other"},
        "model": "other",
        "dimensions": 16,
        "chunk_size": [10, 20],
        "chunk_overlap": 5,
    }
    assert cli("run", "posts", "--url", blog).code == 0
    assert execute(blog, "select count(distinct source_id) from found") == [(2,)]


def test_run_prints_counts(cli: Cli, installed: str) -> None:
    done = cli("run", "--url", installed)
    assert (done.code, done.err) == (0, "")
    assert done.out == "blog: 3 rows; chunks: 2 embedded, 0 kept, 0 deleted\n"
    again = cli("run", "blog", "--batch-size", "1", "--url", installed)
    assert again.out == "blog: 0 rows; chunks: 0 embedded, 0 kept, 0 deleted\n"


def test_run_prints_json(cli: Cli, installed: str) -> None:
    done = cli("run", "--json", "--url", installed)
    assert (done.code, done.err) == (0, "")
    told = done.json
    assert told["blog"].pop("tokens") > 0
    assert told == {
        "blog": {
            "rows": 3, "embedded": 2, "kept": 0, "deleted": 0, "failed": 0, "dead_letters": 0,
            "requests": 1, "texts": 2,
        }
    }  # fmt: skip


def test_run_takes_the_url_from_the_environment(
    cli: Cli, installed: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql://nobody@127.0.0.1:1/nowhere")
    monkeypatch.setenv("VECTORIZER_URL", installed)
    done = cli("run")
    assert (done.code, done.err) == (0, "")


def test_run_exits_1_when_a_dead_letter_is_left(
    cli: Cli, blog: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "picky_embedder.py").write_text(PICKY)
    monkeypatch.syspath_prepend(tmp_path)
    execute(blog, "update blog set contents = 'poison' where title = 'Cats'")
    done = cli("install", "blog", "--chunk-column", "contents",
               "--embedder", "picky_embedder:Picky", "--url", blog)  # fmt: skip
    assert done.code == 0, done.err
    done = cli("run", "--url", blog)
    assert done.code == 0
    assert "2 embedded" in done.out
    assert "; 1 rows failed, see: vectorizer status blog" in done.out
    (warning,) = cli("status", "--json", "--url", blog).json[0]["warnings"]
    assert warning.startswith('a row failed and waits for another attempt, {"id": 1}: ')
    assert "this text is refused" in warning
    for _ in range(4):
        assert cli("status", "--json", "--url", blog).json[0]["retrying"] == 1
        execute(blog, "update vectorizer.blog_row set available_at = now() where error is not null")
        done = cli("run", "--url", blog)
    assert (done.code, done.err) == (1, "")
    assert done.out.endswith("; 1 dead letters\n")
    assert cli("run", "--json", "--url", blog).json["blog"]["dead_letters"] == 1
    ((error,),) = execute(blog, "select error from vectorizer.dead_letters")
    assert "this text is refused" in error


def test_status_tells_what_a_run_could_not_serve_until_one_can(
    cli: Cli, installed: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    execute(
        installed,
        """update vectorizer.vectorizer
        set definition = jsonb_set(definition, '{embedder,provider}', '"late_model:Model"')""",
    )
    done = cli("run", "--url", installed)
    assert (done.code, "No module named 'late_model'" in done.err) == (2, True)
    shown = cli("status", "--url", installed).out
    assert "a worker could not serve it at" in shown
    (warning,) = cli("status", "--json", "--url", installed).json[0]["warnings"]
    assert "cannot load embedder 'late_model:Model'" in warning
    assert "could not serve it" in cli("doctor", "--no-models", "--url", installed).out
    assert unserved(installed) == {("blog", 1): True}
    (tmp_path / "late_model.py").write_text("from vectorizer.testing import FakeEmbedder as Model")
    monkeypatch.syspath_prepend(tmp_path)
    assert cli("run", "--url", installed).code == 0
    assert cli("status", "--json", "--url", installed).json[0]["warnings"] == []
    assert unserved(installed) == {("blog", 1): False}


def unserved(url: str) -> dict[tuple[str, int], Any]:
    """Return what metrics say of each generation."""
    with Database(url) as database:
        return {one: told["unserved"] for one, told in Schema(database).extras().items()}


def test_run_leaves_to_the_next_what_it_may_not_send(cli: Cli, installed: str) -> None:
    left = cli("run", "--max-tokens", "1", "--url", installed)
    assert (left.code, left.err) == (0, "")
    assert left.out == (
        "blog: 3 rows; chunks: 0 embedded, 0 kept, 0 deleted; the tokens of --max-tokens are sent, "
        "and the rest waits for the next run\n"
    )
    some = cli("run", "--json", "--max-tokens", "12", "--url", installed)
    assert some.code == 0
    assert (some.json["blog"]["embedded"], some.json["blog"]["tokens"]) == (1, 10)
    assert cli("run", "--json", "--url", installed).json["blog"]["embedded"] == 1


def test_run_tells_what_was_done_before_an_error(
    cli: Cli, blog: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "failing_embedder.py").write_text(ONE_ANSWER)
    monkeypatch.syspath_prepend(tmp_path)
    assert cli("install", "blog", "--chunk-column", "contents",
               "--embedder", "failing_embedder:OneAnswer", "--url", blog).code == 0  # fmt: skip
    run = ("run", "--batch-size", "1", "--concurrency", "1", "--url", blog)
    done = cli(*run)
    assert (done.code, "nobody is there" in done.err) == (1, True)
    assert done.out == "blog: 1 rows; chunks: 1 embedded, 0 kept, 0 deleted\n"
    again = cli(*run, "--json").json["blog"]
    assert (again["embedded"], "nobody is there" in again["error"]) == (1, True)


def test_run_exits_1_when_paused_and_serves_the_others(cli: Cli, installed: str) -> None:
    assert cli("install", "blog", *INSTALL, "--name", "second", "--destination", "other",
               "--url", installed).code == 0  # fmt: skip
    execute(
        installed,
        "update vectorizer.vectorizer set paused_at = now(), paused_reason = 'the key expired'"
        " where name = 'blog'",
    )
    done = cli("run", "--url", installed)
    assert done.code == 1
    assert done.err.splitlines() == ["vectorizer: vectorizer blog is paused: the key expired"]
    assert done.out == "second: 3 rows; chunks: 3 embedded, 0 kept, 0 deleted\n"
    done = cli("run", "--json", "--url", installed)
    assert done.code == 1
    assert "the key expired" in done.json["blog"]["error"]
    assert "paused" in cli("status", "--url", installed).out


def test_status_before_and_after(cli: Cli, installed: str) -> None:
    before = cli("status", "--json", "--url", installed).json[0]
    assert (before["state"], before["backfill_claimed"], before["embeddings"]) == (
        "backfilling", 0, 0
    )  # fmt: skip
    cli("run", "--url", installed)
    execute(installed, "update blog set contents = 'another text' where title = 'Cats'")
    after = cli("status", "blog", "--json", "--url", installed).json[0]
    assert (after["state"], after["backfill_claimed"], after["embeddings"]) == ("live", 3, 2)
    assert (after["waiting"], after["in_flight"], after["retrying"], after["dead_letters"]) == (
        1, 0, 0, 0
    )  # fmt: skip
    assert after["oldest_change"] is not None
    done = cli("status", "--url", installed)
    assert (done.code, done.err) == (0, "")
    shown = {tuple(line.split("  ", 1)) for line in done.out.splitlines()}
    lines = {first.strip(): second[0].strip() for first, *second in shown if second}
    assert lines["source"] == "blog"
    assert lines["destination"] == "blog_embedding (fake)"
    assert lines["embeddings"] == "2"
    assert lines["waiting changes"].startswith("1, the oldest for ")
    assert lines["in flight"] == "0 rows"
    assert lines["dead letters"] == "0 rows"
    assert lines["backfill"] == "3 rows, done"


def test_status_of_several(cli: Cli, installed: str) -> None:
    cli("install", "blog", *INSTALL, "--name", "second", "--destination", "other",
        "--url", installed)  # fmt: skip
    names = [row["name"] for row in cli("status", "--json", "--url", installed).json]
    assert names == ["blog", "second"]
    only = cli("status", "second", "--json", "--url", installed).json
    assert [row["name"] for row in only] == ["second"]


def test_search_prints_hits(cli: Cli, installed: str) -> None:
    cli("run", "--url", installed)
    done = cli("search", "blog", "index makes reads quick", "--limit", "1", "--url", installed)
    assert (done.code, done.err) == (0, "")
    first, second = done.out.splitlines()
    assert first.split()[1:] == ["id=2", "2025-07-02"]
    assert 0.5 < float(first.split()[0]) <= 1
    assert second.strip() == "an index [makes] reads quick"


def test_search_prints_json(cli: Cli, installed: str) -> None:
    cli("run", "--url", installed)
    (hit,) = cli("search", "blog", "cat", "--filter", "category=Pets", "--json",
                 "--url", installed).json  # fmt: skip
    assert hit["key"] == {"id": 1}
    assert hit["metadata"] == {"title": "Cats", "category": "Pets"}
    assert hit["contents"] == "a cat sleeps on the radiator"
    assert hit["time"].startswith("2024-03-01")
    assert hit["score"] == pytest.approx(1 - hit["distance"])


def test_search_that_finds_nothing(cli: Cli, installed: str) -> None:
    nothing = ("search", "blog", "cat", "--filter", "category=None", "--url", installed)
    done = cli(*nothing)
    assert (done.code, done.out) == (0, "Nothing found.\n")
    assert cli(*nothing, "--json").json == []


def test_uninstall_keeps_the_embeddings(cli: Cli, installed: str) -> None:
    cli("run", "--url", installed)
    done = cli("uninstall", "blog", "--url", installed)
    assert (done.code, done.err) == (0, "")
    assert done.out.startswith("Vectorizer blog is uninstalled; its embeddings are kept")
    assert execute(installed, "select count(*) from blog_embedding") == [(2,)]
    triggers = "select count(*) from pg_trigger where tgrelid = 'blog'::regclass"
    assert execute(installed, triggers) == [(0,)]


def test_uninstall_drops_the_embeddings(cli: Cli, installed: str) -> None:
    done = cli("uninstall", "blog", "--drop-embeddings", "--url", installed)
    assert (done.code, done.err) == (0, "")
    assert "dropped" in done.out
    assert execute(installed, "select to_regclass('blog_embedding')") == [(None,)]


def test_long_paths_and_queries_are_not_wrapped(cli: Cli, installed: str) -> None:
    execute(installed, "insert into blog values (9, 't', 'c', repeat('a word ', 30), now())")
    cli("run", "--url", installed)
    done = cli("search", "blog", "word", "--limit", "1", "--url", installed)
    assert len(done.out.splitlines()) == 2
    assert done.out.endswith(" …\n")


def test_without_a_url_the_embedded_database_is_used(tmp_path: Path) -> None:
    inherited = {name: value for name, value in os.environ.items() if not name.endswith("_URL")}
    environment = {**inherited, "VECTORIZER_HOME": str(tmp_path), "PYTHONPATH": str(REPOSITORY)}

    def vectorizer(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "vectorizer.cli", *arguments],
            env=environment, capture_output=True, text=True, check=False,
        )  # fmt: skip

    folder = tmp_path / "postgres"
    says_so = f"No --url, VECTORIZER_URL or DATABASE_URL: using the embedded database in {folder}\n"
    with embedded.start(folder, durable=False) as server:
        execute(server.url, "create table blog (id int primary key, contents text)")
        execute(server.url, "insert into blog values (1, 'a cat')")
        done = vectorizer("install", "blog", *INSTALL)
        assert (done.returncode, done.stderr) == (0, says_so)
        done = vectorizer("run", "--json")
        assert (done.returncode, done.stderr) == (0, says_so)
        assert json.loads(done.stdout)["blog"]["embedded"] == 1
    assert not embedded.is_running(folder)
    # Now the command itself starts the server, and stops it as its last user.
    done = vectorizer("search", "blog", "cat")
    assert (done.returncode, done.stderr) == (0, says_so)
    assert "a cat" in done.stdout
    assert not embedded.is_running(folder)


def test_status_shows_warnings_and_collapse_takes_one_away(cli: Cli, installed: str) -> None:
    cli("run", "--url", installed)
    execute(
        installed,
        "do $$ begin for n in 1..1000 loop update blog set contents = n::text; end loop;"
        " execute format('alter database %I set vectorizer.warn_log_size = %L',"
        " current_database(), '64kB'); end $$",
    )
    assert "warning" in cli("status", "--url", installed).out
    (status,) = cli("status", "--json", "--url", installed).json
    assert (status["waiting"], len(status["warnings"])) == (3000, 1)
    done = cli("collapse", "blog", "--url", installed)
    assert (done.code, done.err) == (0, "")
    assert done.out == "2,997 entries of the change log of blog went; 3 are left.\n"
    assert cli("collapse", "blog", "--json", "--url", installed).json == {
        "removed": 0,
        "waiting": 3,
    }
    with psycopg.connect(installed, autocommit=True) as connection:
        connection.execute("vacuum (truncate) vectorizer.blog_log")
    assert cli("status", "--json", "--url", installed).json[0]["warnings"] == []


def test_status_says_how_long_the_backfill_will_take(cli: Cli, installed: str) -> None:
    execute(
        installed,
        "update vectorizer.progress set backfill_claimed = 1, backfill_total = 61,"
        " backfill_started_at = now() - interval '61 seconds'",
    )
    assert "1 rows, of about 61, about 1:0" in cli("status", "--url", installed).out


def test_plan_change_and_switch(cli: Cli, blog: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VECTORIZER_URL", blog)
    plan = cli("plan", "blog", *INSTALL, "--price", "2", "--requests-per-minute", "60", "--json")
    assert (plan.json["action"], plan.json["texts_to_send"], plan.json["seconds"]) == (
        "install", 3, 1.0,
    )  # fmt: skip
    assert cli("install", "blog", *INSTALL).code == 0
    assert cli("run").code == 0
    assert cli("plan", "blog", "--json").json["texts_to_send"] == 0
    changed = (*INSTALL, "--template", "{title}: {chunk}", "--cache")
    shown = cli("plan", "blog", *changed).out
    assert "a new generation would be made" in shown
    assert re.search(r'template +null -> "{title}: {chunk}"', shown)
    assert "3 texts" in shown
    refused = cli("install", "blog", *changed)
    assert (refused.code, "with --change (in SQL: change => true)" in refused.err) == (2, True)
    asked = cli("install", "blog", *changed, "--change")
    assert (asked.code, "say --yes" in asked.err) == (2, True)
    done = cli("install", "blog", *changed, "--change", "--yes")
    assert (done.code, "gets a new generation" in done.out) == (0, True)
    assert "blog, generation 2: building" in cli("status").out
    early = cli("switch", "blog")
    assert (early.code, "has not caught up: its backfill" in early.err) == (1, True)
    assert cli("run").code == 0
    assert "blog, generation 2: live" in cli("status").out
    back = cli("switch", "blog", "1").out
    assert "Readers of blog see generation 1 now." in back
    assert "drop-generation blog 2" in back
    assert cli("switch", "blog", "--json").json == {"serving": 2, "kept": [1]}
    assert cli("drop-generation", "blog", "2").code == 2
    assert cli("drop-generation", "blog", "1").out == "Generation 1 of blog is dropped.\n"
    assert cli("verify").code == 0
