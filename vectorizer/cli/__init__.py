"""The command line, one command a file.

Exit codes: 0 done; 1 done, but something is left dead or paused, or a provider did not
answer; 2 something is wrong that the user has to mend.
"""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

from vectorizer.cli import (
    _shared,
    dead_letters,
    demo,
    install,
    migrate,
    pause,
    resume,
    retry,
    run,
    search,
    status,
    suspend,
    uninstall,
    verify,
    wait,
)
from vectorizer.errors import EmbedderUnavailable, LeaseLost, VectorizerError, VectorizerPaused

__all__ = ["app", "main"]

app = typer.Typer(
    name="vectorizer",
    help="Keep embeddings in step with PostgreSQL tables.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback()
def _root(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_shared.print_version, is_eager=True, help="Print the version."
        ),
    ] = False,
) -> None:
    """Keep embeddings in step with PostgreSQL tables."""
    _ = version


for module in (
    demo,
    install,
    run,
    status,
    search,
    verify,
    dead_letters,
    retry,
    wait,
    pause,
    suspend,
    resume,
    uninstall,
    migrate,
):
    name = module.__name__.rpartition(".")[2].replace("_", "-")
    app.command(name, help=module.HELP)(module.command)


def main() -> None:
    """Run the command line; print any error in one line instead of a traceback."""
    try:
        app()
    except VectorizerError as error:
        _fail(
            str(error),
            1 if isinstance(error, (EmbedderUnavailable, LeaseLost, VectorizerPaused)) else 2,
        )
    except KeyboardInterrupt:
        _fail("interrupted; nothing is lost, run it again", 130)
    except Exception as error:
        if os.environ.get("VECTORIZER_TRACEBACK"):
            raise
        _fail(
            f"unexpected {type(error).__name__}: {error} "
            f"(set VECTORIZER_TRACEBACK=1 for where it happened)",
            1,
        )


def _fail(message: str, code: int) -> None:
    print(f"vectorizer: {' '.join(message.split())}", file=sys.stderr)  # noqa: T201 - this is the CLI
    sys.exit(code)
