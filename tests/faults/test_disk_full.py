"""The server's disk is full for a while (fault 35)."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psycopg
import pytest
from posts import check, create, posts
from servers import own_database

from vectorizer import Vectorizer
from vectorizer.errors import DatabaseUnavailable

_BYTES = 400 << 20


@contextmanager
def _small_disk(folder: Path) -> Iterator[Path]:
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={_BYTES}", "tmpfs", str(folder)]
    if subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("this user may not mount a tmpfs")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)  # noqa: S607 - where it is differs


def _fill(balloon: Path) -> None:
    with suppress(OSError), balloon.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(1 << 16))


def _drained(worker: Vectorizer) -> bool:
    try:
        worker.run()
    except DatabaseUnavailable:
        return False
    return True


@pytest.mark.needs_apt
def test_a_full_disk_is_survived(
    tmp_path: Path, eventually: Callable[[Callable[[], object]], None]
) -> None:
    with (
        _small_disk(tmp_path / "disk") as disk,
        own_database(disk / "server", wal_recycle="off", max_wal_size="64MB") as url,
        posts(url, batch_size=50, lease_seconds=1.0) as worker,
    ):
        connection = create(url, rows=4000)
        worker.install()
        assert worker.process() == 50
        balloon = disk / "balloon"
        _fill(balloon)
        with pytest.raises(DatabaseUnavailable):  # so that a worker backs off
            worker.run()
        balloon.unlink()
        with suppress(psycopg.Error):
            connection.close()
        # A server whose log could not be written has crashed and recovers.
        eventually(lambda: _drained(worker))
        with psycopg.connect(url, autocommit=True) as again:
            check(again, worker)
