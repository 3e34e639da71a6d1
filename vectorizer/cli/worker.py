"""`vectorizer worker`."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from typing import Annotated, NoReturn

import typer

from vectorizer.cli._logs import LogFormat, LogLevel, configure
from vectorizer.cli._shared import UrlOption, database_url
from vectorizer.errors import ConfigurationError
from vectorizer.metrics import Metrics
from vectorizer.worker import Worker, WorkerOptions, serving_http

HELP = """Serve vectorizers until told to stop: the long-running daemon.

Without names all of the database are served, also those installed later. SIGTERM or Ctrl-C
stops claiming, finishes what is in flight or gives it back, and exits with 0; a second one
exits at once, and nothing is lost then either.

Example: vectorizer worker --concurrency 8
"""

log = logging.getLogger("vectorizer.worker")


def command(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="[NAME]...", help="Vectorizers; by default all.")
    ] = None,
    concurrency: Annotated[
        int, typer.Option(min=1, help="Batches in flight over all vectorizers.")
    ] = 4,
    batch_size: Annotated[int, typer.Option(min=1, help="Rows claimed at once.")] = 200,
    poll_seconds: Annotated[
        float, typer.Option(help="Seconds between two looks while changes arrive.")
    ] = 0.02,
    idle_seconds: Annotated[
        float, typer.Option(help="Seconds between two looks while none do.")
    ] = 0.25,
    grace_seconds: Annotated[
        float, typer.Option(min=0, help="Seconds to finish in after SIGTERM.")
    ] = 20.0,
    schedule: Annotated[
        list[str] | None,
        typer.Option(help='Drain one at certain times only: NAME="*/5 * * * *". Repeatable.'),
    ] = None,
    timezone: Annotated[str, typer.Option(help="Time zone of schedules.")] = "UTC",
    listen: Annotated[
        str | None, typer.Option(help="Channel on which your NOTIFY wakes the worker at once.")
    ] = None,
    verify_schedule: Annotated[
        str | None, typer.Option(help='Verify everything at these times, such as "@daily".')
    ] = None,
    verify_repair: Annotated[
        bool, typer.Option("--verify-repair", help="Queue what a verification finds wrong.")
    ] = False,
    metrics_port: Annotated[
        int | None,
        typer.Option(min=0, max=65535, help="Serve /metrics, /healthz and /readyz on this port."),
    ] = None,
    metrics_host: Annotated[str, typer.Option(help="... of this address.")] = "127.0.0.1",
    log_format: Annotated[
        LogFormat, typer.Option(help="Lines to read, or JSON.")
    ] = LogFormat.console,
    log_level: Annotated[LogLevel, typer.Option(help="What is worth a line.")] = LogLevel.info,
    url: UrlOption = None,
) -> None:
    """Run a worker."""
    options = WorkerOptions(
        concurrency=concurrency,
        batch_size=batch_size,
        poll_seconds=poll_seconds,
        idle_seconds=idle_seconds,
        grace_seconds=grace_seconds,
        schedules=parse_schedules(schedule or []),
        timezone=timezone,
        listen=listen,
        verify_schedule=verify_schedule,
        verify_repair=verify_repair,
    )
    configure(log_format.value, log_level.value)
    metrics = None if metrics_port is None else Metrics()
    worker = Worker(database_url(url), names or None, options=options, observer=metrics)
    asyncio.run(_serve(worker, metrics, metrics_host, metrics_port or 0))
    raise typer.Exit(0)


def parse_schedules(given: list[str]) -> dict[str, str]:
    """Return NAME=CRON as a mapping; raise ConfigurationError for anything else."""
    for one in given:
        if not all(part.strip() for part in one.partition("=")):
            raise ConfigurationError(
                f'--schedule {one!r}: give NAME="minute hour day month weekday", '
                f'such as blog="*/5 * * * *"'
            )
    return {name.strip(): cron.strip() for name, _, cron in (one.partition("=") for one in given)}


async def _serve(worker: Worker, metrics: Metrics | None, host: str, port: int) -> None:
    loop = asyncio.get_running_loop()
    # Models that are not asynchronous run in threads: one for each batch, some to spare.
    loop.set_default_executor(ThreadPoolExecutor(worker.options.concurrency + 4))
    _stop_on_signals(worker, loop)
    async with AsyncExitStack() as stack:
        if metrics is not None:
            taken = await stack.enter_async_context(serving_http(worker, metrics, host, port))
            log.info("metrics on http://%s:%d/metrics", host, taken)
        given_back = await worker.run()
    log.info("stopped")
    if given_back:
        _leave(0)  # a model that does not answer holds up a thread, and that the interpreter


def _stop_on_signals(worker: Worker, loop: asyncio.AbstractEventLoop) -> None:
    stopping: list[signal.Signals] = []

    def stop(number: signal.Signals) -> None:
        if stopping:
            log.warning("%s again: leaving now; leases run out by themselves", number.name)
            _leave(128 + number)
        stopping.append(number)
        log.info("%s: stopping", number.name)
        worker.stop()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop, number)


def _leave(code: int) -> NoReturn:
    logging.shutdown()
    sys.stdout.flush()
    os._exit(code)
