"""SIGTERM in the middle of a call to the model (fault 36): all batches go back at once."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
import pytest
from posts import check

from vectorizer import Vectorizer
from vectorizer.testing import FakeEmbedder

if TYPE_CHECKING:
    from collections.abc import Callable

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


class Healed(FakeEmbedder):
    config = {"provider": "hanging_embedder:Hanging"}  # noqa: RUF012 - as the protocol has it


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_run_gives_its_batches_back(
    vectorizer_url: str,
    tmp_path: Path,
    eventually: Callable[[Callable[[], object]], None],
    number: signal.Signals,
) -> None:
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
        leases = "select count(*) from vectorizer.lease"
        path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
        environment = {**os.environ, "PYTHONPATH": path, "VECTORIZER_URL": vectorizer_url}
        with subprocess.Popen(
            program, env=environment, stderr=subprocess.PIPE, text=True
        ) as process:
            eventually((tmp_path / "reached").exists)
            # One batch is done; the others hang, the last one though it was claimed meanwhile.
            eventually(lambda: connection.execute(embedded).fetchone() == (10,))
            eventually(lambda: connection.execute(leases).fetchone() == (2,))
            process.send_signal(number)
            _, errors = process.communicate(timeout=10)
        assert process.returncode == 130
        assert errors == "vectorizer: interrupted; nothing is lost, run it again\n"
        assert connection.execute(leases).fetchone() == (0,)
        attempts = "select max(attempts), max(losses) from vectorizer.posts_row"
        assert connection.execute(attempts).fetchone() == (0, 0)
        # Ten are done; nobody waits ten minutes for the lease of the rest.
        assert vectorizer.run().embedded == 20
        check(connection, vectorizer)
