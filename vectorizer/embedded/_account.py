"""The user that runs the server: whoever we are, but never root, which PostgreSQL refuses.

Root runs it as the user `pgserver`, makes that user if it is missing, and lets it pass
through (not list) the folders above the data and the programs.
"""

from __future__ import annotations

import fcntl
import os
import pwd
import stat
import subprocess
from contextlib import suppress
from pathlib import Path

from vectorizer.errors import ConfigurationError

_NAME = "pgserver"


_ROOT = Path("/")


def run(program: Path, *arguments: str, folder: Path = _ROOT) -> subprocess.CompletedProcess[str]:
    """Run a program of PostgreSQL as the server's user, in a folder open to that user.

    The server's own output goes to its log, its input is empty and it inherits no other
    descriptor: it never holds a pipe of ours open after we ended.
    """
    account = _find()
    root = os.geteuid() == 0
    try:
        return subprocess.run(  # noqa: S603 - programs of the package, arguments of ours
            [str(program), *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            errors="replace",
            check=False,
            cwd=folder,
            env=_environment(),
            user=account.pw_uid if root else None,
            group=account.pw_gid if root else None,
            extra_groups=[] if root else None,
        )
    except PermissionError as error:
        raise ConfigurationError(f"{account.pw_name} may not run {program}") from error


def uid() -> int:
    """Return the number of the server's user."""
    return _find().pw_uid


def give(path: Path) -> None:
    """Give a file we wrote to the server's user."""
    if os.geteuid() == 0:
        account = _find()
        os.chown(path, account.pw_uid, account.pw_gid)


def admit(data: Path, programs: Path) -> None:
    """Let the server's user reach its data and its programs."""
    if os.geteuid() != 0:
        return
    for folder in (*data.parents, *programs.parents):
        _add_mode(folder, stat.S_IXOTH)
    if not programs.stat().st_mode & stat.S_IXOTH:
        _open_package(programs)


def _open_package(programs: Path) -> None:
    """Let everybody read a package that was installed under umask 077."""
    package = programs.parents[1]
    parts = list(package.parent.glob(f"{package.name}*"))  # libraries have a folder of their own
    paths = [*parts, *(path for part in parts for path in part.rglob("*"))]
    for path in sorted(paths, key=programs.__eq__):  # the sign that all is done comes last
        executable = path.stat().st_mode & stat.S_IXUSR
        _add_mode(path, stat.S_IROTH | (stat.S_IXOTH if executable else 0))


def _add_mode(path: Path, bits: int) -> None:
    mode = path.stat().st_mode
    if mode & bits != bits:
        path.chmod(stat.S_IMODE(mode) | bits)


def _environment() -> dict[str, str]:
    """Return ours without PGPORT, PGDATA and the like, which would override what we say."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
    return {**inherited, "LC_ALL": "C"}


def _find() -> pwd.struct_passwd:
    try:
        return _look_up()
    except KeyError:
        if os.geteuid() == 0:
            _make()
    try:
        return _look_up()
    except KeyError as error:
        raise ConfigurationError(
            f"PostgreSQL cannot run as user {os.geteuid() or _NAME}, which has no entry in "
            f"/etc/passwd: make one with useradd, or name a server of your own with --url"
        ) from error


def _look_up() -> pwd.struct_passwd:
    return pwd.getpwuid(os.geteuid()) if os.geteuid() else pwd.getpwnam(_NAME)


def _make() -> None:
    # Under a lock, because of two useradd at once one fails.
    with Path("/etc/passwd").open() as passwd, suppress(FileNotFoundError, KeyError):
        fcntl.flock(passwd, fcntl.LOCK_EX)
        if _NAME not in {entry.pw_name for entry in pwd.getpwall()}:
            subprocess.run(  # noqa: S603 - the name is a constant
                ["useradd", "--system", "--shell", "/bin/false", _NAME],  # noqa: S607
                check=False,
                capture_output=True,
            )
