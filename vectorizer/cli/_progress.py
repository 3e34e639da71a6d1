"""A progress bar for drains on a terminal, and none elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from vectorizer.batch import Counts
from vectorizer.cli._shared import err

__all__ = ["shown", "waiting"]


@contextmanager
def shown(
    rows: Mapping[str, int], *, quiet: bool = False
) -> Iterator[Callable[[str, Counts], None]]:
    """Yield what shows how far each vectorizer is, by its name and what it has done.

    rows: how many wait, by the names of the vectorizers.
    """
    bars = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("rows, {task.fields[embedded]} chunks embedded"),
        TimeElapsedColumn(),
        console=err,
        disable=quiet or not err.is_terminal,
        transient=True,
    )
    with bars:
        tasks = {name: bars.add_task(name, total=rows[name] or None, embedded=0) for name in rows}

        def show(name: str, counts: Counts) -> None:
            total = max(rows[name], counts.rows)
            bars.update(tasks[name], completed=counts.rows, total=total, embedded=counts.embedded)

        yield show


def waiting(status: Mapping[str, Any]) -> int:
    """Return how many rows wait, from the status of a vectorizer."""
    return int(status["waiting"] + status["backfill_total"] - status["backfill_claimed"])
