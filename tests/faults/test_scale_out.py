"""Eight daemons on one database, of which one in ten is killed every now and then."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import threading
from contextlib import contextmanager
from functools import partial
from signal import SIGKILL, SIGTERM
from typing import TYPE_CHECKING, Any

import psycopg
from posts import check
from waiting import until

from vectorizer import Vectorizer
from vectorizer.testing import FakeEmbedder

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

WORKERS = 8
ROWS = 2_000
ROUNDS = 12
# Slow enough that some batch is always with the model when its worker is killed.
_SLOW = """
import time
from vectorizer.testing import FakeEmbedder

class Slow(FakeEmbedder):
    config = {"provider": "slow_embedder:Slow"}

    def embed(self, texts):
        time.sleep(0.1)
        return super().embed(texts)
"""


class Prompt(FakeEmbedder):
    config = {"provider": "slow_embedder:Slow"}  # noqa: RUF012 - as the protocol has it


class Fleet:
    """Daemons in processes of their own; what is killed is replaced."""

    def __init__(self, url: str, folder: Path) -> None:
        (folder / "slow_embedder.py").write_text(_SLOW)
        path = os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")])
        self._environment = {**os.environ, "PYTHONPATH": path, "VECTORIZER_URL": url}
        self._folder = folder
        self.killed = 0
        self._started = 0
        self._logs: dict[int, Path] = {}
        self.workers = [self._start() for _ in range(WORKERS)]

    def _start(self) -> subprocess.Popen[bytes]:
        options = ["--concurrency", "2", "--batch-size", "20", "--lease-seconds", "3"]
        program = [sys.executable, "-m", "vectorizer.cli", "worker", *options]
        self._started += 1
        log = self._folder / f"log_{self._started}"
        with log.open("wb") as file:
            process = subprocess.Popen(program, env=self._environment, stderr=file)
        self._logs[process.pid] = log
        return process

    def serve(self) -> bool:
        """Whether every worker is connected and serves."""
        return all("serving" in self._logs[worker.pid].read_text() for worker in self.workers)

    def kill(self, number: int) -> None:
        self.workers[number].send_signal(SIGKILL)
        self.workers[number].wait()
        self.killed += 1
        self.workers[number] = self._start()

    def stop(self) -> None:
        """Stop all by SIGTERM, once each has come so far that it listens to it."""
        wait(self.serve)
        for worker in self.workers:
            worker.send_signal(SIGTERM)
        for worker in self.workers:
            assert worker.wait(60) == 0, self._logs[worker.pid].read_text()

    def close(self) -> None:
        for worker in self.workers:
            worker.kill()
            worker.wait()


@contextmanager
def writing(url: str, dice: random.Random) -> Iterator[None]:
    """Insert, update and delete all the while, as an application would."""
    done = threading.Event()
    failed: list[BaseException] = []

    def write() -> None:
        try:
            with psycopg.connect(url, autocommit=True) as connection:
                while not done.wait(0.005):
                    _write(connection, dice)
        except BaseException as error:  # noqa: BLE001 - raised again below
            failed.append(error)

    thread = threading.Thread(target=write)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
    assert failed == []


def _write(connection: psycopg.Connection[Any], dice: random.Random) -> None:
    key = dice.randrange(1, ROWS * 2)
    match dice.randrange(4):
        case 0:
            connection.execute("delete from posts where id = %s", [key])
        case 1:
            connection.execute(
                "update posts set body = body || '!' where id between %s and %s", [key, key + 20]
            )
        case _:
            connection.execute(
                "insert into posts values (%s, %s)"
                " on conflict (id) do update set body = excluded.body",
                [key, f"post {key}, {dice.random()}"],
            )


# Eight programs start on few processors.
wait = partial(until, seconds=120)


def test_eight_workers_of_which_one_in_ten_is_killed(vectorizer_url: str, tmp_path: Path) -> None:
    seed = random.randrange(2**32)  # noqa: S311
    print(f"seed {seed}")
    dice = random.Random(seed)  # noqa: S311
    with (
        psycopg.connect(vectorizer_url, autocommit=True) as connection,
        Vectorizer(vectorizer_url, "posts", embedder=Prompt(), chunk_column="body") as vectorizer,
    ):
        connection.execute("create table posts (id bigint primary key, body text)")
        connection.execute(
            "insert into posts select n, 'post ' || n from generate_series(1, %s) n", [ROWS]
        )
        vectorizer.install()
        fleet = Fleet(vectorizer_url, tmp_path)
        try:
            leases = "select count(*) from vectorizer.lease"
            wait(fleet.serve)
            with writing(vectorizer_url, random.Random(dice.random())):  # noqa: S311
                for number in range(ROUNDS):
                    wait(lambda: connection.execute(leases).fetchone() != (0,))
                    for worker in range(WORKERS):
                        if dice.random() < 0.1 or (number, worker) == (0, 0):
                            fleet.kill(worker)
            assert fleet.killed >= 1
            _drained(connection)
            fleet.stop()
        finally:
            fleet.close()
        print(f"killed {fleet.killed}")
        check(connection, vectorizer)


def _drained(connection: psycopg.Connection[Any]) -> None:
    """Wait until nothing waits, nothing is held, and the backfill is through."""
    left = (
        "select waiting + in_flight + retrying from vectorizer.status"
        " where backfill_done and dead_letters = 0"
    )
    wait(lambda: connection.execute(left).fetchone() == (0,))
