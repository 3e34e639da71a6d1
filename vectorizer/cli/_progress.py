"""A drain with a progress bar on a terminal, and without one elsewhere."""

from __future__ import annotations

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from vectorizer._sync.vectorizer import Vectorizer
from vectorizer.batch import Counts
from vectorizer.cli._shared import err

__all__ = ["drained"]


def drained(vectorizer: Vectorizer, *, quiet: bool = False) -> Counts:
    """Run a vectorizer until nothing waits; return what was done."""
    status = vectorizer.status()
    rows = status["waiting"] + status["backfill_total"] - status["backfill_claimed"]
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("rows, {task.fields[embedded]} chunks embedded"),
        TimeElapsedColumn(),
        console=err,
        disable=quiet or not err.is_terminal,
        transient=True,
    )
    with bar:
        task = bar.add_task(vectorizer.name, total=rows or None, embedded=0)

        def show(counts: Counts) -> None:
            bar.update(
                task, completed=counts.rows, total=max(rows, counts.rows), embedded=counts.embedded
            )

        return vectorizer.run(show)
