"""A drain with a progress bar on a terminal, and without one elsewhere."""

from __future__ import annotations

from collections.abc import Sequence

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from vectorizer._sync.rotation import Rotation
from vectorizer._sync.vectorizer import Vectorizer
from vectorizer.batch import Counts
from vectorizer.cli._shared import err

__all__ = ["drained"]


def drained(
    vectorizers: Sequence[Vectorizer],
    *,
    quiet: bool = False,
    max_rows: int | None = None,
    max_seconds: float | None = None,
) -> Rotation:
    """Run vectorizers in turns until nothing waits; return what was done and what failed.

    After `max_rows` rows in all, or `max_seconds` seconds, no further batch is begun.
    """
    rotation = Rotation(vectorizers)
    rows = {vectorizer.name: _rows(vectorizer) for vectorizer in vectorizers}
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

        rotation.run(show, max_rows=max_rows, max_seconds=max_seconds)
    return rotation


def _rows(vectorizer: Vectorizer) -> int:
    status = vectorizer.status()
    return int(status["waiting"] + status["backfill_total"] - status["backfill_claimed"])
