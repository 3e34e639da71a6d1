"""`vectorizer install`."""

from __future__ import annotations

import sys
from contextlib import ExitStack
from typing import Annotated, Any

import typer

from vectorizer._sync.vectorizer import Vectorizer
from vectorizer.cli._definition import described, vectorizers_of
from vectorizer.cli._plan import print_plan
from vectorizer.cli._settings import is_quiet
from vectorizer.cli._shared import DryRunOption, JsonOption, UrlOption, print_sql, report
from vectorizer.errors import ConfigurationError
from vectorizer.plan import Plan

HELP = """Attach a vectorizer to a table: from then on every change of it reaches its embeddings.

Without a table those are installed that vectorizer.toml defines. Installing again changes
nothing. With other options it is refused, unless --change is given: that shows what would change
and what it costs, asks, and does it.

Example: vectorizer install blog --chunk-column contents --metadata author,category
"""


@described
def command(
    options: dict[str, Any],
    table: Annotated[
        str | None, typer.Argument(help="Source table, with its schema if that is not public.")
    ] = None,
    change: Annotated[
        bool, typer.Option("--change", help="Change one that is installed with other options.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    dry_run: DryRunOption = False,
    json: JsonOption = False,
    url: UrlOption = None,
) -> None:
    """Install vectorizers."""
    with ExitStack() as stack:
        found = vectorizers_of(table, options, url, script=dry_run)
        vectorizers = [stack.enter_context(one) for one in found.values()]
        if dry_run:
            print_sql("\n".join(one.install_script(change=change) for one in vectorizers))
            return
        plans = _confirmed(vectorizers, yes=yes, quiet=json or is_quiet()) if change else {}
        for vectorizer in vectorizers:
            vectorizer.install(change=change)
        _report(vectorizers, plans, json=json)


def _confirmed(vectorizers: list[Vectorizer], *, yes: bool, quiet: bool) -> dict[str, Plan]:
    plans = {} if quiet and yes else {one.name: one.plan() for one in vectorizers}
    if not quiet:
        for plan in plans.values():
            print_plan(plan)
    if not yes:
        if not sys.stdin.isatty():
            raise ConfigurationError("nobody is there to ask whether to go on; say --yes")
        typer.confirm("Go on?", abort=True)
    return plans


def _report(vectorizers: list[Vectorizer], plans: dict[str, Plan], *, json: bool) -> None:
    results, texts = [], []
    for one in vectorizers:
        status = one.status()
        source, destination = status["source"], status["destination"]
        results.append({"name": one.name, "source": source, "destination": destination})
        done = f"is installed on {source}; embeddings go to {destination}."
        action = plans[one.name].action if one.name in plans else "install"
        texts.append(f"Vectorizer {one.name} {_SAID[action].format(done, name=one.name)}")
    report(json, results, "\n".join(texts))


_SAID = {
    "install": "{}\nEmbed what is there: vectorizer run {name}",
    "run": "{}\nNothing had to be changed.",
    "note": "is changed. No row is visited; an index is built by: vectorizer run {name}",
    "compare": "is changed. Compare every row: vectorizer run {name}",
    "generation": "gets a new generation, which takes over when it has caught up: "
    "vectorizer run {name}",
}
