"""Streaming replicas of the embedded server."""

from __future__ import annotations

from typing import TYPE_CHECKING

from psycopg.conninfo import conninfo_to_dict, make_conninfo

from vectorizer.embedded import _account, _cluster

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["replicate"]


def replicate(url: str, folder: Path) -> None:
    """Copy the server into a folder from which a replica can be started."""
    data = folder / "data"
    data.mkdir(mode=0o700, parents=True)
    programs = _cluster._programs(18)
    _account.give(data)
    _account.admit(data, programs)
    parts = conninfo_to_dict(url)
    done = _account.run(
        programs / "pg_basebackup", "-D", str(data), "--write-recovery-conf",
        "--checkpoint=fast", "--no-sync", "--wal-method=stream",
        "-d", make_conninfo("", host=parts["host"], port=parts["port"], user=parts["user"]),
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    for copied in data.glob(".s.PGSQL.*.lock"):  # the socket is in the data folder
        copied.unlink()
