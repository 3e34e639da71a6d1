"""The configuration of this run of the command line."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from vectorizer.config import Loaded, load

__all__ = [
    "be_quiet",
    "be_verbose",
    "going_offline",
    "is_quiet",
    "least_level",
    "offline",
    "settings",
    "use_file",
]


class _Choice:
    """What was said before the command: of this process, for a command line has only one."""

    file: Path | None = None
    offline: bool = False
    quiet: bool = False
    verbose: bool = False


def use_file(file: Path | None) -> None:
    """Take over --config; `vectorizer sql` comes by here twice."""
    if not _Choice.offline:
        _Choice.file = file


def settings(**flags: Mapping[str, Any]) -> Loaded:
    """Return the configuration, with what flags say by section: `worker={"concurrency": 8}`."""
    return load(_Choice.file, os.environ, flags)


@contextmanager
def going_offline() -> Iterator[None]:
    """Print SQL without looking at any database, as `vectorizer sql` does."""
    _Choice.offline = True
    try:
        yield
    finally:
        _Choice.offline = False


def offline() -> bool:
    """Whether no database is to be looked at."""
    return _Choice.offline


def be_quiet(quiet: bool) -> None:
    """Take over --quiet: print what was asked for and errors, no progress and no reports."""
    _Choice.quiet = quiet


def be_verbose(verbose: bool) -> None:
    """Take over --verbose: log what is done."""
    _Choice.verbose = verbose


def least_level() -> str | None:
    """Return the level of logs that --verbose or --quiet ask for, if one of them was given."""
    if _Choice.verbose:
        return "debug"
    return "warning" if _Choice.quiet else None


def is_quiet() -> bool:
    """Whether only what was asked for is printed."""
    return _Choice.quiet
