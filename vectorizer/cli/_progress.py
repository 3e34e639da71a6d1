"""A drain with a progress bar on a terminal, and without one elsewhere."""

from __future__ import annotations

from collections.abc import Sequence

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from vectorizer._sync.rotation import Rotation
from vectorizer._sync.vectorizer import Vectorizer
from vectorizer.batch import Counts
from vectorizer.cli._shared import err

__all__ = ["drained"]


def drained(vectorizers: Sequence[Vectorizer], *, quiet: bool = False) -> Rotation:
    """Run vectorizers in turns until nothing waits; return what was done and what failed."""
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

        rotation.run(show)
    return rotation


def _rows(vectorizer: Vectorizer) -> int:
    status = vectorizer.status()
    return int(status["waiting"] + status["backfill_total"] - status["backfill_claimed"])
