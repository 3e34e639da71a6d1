"""SIGTERM in the middle of a call to the model (fault 36): all batches go back at once."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
import pytest
from posts import check

from vectorizer import Vectorizer
from vectorizer.testing import FakeEmbedder

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

# Does not return from the second batch on, and says so.
_HANGING = """
import pathlib, threading
from vectorizer.testing import FakeEmbedder

class Hanging(FakeEmbedder):
    config = {"provider": "hanging_embedder:Hanging"}
    calls = 0

    def embed(self, texts):
        self.calls += 1
        if self.calls > 1:
            pathlib.Path(__file__).with_name("reached").touch()
            threading.Event().wait()
        return super().embed(texts)
"""


_LEASES = "select count(*) from vectorizer.lease"


class Healed(FakeEmbedder):
    config = {"provider": "hanging_embedder:Hanging"}  # noqa: RUF012 - as the protocol has it


@dataclass(frozen=True)
class Hanging:
    process: subprocess.Popen[str]
    connection: psycopg.Connection
    vectorizer: Vectorizer


@pytest.fixture
def hanging(
    vectorizer_url: str, tmp_path: Path, eventually: Callable[[Callable[[], object]], None]
) -> Iterator[Hanging]:
    """Start a `vectorizer run` that has done one batch of three; the model holds up the others."""
    (tmp_path / "hanging_embedder.py").write_text(_HANGING)
    with (
        psycopg.connect(vectorizer_url, autocommit=True) as connection,
        Vectorizer(
            vectorizer_url, "posts", embedder=Healed(), chunk_column="body", lease_seconds=600
        ) as vectorizer,
    ):
        connection.execute("create table posts (id int primary key, body text)")
        connection.execute("insert into posts select n, 'post ' || n from generate_series(1, 30) n")
        vectorizer.install()
        program = [sys.executable, "-m", "vectorizer.cli", "run", "--batch-size", "10"]
        embedded = "select count(*) from posts_embedding"
        path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
        environment = {**os.environ, "PYTHONPATH": path, "VECTORIZER_URL": vectorizer_url}
        with subprocess.Popen(
            program, env=environment, stderr=subprocess.PIPE, text=True
        ) as process:
            try:
                eventually((tmp_path / "reached").exists)
                # The last batch is claimed though the second one hangs.
                eventually(lambda: connection.execute(embedded).fetchone() == (10,))
                eventually(lambda: connection.execute(_LEASES).fetchone() == (2,))
                yield Hanging(process, connection, vectorizer)
            finally:
                process.kill()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_run_gives_its_batches_back(hanging: Hanging, number: signal.Signals) -> None:
    hanging.process.send_signal(number)
    _, errors = hanging.process.communicate(timeout=10)
    assert hanging.process.returncode == 130
    assert errors == "vectorizer: interrupted; nothing is lost, run it again\n"
    assert hanging.connection.execute(_LEASES).fetchone() == (0,)
    attempts = "select max(attempts), max(losses) from vectorizer.posts_row"
    assert hanging.connection.execute(attempts).fetchone() == (0, 0)
    # Ten are done; nobody waits ten minutes for the lease of the rest.
    assert hanging.vectorizer.run().embedded == 20
    check(hanging.connection, hanging.vectorizer)


def test_giving_back_does_not_wait_for_a_database_that_hangs(
    hanging: Hanging, vectorizer_url: str
) -> None:
    with psycopg.connect(vectorizer_url) as other:
        other.execute("select from vectorizer.lease for update")
        hanging.process.send_signal(signal.SIGTERM)
        _, errors = hanging.process.communicate(timeout=20)
    assert (hanging.process.returncode, "interrupted" in errors) == (130, True)
    assert hanging.connection.execute(_LEASES).fetchone() == (2,)


def test_a_second_signal_leaves_at_once(
    hanging: Hanging, vectorizer_url: str, eventually: Callable[[Callable[[], object]], None]
) -> None:
    waits = "select count(*) > 0 from pg_stat_activity where wait_event_type = 'Lock'"
    with psycopg.connect(vectorizer_url) as other:
        other.execute("select from vectorizer.lease for update")
        hanging.process.send_signal(signal.SIGTERM)
        eventually(lambda: hanging.connection.execute(waits).fetchone() == (True,))
        hanging.process.send_signal(signal.SIGTERM)
        _, errors = hanging.process.communicate(timeout=20)
    assert hanging.process.returncode == 128 + signal.SIGTERM
    assert errors == "vectorizer: interrupted again: leaving now; leases run out by themselves\n"
