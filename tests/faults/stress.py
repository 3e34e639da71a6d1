"""Random writers, workers and faults; in the end the copy must be right.

    python tests/faults/stress.py --seconds 60 --seed 7 [--partitioned] [--url URL] [--mutant NAME]

Writers (see writers.py) do to a table whatever SQL allows. Workers run in processes that are
killed, stopped beyond their lease and continued, and whose connections are terminated. All the
while no writer may wait for one of them, and `verify` may find no defect. At last the writers
end, one clean worker drains the queue, and verify and a comparison made in Python, which uses
none of our SQL, must both find nothing.
"""

from __future__ import annotations

import argparse
import os
import random
import re
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from signal import SIGCONT, SIGKILL, SIGSTOP
from typing import Any

import psycopg
from comparison import compare
from servers import own_database
from stress_worker import DIMENSIONS, WorkerPlan
from writers import Keys, Writer, create, fill

from vectorizer import Vectorizer
from vectorizer.errors import DatabaseUnavailable
from vectorizer.testing import FakeEmbedder

__all__ = ["SETTINGS", "Report", "StressPlan", "run", "stress"]

SETTINGS = {
    "max_prepared_transactions": "20",
    "deadlock_timeout": "200ms",
    "max_connections": "80",
}
_NAME = "source"
_WORKER = Path(__file__).with_name("stress_worker.py")
_DRAIN_SECONDS = 60
_START_SECONDS = 60
# Writers that wait for us. TRUNCATE must wait for whoever reads the table.
_BLOCKED = """
with waiting as materialized (
  select distinct l.pid, l.locktype, l.mode from pg_locks l
  where not l.granted and not (l.locktype = 'relation' and l.mode = 'AccessExclusiveLock'))
select w.query, b.query, l.locktype, l.mode
from waiting l
join pg_stat_activity w on w.pid = l.pid and w.application_name = 'writer'
cross join lateral unnest(pg_blocking_pids(l.pid)) as blocker
join pg_stat_activity b on b.pid = blocker and b.application_name = 'vectorizer'
"""


@dataclass(frozen=True)
class StressPlan:
    """What is to be done.

    kill, stop, terminate: how often each fault is chosen, in proportion; pause: the most
    seconds between two faults. moods: options of the workers' `WorkerPlan`.
    """

    seed: int
    seconds: float = 45.0
    writers: int = 4
    workers: int = 3
    keys: Keys = field(default_factory=Keys)
    bulk: bool = True
    partitioned: bool = False
    pace: float = 0.01
    lease_seconds: float = 1.0
    batch_sizes: tuple[int, ...] = (1, 7, 40, 200)
    kill: float = 5
    stop: float = 3
    terminate: float = 4
    pause: float = 0.8
    verify_pause: float = 1.0
    moods: dict[str, Any] = field(default_factory=dict)
    mutant: str | None = None


@dataclass
class Report:
    """What was done, and what was wrong."""

    seed: int
    seconds: float
    keys: int = 0
    transactions: int = 0
    batches: int = 0
    kills: int = 0
    stops: int = 0
    terminations: int = 0
    verified: int = 0
    revived: int = 0
    operations: dict[str, int] = field(default_factory=dict)
    refused: dict[str, int] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)

    @property
    def mismatches(self) -> list[str]:
        """The failures that say that the copy was wrong."""
        return [f for f in self.failures if f.startswith(("verify,", "verify:", "comparison:"))]

    def __str__(self) -> str:
        lines = [f"{name}: {value}" for name, value in asdict(self).items() if name != "failures"]
        return "\n".join([*lines, *(f"FAILURE {failure}" for failure in self.failures)])


@contextmanager
def _background(
    what: str, step: Callable[[], None], pause: float, report: Report
) -> Iterator[None]:
    """Repeat `step` in a thread until the block ends; an exception of it is a failure."""
    ended = threading.Event()

    def repeat() -> None:
        try:
            while not ended.wait(pause):
                step()
        except BaseException:  # noqa: BLE001 - reported
            report.failures.append(f"{what}: {traceback.format_exc()}")

    thread = threading.Thread(target=repeat, name=what)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


class _Workers:
    """The processes, and what befalls them."""

    def __init__(self, plan: StressPlan, url: str, report: Report, folder: Path) -> None:
        self._plan = plan
        self._url = url
        self._report = report
        self._dice = random.Random(f"{plan.seed} faults")  # noqa: S311
        self._folder = folder
        self._started = 0
        self._processes: list[subprocess.Popen[bytes]] = []
        self._stopped: dict[subprocess.Popen[bytes], float] = {}

    def start(self) -> None:
        for _ in range(self._plan.workers):
            self._start_one()

    def wait(self) -> None:
        """Wait until they are ready: on a busy machine it takes seconds to start Python."""
        deadline = time.monotonic() + _START_SECONDS
        outputs = list(self._folder.glob("*.out"))
        while time.monotonic() < deadline and not all(o.stat().st_size for o in outputs):
            time.sleep(0.01)

    def _start_one(self) -> None:
        self._started += 1
        plan = WorkerPlan(
            url=self._url,
            name=_NAME,
            seed=f"{self._plan.seed} worker {self._started}",
            batch_size=self._dice.choice(self._plan.batch_sizes),
            lease_seconds=self._plan.lease_seconds,
            asynchronous=self._started % 2 == 0 and self._plan.mutant is None,
            mutant=self._plan.mutant,
        )
        plan = replace(plan, **({"stop": 0.01} if self._plan.stop else {}), **self._plan.moods)
        # A file each: a worker that is killed leaves no pipe behind, nor half a line.
        output = self._folder / f"{self._started}.out"
        errors = self._folder / f"{self._started}.err"
        with output.open("wb") as out, errors.open("wb") as err:
            command = [sys.executable, str(_WORKER), plan.to_json()]
            self._processes.append(subprocess.Popen(command, stdout=out, stderr=err))

    def step(self) -> None:
        """Do one fault at most, and put everything else in order."""
        self._restart_ended()
        self._continue_stopped()
        choices = {"kill": self._plan.kill, "stop": self._plan.stop, "end": self._plan.terminate}
        if self._dice.random() > 0.05 / max(self._plan.pause, 0.05) or not any(choices.values()):
            return
        victim = self._dice.choice(self._processes)
        match self._dice.choices(list(choices), list(choices.values()))[0]:
            case "kill":
                self._kill(victim)
            case "stop" if victim not in self._stopped:
                victim.send_signal(SIGSTOP)
            case "end":
                self._terminate()

    def _kill(self, victim: subprocess.Popen[bytes]) -> None:
        victim.send_signal(SIGKILL)
        victim.wait()
        self._stopped.pop(victim, None)
        self._processes.remove(victim)
        self._report.kills += 1
        self._start_one()

    def _terminate(self) -> None:
        few = self._dice.choice(["true", "pid % 2 = 0", "state = 'active'"])
        with psycopg.connect(self._url, autocommit=True) as connection:
            ended = connection.execute(
                "select count(pg_terminate_backend(pid)) from pg_stat_activity "
                f"where application_name = 'vectorizer' and datname = current_database() and {few}"
            ).fetchone()
        self._report.terminations += ended[0] if ended else 0

    def _restart_ended(self) -> None:
        for process in [p for p in self._processes if p.poll() is not None]:
            self._processes.remove(process)
            self._report.failures.append(f"worker ended with {process.returncode}")
            self._start_one()

    def _continue_stopped(self) -> None:
        for process in self._processes:
            if process not in self._stopped and _is_stopped(process):
                seconds = self._plan.lease_seconds * self._dice.uniform(1.0, 2.5)
                self._stopped[process] = time.monotonic() + seconds
                self._report.stops += 1
        for process, at in list(self._stopped.items()):
            if time.monotonic() > at:
                process.send_signal(SIGCONT)
                del self._stopped[process]

    def end(self) -> None:
        """Kill all workers and count what they did."""
        for process in self._processes:
            process.send_signal(SIGKILL)
            process.wait()
        for output in self._folder.glob("*.out"):
            batches = [int(line) for line in output.read_text().split()]
            self._report.batches += sum(rows > 0 for rows in batches)
            self._report.keys += sum(batches)
        for errors in self._folder.glob("*.err"):
            _, found, trace = errors.read_text().partition("Traceback")
            if found:
                self._report.failures.append(f"worker: {found}{trace}")


def _is_stopped(process: subprocess.Popen[bytes]) -> bool:
    flags = os.WSTOPPED | os.WNOHANG | os.WNOWAIT
    return os.waitid(os.P_PID, process.pid, flags) is not None


def _vectorizer(url: str) -> Vectorizer:
    return Vectorizer(
        url,
        "source",
        embedder=FakeEmbedder(DIMENSIONS),
        chunk_column="body",
        template="{title}: {chunk}",
        metadata=["tag"],
        where="not hidden",
        time_column="published_at",
        partition_interval=timedelta(days=30),
        chunk_size=(15, 40),
        lease_seconds=1.0,
    )


def _hostile_defaults(connection: psycopg.Connection[Any], dice: random.Random) -> None:
    # A worker names itself what it relies on; these are the defaults of all that connect.
    for name, values in {
        "default_transaction_isolation": ("read committed", "repeatable read", "serializable"),
        "datestyle": ("ISO, MDY", "German", "SQL, DMY"),
        "timezone": ("UTC", "Asia/Kathmandu"),
        "intervalstyle": ("postgres", "iso_8601"),
        "extra_float_digits": ("0", "3"),
    }.items():
        database = connection.info.dbname
        connection.execute(f"alter database {database} set {name} = '{dice.choice(values)}'")


def run(plan: StressPlan, url: str) -> Report:
    """Run the stress in an empty database with pgvector."""
    report = Report(seed=plan.seed, seconds=plan.seconds)
    dice = random.Random(f"{plan.seed} plan")  # noqa: S311
    with ExitStack() as stack:
        connection = stack.enter_context(psycopg.connect(url, autocommit=True))
        create(connection, partitioned=plan.partitioned)
        fill(connection, plan.keys, dice)
        _hostile_defaults(connection, dice)
        prepared = connection.execute("show max_prepared_transactions").fetchone() or ("0",)
        vectorizer = stack.enter_context(_vectorizer(url))
        vectorizer.install()
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        workers = _Workers(plan, url, report, folder)
        writers = [
            Writer(
                url,
                number,
                plan.seed,
                keys=plan.keys,
                bulk=plan.bulk,
                partitioned=plan.partitioned,
                two_phase=prepared != ("0",),
                pace=plan.pace,
            )
            for number in range(plan.writers)
        ]
        try:
            _storm(plan, connection, vectorizer, workers, writers, report)
        finally:
            _roll_back_prepared(connection)
        _calm(connection, vectorizer, report)
    return report


def _roll_back_prepared(connection: psycopg.Connection[Any]) -> None:
    # Only of writers that ended by an error.
    for (name,) in connection.execute("select gid from pg_prepared_xacts").fetchall():
        connection.execute(f"rollback prepared '{name}'")


def _storm(
    plan: StressPlan,
    connection: psycopg.Connection[Any],
    vectorizer: Vectorizer,
    workers: _Workers,
    writers: list[Writer],
    report: Report,
) -> None:
    """Let everything happen at once for a while."""

    def watch() -> None:
        for waits, holds, kind, mode in connection.execute(_BLOCKED).fetchall():
            report.failures.append(f"writer waits for us: {kind} {mode}: {waits!r} for {holds!r}")

    def verify() -> None:
        try:
            found = vectorizer.verify(rows=500)
        except DatabaseUnavailable:  # its connections are terminated, too
            return
        report.verified += 1
        if not found.ok:
            report.failures.append(f"verify, meanwhile: {found}")

    workers.start()
    workers.wait()
    for writer in writers:
        writer.start()
    end = time.monotonic() + plan.seconds
    try:
        with (
            _background("faults", workers.step, 0.05, report),
            _background("watch", watch, 0.02, report),
            _background("verifying", verify, plan.verify_pause, report),
        ):
            # A mutant need not be run to the end.
            while time.monotonic() < end and not (plan.mutant and report.mismatches):
                time.sleep(0.05)
            for writer in writers:
                writer.stop()
            for writer in writers:
                writer.join()
    finally:
        workers.end()
    _tally(writers, report)


def _tally(writers: list[Writer], report: Report) -> None:
    pids = {pid for writer in writers for pid in writer.tally.pids}
    operations: Counter[str] = Counter()
    refused: Counter[str] = Counter()
    for writer in writers:
        report.transactions += writer.tally.transactions
        operations += writer.tally.operations
        refused += writer.tally.refused
        if writer.failure is not None:
            report.failures.append(f"writer: {writer.failure}")
        for detail in writer.tally.deadlocks:
            # A prepared transaction has no process, but can be in no deadlock either.
            others = {int(pid) for pid in re.findall(r"[Pp]rocess (\d+)", detail)} - pids
            if others:
                report.failures.append(f"deadlock of a writer with us: {detail}")
    report.operations, report.refused = dict(operations), dict(refused)


def _calm(connection: psycopg.Connection[Any], vectorizer: Vectorizer, report: Report) -> None:
    """Drain the queue without any fault, and look at what came out."""
    _drain(connection, vectorizer)
    # Whoever was alone in a killed worker's lease a few times is taken for the cause.
    report.revived = vectorizer.retry()
    for letter in vectorizer.dead_letters():
        report.failures.append(f"dead letter: {letter}")
    _drain(connection, vectorizer)
    found = vectorizer.verify(rows=1000)
    if not found.ok or found.pending or found.dead:
        report.failures.append(f"verify: {found}")
    definition = vectorizer._definition
    assert definition is not None
    report.failures += [f"comparison: {line}" for line in compare(connection, _NAME, definition)]


def _drain(connection: psycopg.Connection[Any], vectorizer: Vectorizer) -> None:
    deadline = time.monotonic() + _DRAIN_SECONDS
    waiting = (
        f"select exists (select from vectorizer.{_NAME}_row "
        "where available_at is not null and not dead)"
    )
    while True:
        vectorizer.run()
        if connection.execute(waiting).fetchone() == (False,) or time.monotonic() > deadline:
            return


def stress(plan: StressPlan) -> Report:
    """Run the stress on a server of its own, which can prepare transactions."""
    with (
        tempfile.TemporaryDirectory(prefix="stress") as folder,
        own_database(Path(folder) / "server", **SETTINGS) as url,
    ):
        return run(plan, url)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument(
        "--url", help="an empty database with pgvector; default: a server of its own"
    )
    parser.add_argument("--partitioned", action="store_true", help="the table is partitioned")
    parser.add_argument("--mutant", help="break the workers: no_fence, ack_by_key, claim_and_read")
    options = parser.parse_args()
    seed = random.SystemRandom().randrange(10**6) if options.seed is None else options.seed
    print(f"seed {seed}", flush=True)
    plan = StressPlan(
        seed=seed,
        seconds=options.seconds,
        partitioned=options.partitioned,
        mutant=options.mutant,
    )
    report = stress(plan) if options.url is None else run(plan, options.url)
    print(report)
    sys.exit(bool(report.failures))


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        main()
