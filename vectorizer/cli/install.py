"""`vectorizer install`."""

from __future__ import annotations

import sys
from contextlib import ExitStack
from typing import Annotated, Any

import typer

from vectorizer._sync.vectorizer import Vectorizer
from vectorizer.cli._definition import described, vectorizers_of
from vectorizer.cli._plan import print_plan
from vectorizer.cli._shared import DryRunOption, JsonOption, UrlOption, print_sql, report
from vectorizer.errors import ConfigurationError

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
        if change:
            _confirm(vectorizers, yes=yes, quiet=json)
        for vectorizer in vectorizers:
            vectorizer.install(change=change)
        _report(vectorizers, json=json)


def _confirm(vectorizers: list[Vectorizer], *, yes: bool, quiet: bool) -> None:
    if not quiet:
        for vectorizer in vectorizers:
            print_plan(vectorizer.plan())
    if yes:
        return
    if not sys.stdin.isatty():
        raise ConfigurationError("nobody is there to ask whether to go on; say --yes")
    typer.confirm("Go on?", abort=True)


def _report(vectorizers: list[Vectorizer], *, json: bool) -> None:
    results, texts = [], []
    for one in vectorizers:
        status = one.status()
        destination = status["destination"]
        results.append({"name": one.name, "source": status["source"], "destination": destination})
        texts.append(
            f"Vectorizer {one.name} is installed on {status['source']}; "
            f"embeddings go to {destination}.\n"
            f"Embed what is there: vectorizer run {one.name}"
        )
    report(json, results, "\n".join(texts))
