"""A PgBouncer of one's own: transaction pooling, two connections to the server."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

__all__ = ["POOL_SIZE", "from_apt", "from_root", "pooled"]

POOL_SIZE = 2
_SECONDS = 60

_CONFIGURATION = """
[databases]
* = host='{host}' port={port} user={user}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {listen}
unix_socket_dir =
auth_type = any
pool_mode = transaction
default_pool_size = {size}
max_client_conn = 100
{more}
"""


def from_apt() -> list[str]:
    """Return the command of Debian's PgBouncer 1.18, which knows no prepared statements."""
    found = shutil.which("pgbouncer", path=f"{os.environ['PATH']}:/usr/sbin")
    if found is None:
        pytest.skip("there is no PgBouncer: apt-get install pgbouncer")
    return [found]


def from_root() -> list[str]:
    """Return the command of the newer PgBouncer that .ci/postgres17.sh unpacks."""
    root = Path(os.environ.get("VECTORIZER_TEST_ROOT_17", "/nowhere"))
    program = root / "usr/sbin/pgbouncer"
    loaders = list(root.glob("usr/lib/*/ld-linux*.so.*"))
    if not program.exists() or not loaders:
        pytest.skip("VECTORIZER_TEST_ROOT_17 names no folder with PgBouncer: see .ci/run")
    # With the libraries it was made for, which this machine need not have.
    return [str(loaders[0]), "--library-path", str(loaders[0].parent), str(program)]


@contextmanager
def pooled(command: Sequence[str], url: str, *settings: str) -> Iterator[str]:
    """Start a PgBouncer before a server; yield the URL of the same database through it."""
    server = conninfo_to_dict(url)
    host, port = str(server["host"]), server.get("port", 5432)
    listen = _free_port()
    # Not below pytest's folder, which only its owner may enter.
    folder = Path(tempfile.mkdtemp(prefix="pgbouncer-"))
    file = folder / "pgbouncer.ini"
    file.write_text(
        _CONFIGURATION.format(
            host=host,
            port=port,
            user=server.get("user", "postgres"),
            listen=listen,
            size=POOL_SIZE,
            more="\n".join(settings),
        )
    )
    through = f"postgresql://postgres@127.0.0.1:{listen}/{quote(str(server['dbname']), safe='')}"
    with (folder / "log").open("w+") as log:
        process = subprocess.Popen(
            [*command, "-q", *_account(host), str(file)], stdout=log, stderr=log
        )
        try:
            _wait(through, process, folder / "log")
            yield through
        finally:
            process.kill()
            process.wait()
            shutil.rmtree(folder)


def _account(host: str) -> list[str]:
    """Name, as root, which it refuses to run as, the user who may open the server's socket."""
    if os.geteuid() != 0:
        return []
    user = Path(host).stat().st_uid if host.startswith("/") else 0
    return ["-u", pwd.getpwuid(user).pw_name if user else "nobody"]


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + _SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        with suppress(psycopg.OperationalError), psycopg.connect(url):
            return
    pytest.fail(f"PgBouncer does not answer: {log.read_text()}")
