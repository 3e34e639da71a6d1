"""Keys and passwords stay where they were given: not in the database, logs, metrics or errors."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import urllib.request
from contextlib import contextmanager
from typing import TYPE_CHECKING

import psycopg
import pytest
from openai_server import Server, fail, serve
from psycopg import sql
from psycopg.conninfo import make_conninfo
from test_cli import Cli, cli

from vectorizer import OpenAIEmbedder, Vectorizer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

__all__ = ["cli"]

KEY = "sk-geheim-4711"
PASSWORD = "geheim-0815"  # noqa: S105 - made up


@pytest.fixture
def server() -> Iterator[Server]:
    with serve(dimensions=8) as running:
        yield running


def everything(url: str) -> str:
    """Return all that our schema and the destination hold, as text."""
    tables = (
        "select oid::regclass::text from pg_class where relkind in ('r', 'v')"
        " and relnamespace in ('vectorizer'::regnamespace, 'public'::regnamespace)"
    )
    found = []
    with psycopg.connect(url) as connection:
        for (name,) in connection.execute(tables).fetchall():
            rows = connection.execute(sql.SQL("select t::text from {} t").format(sql.SQL(name)))
            found += [name, *(row for (row,) in rows)]
        found += [body for (body,) in connection.execute("select prosrc from pg_proc")]
    return "\n".join(found)


@contextmanager
def worker(url: str, log: Path) -> Iterator[None]:
    options = ["--verbose", "--json", "--metrics-port", "0"]
    program = [sys.executable, "-m", "vectorizer.cli", "worker", *options]
    environment = {**os.environ, "VECTORIZER_URL": url, "OPENAI_API_KEY": KEY}
    with log.open("w") as file, subprocess.Popen(program, env=environment, stderr=file) as process:
        try:
            yield
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(30)


@pytest.mark.parametrize("status", [200, 401, 400, 500])
def test_secrets_are_nowhere(
    vectorizer_url: str,
    server: Server,
    tmp_path: Path,
    eventually: Callable[[Callable[[], object]], None],
    cli: Cli,
    monkeypatch: pytest.MonkeyPatch,
    status: int,
) -> None:
    if status != 200:
        server.script(then=fail(status, f"Incorrect API key provided: {KEY}"))
    url = make_conninfo(vectorizer_url, password=PASSWORD)
    log = tmp_path / "log"
    with psycopg.connect(vectorizer_url, autocommit=True) as db:
        db.execute("create table post (id int primary key, body text)")
        db.execute("insert into post values (1, 'a text')")
        embedder = OpenAIEmbedder("test", dimensions=8, base_url=server.url, api_key=KEY)
        with Vectorizer(url, "post", embedder=embedder, chunk_column="body") as vectorizer:
            vectorizer.install()
        pages = ""
        with worker(url, log):
            eventually(lambda: server.requests)
            eventually(lambda: "metrics on" in log.read_text())
            port = log.read_text().partition("http://127.0.0.1:")[2].partition("/")[0]
            for page in ("metrics", "healthz", "readyz"):
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/{page}") as answer:
                    pages += answer.read().decode()
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    commands = ["status", "config show", "config show post", "dead-letters", "verify"]
    if status != 500:  # which is tried again for long
        commands += ["run", "doctor", "search post text"]
    monkeypatch.setenv("VECTORIZER_URL", url)
    done = [cli(*command.split()) for command in commands]
    said = "".join(one.out + one.err for one in done)
    assert "debug" in {json.loads(line)["level"] for line in log.read_text().splitlines()}
    texts = {"log": log.read_text(), "pages": pages, "commands": said, "tables": everything(url)}
    assert all(texts.values())
    for where, text in texts.items():
        for secret in (KEY, PASSWORD):
            assert secret not in text, f"{secret} is in the {where}: {text}"
