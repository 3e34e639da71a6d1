"""Workers that begin again, meet, or have the wrong time (faults 20, 40, 42)."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
import pytest
from posts import Background, Rule, check, contents, create, posts

if TYPE_CHECKING:
    from vectorizer.types import FloatMatrix

_FOLDER = str(Path(__file__).parent)
_FAKETIME = next(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"), None)

_KILLED = """
import os, sys
sys.path.insert(0, sys.argv[2])
from posts import Rule, posts
calls = []
def rule(texts):
    calls.append(texts)
    if len(calls) > 3:
        os.kill(os.getpid(), 9)
with posts(sys.argv[1], Rule(rule), batch_size=10, lease_seconds=0.3) as vectorizer:
    vectorizer.run()
"""


def test_a_backfill_that_was_killed_pays_for_nothing_twice(vectorizer_url: str) -> None:
    with create(vectorizer_url, rows=100) as connection:
        embedder = Rule()
        with posts(vectorizer_url, embedder) as vectorizer:
            vectorizer.install()
            command = [sys.executable, "-c", _KILLED, vectorizer_url, _FOLDER]
            assert subprocess.run(command, check=False, timeout=60).returncode == -9
            done = contents(connection)
            assert len(done) == 30
            vectorizer.run()
            assert len(embedder.seen) == 70
            assert not {text for texts in done.values() for text in texts} & set(embedder.seen)
            check(connection, vectorizer)


def test_cursors_that_another_claim_holds_do_not_look_like_an_end(vectorizer_url: str) -> None:
    with create(vectorizer_url, rows=5) as connection, posts(vectorizer_url) as vectorizer:
        vectorizer.install()
        with psycopg.connect(vectorizer_url) as other:
            other.execute("select from vectorizer.progress for update")
            worker = Background(vectorizer.process)
            worker.wait(0.5)
            other.rollback()
            assert worker.result() == 5
        check(connection, vectorizer)


class Together(Rule):
    """Lets two calls go on at the same time."""

    def __init__(self) -> None:
        super().__init__()
        self._barrier = threading.Barrier(2)

    def embed(self, texts: Sequence[str]) -> FloatMatrix:
        self._barrier.wait(20)
        return super().embed(texts)


def test_two_workers_make_the_same_partitions_at_once(vectorizer_url: str) -> None:
    with create(vectorizer_url, rows=40) as connection:
        connection.execute("alter table posts add column at timestamptz")
        connection.execute(
            "update posts set at = timestamptz '2024-01-01+00' + id % 4 * interval '40 days'"
        )
        options = {
            "time_column": "at",
            "partition_interval": timedelta(days=30),
            "batch_size": 20,
        }
        embedder = Together()
        with (
            posts(vectorizer_url, embedder, **options) as one,
            posts(vectorizer_url, embedder, **options) as two,
        ):
            one.install()
            workers = [Background(one.process), Background(two.process)]
            assert [worker.result() for worker in workers] == [20, 20]
            check(connection, one)
            parts = connection.execute(
                "select count(*) from pg_partition_tree('posts_embedding_g1')"
            )
            assert parts.fetchone() == (1 + 4,)


# time.sleep does not work under libfaketime when the monotonic clock is to stay right.
_SLOW = """
import select, sys, time
sys.path.insert(0, sys.argv[2])
from posts import Rule, posts
print(time.time(), flush=True)
slow = Rule(lambda texts: select.select([], [], [], 4.5))
with posts(sys.argv[1], slow, batch_size=20, lease_seconds=3.0) as vectorizer:
    while vectorizer.process():
        pass
print(len(slow.seen))
"""


@pytest.mark.needs_apt
@pytest.mark.parametrize("offset", ["+5h", "-5h", "+4000d"])
def test_a_worker_whose_clock_is_wrong(
    vectorizer_url: str, offset: str, eventually: Callable[[Callable[[], object]], None]
) -> None:
    if _FAKETIME is None:
        pytest.skip("libfaketime is not there: apt-get install faketime")
    environment = {
        **os.environ,
        "LD_PRELOAD": str(_FAKETIME),
        "FAKETIME": offset,
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    }
    with create(vectorizer_url, rows=40) as connection:
        embedder = Rule()
        with posts(vectorizer_url, embedder, batch_size=20, lease_seconds=3.0) as vectorizer:
            vectorizer.install()
            command = [sys.executable, "-c", _SLOW, vectorizer_url, _FOLDER]
            wrong = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
            assert wrong.stdout is not None
            with wrong, wrong.stdout as output:
                clock = float(output.readline())
                now = connection.execute("select extract(epoch from now())::float8").fetchone()
                assert now is not None
                assert abs(clock - now[0]) > 3600
                leases = "select count(*) from vectorizer.lease"
                eventually(lambda: connection.execute(leases).fetchone() != (0,))
                vectorizer.run()
                elsewhere = int(output.readline())
            assert wrong.returncode == 0
            # Its leases held: nobody took a batch of the other's and embedded it again.
            assert elsewhere
            assert elsewhere + len(embedder.seen) == 40
            check(connection, vectorizer)


def test_a_drain_waits_for_what_another_claim_has_locked(vectorizer_url: str) -> None:
    """A worker that lost its connection in a claim may hold entries until its server notices."""
    with (
        create(vectorizer_url, rows=1) as connection,
        posts(vectorizer_url) as vectorizer,
        psycopg.connect(vectorizer_url) as claim,
        ThreadPoolExecutor(1) as threads,
    ):
        vectorizer.install()
        vectorizer.run()
        connection.execute("update posts set body = 'edited'")
        claim.execute("select from vectorizer.posts_log for update")
        assert vectorizer.process() == 0
        assert vectorizer._generations.in_flight_seconds() == 0
        draining = threads.submit(vectorizer.run)
        claim.rollback()
        assert draining.result(20).rows == 1
        check(connection, vectorizer)
