"""The command line, one command a file.

Exit codes: 0 done; 1 done, but something is left dead or paused, or a provider did not
answer; 2 something is wrong that the user has to mend.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from vectorizer.cli import (
    _logs,
    _shared,
    collapse,
    config,
    dead_letters,
    demo,
    doctor,
    drop_generation,
    grant,
    init,
    install,
    migrate,
    pause,
    plan,
    resume,
    retry,
    run,
    search,
    sql,
    status,
    suspend,
    switch,
    uninstall,
    verify,
    wait,
    worker,
)
from vectorizer.cli._settings import be_quiet, be_verbose, use_file
from vectorizer.cli._shared import complain, exit_code, flowing
from vectorizer.errors import VectorizerError

__all__ = ["app", "main"]

_INTERRUPTED = 130
# typer imports click or, since 0.20, carries a copy of it: the error's class is found through
# the one name that is public in both.
_UsageError: type[Exception] = typer.BadParameter.__bases__[0]

app = typer.Typer(
    name="vectorizer",
    help="Keep embeddings in step with PostgreSQL tables.",
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
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="Print results and errors only.")
    ] = False,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Log what is done to standard error.")
    ] = False,
    config_: Annotated[
        Path | None,
        typer.Option(
            "--config",
            envvar="VECTORIZER_CONFIG",
            help="Configuration file; by default vectorizer.toml, if it is there.",
        ),
    ] = None,
) -> None:
    """Keep embeddings in step with PostgreSQL tables."""
    _ = version
    be_quiet(quiet)
    be_verbose(verbose)
    if verbose:
        _logs.configure("console", "debug")
    use_file(config_)


for module in (
    demo,
    init,
    install,
    plan,
    run,
    worker,
    status,
    doctor,
    search,
    verify,
    dead_letters,
    retry,
    wait,
    pause,
    suspend,
    resume,
    collapse,
    switch,
    drop_generation,
    uninstall,
    migrate,
    grant,
):
    name = module.__name__.rpartition(".")[2].replace("_", "-")
    app.command(name, help=flowing(module.HELP))(module.command)
app.command(
    "sql",
    help=flowing(sql.HELP),
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
)(sql.command)
app.add_typer(config.app, name="config", help=flowing(config.HELP))


def main() -> None:
    """Run the command line; print any error in one line instead of a traceback."""
    if "" not in sys.path:
        sys.path.append("")  # the working folder, for --embedder my_module:embed
    try:
        code = app(_ordered(sys.argv[1:]) or ["--help"], standalone_mode=False) or 0
    except _UsageError as error:
        _fail(_usage(error), 2)
    except VectorizerError as error:
        _fail(str(error), exit_code(error))
    except (KeyboardInterrupt, typer.Abort):
        code = _INTERRUPTED
    except Exception as error:
        if os.environ.get("VECTORIZER_TRACEBACK"):
            raise
        _fail(
            f"unexpected {type(error).__name__}: {error} "
            f"(set VECTORIZER_TRACEBACK=1 for where it happened)",
            1,
        )
    if code == _INTERRUPTED:
        _fail("interrupted; nothing is lost, run it again", code)
    sys.exit(code)


def _ordered(arguments: list[str]) -> list[str]:
    """Return arguments with what goes for all commands before the command, wherever it was."""
    end = arguments.index("--") if "--" in arguments else len(arguments)
    general = [one for one in arguments[:end] if one in ("--quiet", "--verbose")]
    return [*general, *(one for one in arguments[:end] if one not in general), *arguments[end:]]


def _usage(error: Exception) -> str:
    # Of click's kind, whose message ends with a full stop and whose context names the command.
    context = getattr(error, "ctx", None)
    command = context.command_path if context is not None else "vectorizer"
    return f"{error.format_message().rstrip('.')}; see: {command} --help"  # type: ignore[attr-defined]


def _fail(message: str, code: int) -> NoReturn:
    complain(message)
    sys.exit(code)
