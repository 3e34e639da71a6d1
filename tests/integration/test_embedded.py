from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
import pytest

from vectorizer import embedded
from vectorizer.embedded import _cluster
from vectorizer.errors import ConfigurationError, DatabaseError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

START = """
import os, sys
from pathlib import Path
from vectorizer import embedded
server = embedded.start(Path(sys.argv[1]), durable=False, keep_running={keep})
print((server.folder / "data" / "postmaster.pid").read_text().split()[0], flush=True)
"""
STAY = START.format(keep=False) + "sys.stdin.read()"


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / 'it\'s "a $(server), really"'
    yield folder
    embedded.stop(folder)
    shutil.rmtree(folder, ignore_errors=True)


def python(code: str, folder: Path) -> list[str]:
    return [sys.executable, "-W", "error", "-c", code, str(folder)]


def process(code: str, folder: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        python(code, folder), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


def line(started: subprocess.Popen[str]) -> str:
    assert started.stdout is not None
    return started.stdout.readline().strip()


def value(server: embedded.EmbeddedServer, query: str) -> object:
    with psycopg.connect(server.url) as connection:
        row = connection.execute(query).fetchone()
        assert row is not None
        return row[0]


def server_process(folder: Path) -> int:
    return int((folder / "data" / "postmaster.pid").read_text().split()[0])


def test_it_has_pgvector_and_stops_with_its_block(folder: Path) -> None:
    with embedded.start(folder, durable=False) as server:
        assert server.folder == folder
        assert embedded.is_running(folder)
        with psycopg.connect(server.url) as connection:
            connection.execute("CREATE EXTENSION vector")
        assert value(server, "SHOW fsync") == "off"
        assert value(server, "SELECT lower('Ä')") == "ä"
    assert not embedded.is_running(folder)


def test_it_is_durable_unless_told_otherwise(folder: Path) -> None:
    with embedded.start(folder, durable=False):
        pass
    with embedded.start(folder) as server:
        assert value(server, "SHOW fsync") == "on"


def test_it_runs_until_its_last_user_leaves(folder: Path) -> None:
    with embedded.start(folder, durable=False):
        with embedded.start(folder, durable=False):
            pass
        assert embedded.is_running(folder)
    assert not embedded.is_running(folder)


def test_four_processes_start_one_server(folder: Path) -> None:
    with ExitStack() as stack:
        processes = [stack.enter_context(process(STAY, folder)) for _ in range(4)]
        servers = {line(started) for started in processes}
        assert servers == {str(server_process(folder))}
    assert [started.returncode for started in processes] == [0] * 4
    assert not embedded.is_running(folder)


def test_it_survives_its_killed_owner_until_the_next_one_leaves(folder: Path) -> None:
    with process(STAY, folder) as owner:
        started = line(owner)
        owner.kill()
    assert embedded.is_running(folder)
    with embedded.start(folder, durable=False):
        assert str(server_process(folder)) == started
    assert not embedded.is_running(folder)


def test_a_killed_server_starts_again_with_all_that_was_committed(
    folder: Path, eventually: Callable[[Callable[[], object]], None]
) -> None:
    first = embedded.start(folder, durable=False)
    with psycopg.connect(first.url) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 1 AS number")
    os.kill(server_process(folder), signal.SIGKILL)
    eventually(lambda: not embedded.is_running(folder))
    with embedded.start(folder, durable=False) as second:
        assert value(second, "SELECT number FROM kept") == 1
    first.close()


def test_a_killed_initdb_leaves_nothing(folder: Path) -> None:
    (folder / "init-dead").mkdir(parents=True)
    with embedded.start(folder, durable=False) as server:
        assert value(server, "SELECT 1") == 1
    assert {path.name for path in folder.iterdir()} == {"data", "lock", "users"}


def test_it_is_quiet_and_holds_no_pipe_of_its_starter(folder: Path) -> None:
    starter = python(START.format(keep=True), folder)
    # Were a pipe inherited by the server, reading it to the end would take for ever.
    done = subprocess.run(starter, capture_output=True, text=True, check=True, timeout=30)
    assert done.stderr == ""
    assert done.stdout == f"{server_process(folder)}\n"
    assert embedded.is_running(folder)


def test_a_kept_server_runs_until_stopped(folder: Path) -> None:
    with embedded.start(folder, durable=False, keep_running=True):
        pass
    with embedded.start(folder, durable=False):
        pass
    assert embedded.is_running(folder)
    embedded.stop(folder)
    assert not embedded.is_running(folder)


def test_stop_does_not_ask_who_uses_it(folder: Path) -> None:
    with process(STAY, folder) as other:
        line(other)
        embedded.start(folder, durable=False).stop()
        assert not embedded.is_running(folder)


def test_a_fork_does_not_stop_it(folder: Path) -> None:
    fork = "if os.fork() == 0: sys.exit()\nos.wait()\nprint(embedded.is_running(server.folder))"
    with process(START.format(keep=False) + fork, folder) as parent:
        output = parent.communicate()[0]
    assert output.splitlines()[1:] == ["True"]
    assert not embedded.is_running(folder)


def test_a_long_path(tmp_path: Path) -> None:
    folder = tmp_path / ("long" * 20)
    with embedded.start(folder, durable=False) as server:
        assert value(server, "SELECT 1") == 1
        sockets = Path(str(value(server, "SHOW unix_socket_directories")).strip('"'))
        assert sockets.stat().st_mode & 0o777 == 0o700
        server.close(delete=True)
    assert not sockets.exists()


def test_closing_can_delete_the_data(folder: Path) -> None:
    first, second = (embedded.start(folder, durable=False) for _ in range(2))
    first.close(delete=True)
    assert value(second, "SELECT 1") == 1
    second.close(delete=True)
    assert not folder.exists()


def test_settings_of_another_server_in_the_environment(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("PGPORT", "PGDATA", "PGHOST", "PGOPTIONS"):
        monkeypatch.setenv(name, "1")
    with embedded.start(folder, durable=False) as server:
        monkeypatch.delenv("PGOPTIONS")
        assert value(server, "SELECT 1") == 1


def test_a_server_that_cannot_start_says_why(folder: Path) -> None:
    embedded.start(folder, durable=False).close()
    (folder / "data" / "postgresql.auto.conf").write_text("nonsense = on\n")
    with pytest.raises(DatabaseError, match=r"did not start:(.|\n)*nonsense"):
        embedded.start(folder)


def test_postgresql_16_and_what_it_made(folder: Path) -> None:
    with embedded.start(folder, durable=False, version=16) as server:
        assert value(server, "SHOW server_version_num").__str__().startswith("16")
    with pytest.raises(ConfigurationError, match="made by PostgreSQL 16, not 18"):
        embedded.start(folder, version=18)
    with embedded.start(folder, durable=False):
        pass


def test_an_unknown_version(folder: Path) -> None:
    with pytest.raises(ConfigurationError, match="no embedded PostgreSQL 9; there is 16, 18"):
        embedded.start(folder, version=9)


def test_nothing_to_stop(tmp_path: Path) -> None:
    embedded.stop(tmp_path / "none")
    assert not embedded.is_running(tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_a_file_where_the_folder_should_be(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigurationError, match="name another folder"):
        embedded.start(tmp_path / "file")


def test_without_the_package(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_cluster, "find_spec", lambda _: None)
    with pytest.raises(ConfigurationError, match=r"pg-vectorizer\[embedded\].*--url"):
        embedded.start(folder)


def test_its_default_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VECTORIZER_HOME", "/somewhere")
    assert embedded.default_folder() == Path("/somewhere/postgres")
    monkeypatch.delenv("VECTORIZER_HOME")
    monkeypatch.setenv("XDG_DATA_HOME", "/elsewhere")
    monkeypatch.setenv("HOME", "/elsewhere")
    folder = embedded.default_folder()
    assert folder.is_relative_to("/elsewhere")
    assert folder.parts[-2:] == ("vectorizer", "postgres")
