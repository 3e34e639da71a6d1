"""How a plan is shown."""

from __future__ import annotations

from datetime import timedelta
from json import dumps

from rich.markup import escape
from rich.table import Table

from vectorizer.cli._shared import out
from vectorizer.intervals import format_interval
from vectorizer.plan import Change, Plan
from vectorizer.prices import AS_OF
from vectorizer.types import JSON

__all__ = ["print_plan"]

_ACTIONS = {
    "install": "it would be installed",
    "run": "nothing would change; a run does what waits",
    "note": "it would be changed in place",
    "compare": "it would be changed in place, and every row compared",
    "generation": "a new generation would be made beside the old one, and take over when it has "
    "caught up",
}


def print_plan(plan: Plan) -> None:
    """Print what would be done and what it would cost."""
    table = Table(
        title=escape(f"{plan.name}: {_ACTIONS[plan.action]}"),
        title_justify="left",
        show_header=False,
        box=None,
    )
    for change in plan.changes:
        table.add_row(change.option, escape(_change(change)))
    about = "about " if plan.estimated else ""
    table.add_row("source", escape(f"{plan.source}, {about}{plan.rows_total:,} rows"))
    if plan.estimated:
        table.add_row("looked at", f"{plan.rows_read:,} rows; the rest is extrapolated")
    table.add_row("to embed", f"{about}{plan.rows:,} rows, {plan.chunks:,} texts")
    table.add_row(
        "to send",
        f"{about}{plan.texts_to_send:,} texts, {plan.tokens_to_send:,} tokens, "
        f"{plan.requests:,} {'request' if plan.requests == 1 else 'requests'}",
    )
    if plan.rows_failing:
        table.add_row("too long", f"{about}{plan.rows_failing:,} rows: see --on-long-text")
    table.add_row("cost", escape(_cost(plan)))
    table.add_row("time", _time(plan))
    out.print(table)


def _change(change: Change) -> str:
    words = _interval if change.option in ("partition_interval", "retention") else _as_json
    return f"{words(change.old)} -> {words(change.new)}"


def _as_json(value: JSON) -> str:
    return dumps(value, ensure_ascii=False)


def _interval(value: JSON) -> str:
    # The registry has seconds.
    seconds, _, unit = str(value).partition(" ")
    if unit != "seconds":
        return _as_json(value)
    return _as_json(format_interval(timedelta(seconds=int(seconds))))


def _cost(plan: Plan) -> str:
    if plan.cost is None:
        return "unknown: give --price, in dollars a million tokens"
    if plan.price == 0:
        return f"nothing, {plan.model} runs on the worker's machine"
    cost = "under $0.01" if 0 < plan.cost < 0.01 else f"${plan.cost:,.2f}"  # noqa: PLR2004 - a cent
    return f"{cost} at ${plan.price:g} a million tokens (known prices are of {AS_OF})"


def _time(plan: Plan) -> str:
    if not plan.texts_to_send:
        return "nothing is sent"
    if plan.seconds is None and plan.price == 0:
        return "as fast as the worker's machine computes"
    if plan.seconds is None:
        return "unknown: give --tokens-per-minute or --requests-per-minute"
    least = timedelta(seconds=round(plan.seconds)) or "a moment"
    return f"at least {least} at the provider's limits"
