"""`vectorizer worker`."""

from __future__ import annotations

import asyncio
import logging
import signal
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Annotated

import typer

from vectorizer.cli._garbage import collect_seldom
from vectorizer.cli._leaving import leave
from vectorizer.cli._logs import LogFormat, LogLevel, configure
from vectorizer.cli._settings import least_level, settings
from vectorizer.cli._shared import UrlOption, database_url
from vectorizer.config import MetricsConfig
from vectorizer.errors import ConfigurationError
from vectorizer.worker import WorkerOptions

if TYPE_CHECKING:
    from vectorizer.metrics import Metrics
    from vectorizer.worker import Worker

HELP = """Serve vectorizers until told to stop: the long-running daemon.

Without names all of the database are served, also those installed later. SIGTERM or Ctrl-C
stops claiming, finishes what is in flight or gives it back, and exits with 0; a second one exits
at once, and nothing is lost then either.

Example: vectorizer worker --concurrency 8
"""

log = logging.getLogger("vectorizer.worker")


def _default(option: str) -> str:
    return str(getattr(WorkerOptions(), option))


def command(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="[NAME]...", help="Vectorizers; by default all.")
    ] = None,
    concurrency: Annotated[
        int | None,
        typer.Option(help="Batches in flight over all.", show_default=_default("concurrency")),
    ] = None,
    batch_size: Annotated[
        int | None,
        typer.Option(help="Rows claimed at once.", show_default="as the model takes them"),
    ] = None,
    lease_seconds: Annotated[
        float | None,
        typer.Option(help="A batch is ours so long.", show_default=_default("lease_seconds")),
    ] = None,
    poll_seconds: Annotated[
        float | None,
        typer.Option(
            help="Between two looks while changes arrive.", show_default=_default("poll_seconds")
        ),
    ] = None,
    idle_seconds: Annotated[
        float | None,
        typer.Option(
            help="Between two looks while none do.", show_default=_default("idle_seconds")
        ),
    ] = None,
    grace_seconds: Annotated[
        float | None,
        typer.Option(help="To finish in after SIGTERM.", show_default=_default("grace_seconds")),
    ] = None,
    schedule: Annotated[
        list[str] | None,
        typer.Option(help='Drain one at certain times only: NAME="*/5 * * * *". Repeatable.'),
    ] = None,
    timezone: Annotated[
        str | None, typer.Option(help="Of all schedules.", show_default=_default("timezone"))
    ] = None,
    listen: Annotated[
        str | None, typer.Option(help="Channel on which your NOTIFY wakes the worker at once.")
    ] = None,
    verify_schedule: Annotated[
        str | None, typer.Option(help='Verify everything at these times, such as "@daily".')
    ] = None,
    verify_repair: Annotated[
        bool | None, typer.Option("--verify-repair", help="Queue what is found wrong then.")
    ] = None,
    upkeep: Annotated[
        bool | None, typer.Option("--upkeep/--no-upkeep", help="Look after the queue's tables.")
    ] = None,
    metrics_port: Annotated[
        int | None, typer.Option(help="Serve /metrics, /healthz and /readyz on this port.")
    ] = None,
    metrics_host: Annotated[
        str | None, typer.Option(help="... of this address.", show_default="127.0.0.1")
    ] = None,
    log_format: Annotated[
        LogFormat | None, typer.Option(help="Lines to read, or JSON.", show_default="console")
    ] = None,
    log_level: Annotated[
        LogLevel | None, typer.Option(help="What is worth a line.", show_default="info")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="The same as --log-format json.")] = False,
    url: UrlOption = None,
) -> None:
    """Run a worker."""
    config = settings(
        worker={
            "concurrency": concurrency,
            "batch_size": batch_size,
            "lease_seconds": lease_seconds,
            "poll_seconds": poll_seconds,
            "idle_seconds": idle_seconds,
            "grace_seconds": grace_seconds,
            "schedules": parse_schedules(schedule) if schedule else None,
            "timezone": timezone,
            "listen": listen,
            "verify_schedule": verify_schedule,
            "verify_repair": verify_repair,
            "upkeep": upkeep,
        },
        metrics={"port": metrics_port, "host": metrics_host},
        log={
            "format": "json" if json else log_format and log_format.value,
            "level": log_level.value if log_level else least_level(),
        },
    ).config
    # Other commands need neither of them.
    from vectorizer.metrics import Metrics  # noqa: PLC0415
    from vectorizer.worker import Worker  # noqa: PLC0415

    collect_seldom()
    configure(config.log.format, config.log.level)
    metrics = None if config.metrics.port is None else Metrics()
    worker = Worker(
        database_url(url),
        names or None,
        options=config.worker,
        observer=metrics,
        schema=config.database.schema_,
    )
    asyncio.run(_serve(worker, metrics, config.metrics))
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


async def _serve(worker: Worker, metrics: Metrics | None, pages: MetricsConfig) -> None:
    from vectorizer.worker import serving_http  # noqa: PLC0415 - see above

    loop = asyncio.get_running_loop()
    # Models that are not asynchronous run in threads: one for each batch, some to spare.
    loop.set_default_executor(ThreadPoolExecutor(worker.options.concurrency + 4))
    _stop_on_signals(worker, loop)
    async with AsyncExitStack() as stack:
        if metrics is not None:
            http = serving_http(worker, metrics, pages.host, pages.port or 0)
            port = await stack.enter_async_context(http)
            log.info("metrics on http://%s:%d/metrics", pages.host, port)
        given_back = await worker.run()
    log.info("stopped")
    if given_back:
        leave(0)  # a model that does not answer holds up a thread, and that the interpreter


def _stop_on_signals(worker: Worker, loop: asyncio.AbstractEventLoop) -> None:
    stopping: list[signal.Signals] = []

    def stop(number: signal.Signals) -> None:
        if stopping:
            log.warning("%s again: leaving now; leases run out by themselves", number.name)
            leave(128 + number)
        stopping.append(number)
        log.info("%s: stopping", number.name)
        worker.stop()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop, number)
