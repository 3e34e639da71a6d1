"""The daemon as a process: signals, kills, and servers that go away (faults 14, 15)."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
from servers import crash

from vectorizer import Vectorizer, embedded
from vectorizer.testing import FakeEmbedder

REPOSITORY = Path(__file__).parents[2]
# Says that it was asked in a file, and answers when another file is there.
SLOW = """
import time
from pathlib import Path
from vectorizer.testing import FakeEmbedder

class Slow(FakeEmbedder):
    config = {"provider": "slow_embedder:Slow"}

    def embed(self, texts):
        here = Path(__file__).parent
        (here / "asked").touch()
        while not (here / "go").exists():
            time.sleep(0.01)
        return super().embed(texts)
"""

Eventually = Callable[[Callable[[], object]], None]


@contextmanager
def worker(url: str, *options: str, path: Path | None = None) -> Iterator[subprocess.Popen[str]]:
    program = [sys.executable, "-m", "vectorizer.cli", "worker", "--url", url, *options]
    paths = [str(folder) for folder in (path, REPOSITORY) if folder is not None]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    process = subprocess.Popen(program, stderr=subprocess.PIPE, text=True, env=environment)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def prepare(url: str, embedder: Any = None) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("create extension if not exists vector")
        connection.execute("create table post (id int primary key, body text)")
        connection.execute("insert into post select n, 'text ' || n from generate_series(1, 3) n")
    model = embedder or FakeEmbedder()
    with Vectorizer(url, "post", embedder=model, chunk_column="body") as vectorizer:
        vectorizer.install()


def ask(url: str, statement: str) -> Any:
    with psycopg.connect(url, autocommit=True) as connection:
        return (connection.execute(statement).fetchone() or (None,))[0]


def stored(url: str) -> int:
    return int(ask(url, "select count(*) from post_embedding"))


def test_sigterm_ends_it_well(vectorizer_url: str, eventually: Eventually) -> None:
    prepare(vectorizer_url)
    with worker(vectorizer_url) as process:
        eventually(lambda: stored(vectorizer_url) == 3)
        process.send_signal(signal.SIGTERM)
        _, said = process.communicate(timeout=20)
    assert process.returncode == 0, said
    assert "Traceback" not in said
    assert ask(vectorizer_url, "select count(*) from vectorizer.lease") == 0


@pytest.fixture
def slow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    (tmp_path / "slow_embedder.py").write_text(SLOW)
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    sys.modules.pop("slow_embedder", None)


def test_a_second_signal_ends_it_at_once_and_loses_nothing(
    vectorizer_url: str, slow: Path, eventually: Eventually
) -> None:
    from slow_embedder import Slow  # type: ignore[import-not-found]  # noqa: PLC0415

    prepare(vectorizer_url, Slow())
    with worker(vectorizer_url, path=slow) as process:
        eventually((slow / "asked").exists)
        process.send_signal(signal.SIGINT)
        assert process.stderr is not None
        while "stopping" not in process.stderr.readline():
            pass
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=20)
    assert process.returncode == 128 + signal.SIGINT, said
    assert "Traceback" not in said
    _pretend_its_leases_ran_out(vectorizer_url)
    (slow / "go").touch()
    with worker(vectorizer_url, path=slow):
        eventually(lambda: stored(vectorizer_url) == 3)


def test_a_model_that_does_not_answer_cannot_hold_it_up(
    vectorizer_url: str, slow: Path, eventually: Eventually
) -> None:
    from slow_embedder import Slow  # noqa: PLC0415

    prepare(vectorizer_url, Slow())
    with worker(vectorizer_url, "--grace-seconds", "0.1", path=slow) as process:
        eventually((slow / "asked").exists)
        process.send_signal(signal.SIGTERM)
        _, said = process.communicate(timeout=20)
    assert process.returncode == 0, said
    assert ask(vectorizer_url, "select count(*) from vectorizer.lease") == 0
    assert ask(vectorizer_url, "select max(attempts + losses) from vectorizer.post_row") == 0


def _pretend_its_leases_ran_out(url: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("update vectorizer.lease set expires_at = now() - interval '1 hour'")


@pytest.mark.parametrize("how", ["stop", "crash"])
def test_it_outlives_restarts_of_the_server(
    tmp_path: Path, eventually: Eventually, how: str
) -> None:
    folder = tmp_path / "server"
    server = embedded.start(folder, durable=False)
    url = server.url
    try:
        prepare(url)
        with worker(url) as process:
            eventually(lambda: stored(url) == 3)
            for number in range(2):
                if how == "stop":
                    server.stop()
                    eventually(lambda: not list((folder / "data").glob(".s.PGSQL.*.lock")))
                else:
                    crash(folder)
                    server.close()
                assert process.stderr is not None
                while " WARNING database: " not in (line := process.stderr.readline()):
                    assert line, "it has ended"
                server = embedded.start(folder, durable=False)
                ask(url, f"insert into post values ({10 + number}, 'later') returning id")
                eventually(lambda number=number: stored(url) == 4 + number)
            process.send_signal(signal.SIGTERM)
            _, said = process.communicate(timeout=20)
        assert process.returncode == 0, said
        assert "works again" in said
        assert "Traceback" not in said
    finally:
        server.close(delete=True)
