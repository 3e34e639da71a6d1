"""PostgreSQL with pgvector in a folder, for the demo and for tests.

::

    with embedded.start() as server:
        psycopg.connect(server.url)

What lies in the folder::

    data/   the database cluster, with the server's log in data/server.log
    lock    held by a process while it starts or stops the server
    users   held, shared, by every process that uses the server; the kernel lets go of
            it however that process ends, so the last user is always known
    keep    exists if the server is to outlive its users
"""

from __future__ import annotations

import atexit
import fcntl
import os
import shutil
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING

from vectorizer.embedded import _cluster
from vectorizer.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType

    from typing_extensions import Self

__all__ = ["EmbeddedServer", "default_folder", "is_running", "start", "stop"]


class EmbeddedServer:
    """A running server, as `start` returns it.

    Leaving its `with` block, or the end of the process, gives it up: the server stops with
    its last user, unless it was started to keep running.
    """

    def __init__(self, folder: Path, url: str, users: IO[str]) -> None:
        self.folder = folder
        """The folder it was started in."""
        self.url = url
        """Connection URL of the superuser and the database `postgres`."""
        self._users = users
        self._process = os.getpid()
        atexit.register(self.close)

    def close(self, *, delete: bool = False) -> None:
        """Give the server up; if nobody else uses it, it stops.

        If it stops, with `delete` its folder goes too.
        """
        atexit.unregister(self.close)
        if self._users.closed:
            return
        with self._users:
            if self._process == os.getpid():  # a fork does not own what it inherited
                _leave(self.folder, self._users, delete=delete)

    def stop(self) -> None:
        """Stop the server at once, whoever else uses it."""
        stop(self.folder)
        self.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


def default_folder() -> Path:
    """Return where this user's server lives; $VECTORIZER_HOME replaces the usual data folder."""
    home = os.environ.get("VECTORIZER_HOME")
    if home is None:
        from platformdirs import user_data_dir  # noqa: PLC0415 - nothing else needs it

        home = user_data_dir("vectorizer")
    return Path(home) / "postgres"


def start(
    folder: Path | None = None,
    *,
    keep_running: bool = False,
    durable: bool = True,
    version: int | None = None,
) -> EmbeddedServer:
    """Start the server of `folder`, or join it if it is running already.

    Any number of processes may do so at once. With `keep_running` the server goes on after
    its last user until `stop`. Not `durable` is for tests: nothing is flushed to disk, and a
    crash of the machine may destroy the data. `version` is that of PostgreSQL, 16 or 18;
    without it, the one that made the data, or the newest.

    Raises ConfigurationError if the programs are not installed or `folder` is unsuitable,
    and DatabaseError, with the end of the server's log, if the server does not start.
    """
    home = _resolve(folder)
    with _locked(home):
        users = (home / "users").open("w")
        try:
            fcntl.flock(users, fcntl.LOCK_SH)
            _cluster.launch(home / "data", durable=durable, version=version)
        except BaseException:
            users.close()
            raise
        if keep_running:
            (home / "keep").touch()
        return EmbeddedServer(home, _cluster.url(home / "data"), users)


def is_running(folder: Path | None = None) -> bool:
    """Tell whether the server of `folder` accepts connections."""
    return _cluster.status(_resolve(folder) / "data") == "ready"


def stop(folder: Path | None = None) -> None:
    """Stop the server of `folder`, whoever uses it; do nothing if it does not run."""
    home = _resolve(folder)
    if home.exists():
        with _locked(home):
            (home / "keep").unlink(missing_ok=True)
            _cluster.halt(home / "data")


def _resolve(folder: Path | None) -> Path:
    return (default_folder() if folder is None else Path(folder)).expanduser().resolve()


@contextmanager
def _locked(home: Path) -> Iterator[None]:
    """Let no other process start or stop this server meanwhile."""
    while True:
        with _open_lock(home) as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            if os.fstat(file.fileno()).st_nlink:  # its last holder has not deleted it
                yield
                return


def _open_lock(home: Path) -> IO[str]:
    try:
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
        return (home / "lock").open("w")
    except OSError as error:
        raise ConfigurationError(
            f"cannot keep a database in {home}: {error.strerror}; name another folder"
        ) from error


def _leave(home: Path, users: IO[str], *, delete: bool) -> None:
    if not home.exists():
        return
    with _locked(home):
        try:
            fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return  # somebody else uses it
        if (home / "keep").exists():
            return
        _cluster.halt(home / "data")
        if delete:
            shutil.rmtree(home, ignore_errors=True)  # another process may be starting
