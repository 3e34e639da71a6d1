"""The oldest and the newest Python of this machine, besides the one that runs the tests."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import psycopg
import pytest

REPOSITORY = Path(__file__).parents[2]
OLDEST = 10  # of requires-python


def pythons() -> list[Path]:
    """Return the oldest and the newest interpreter that there is, by PATH or pyenv."""
    folders = [Path(folder) for folder in os.get_exec_path()]
    if root := os.environ.get("PYENV_ROOT"):
        folders += sorted(Path(root, "versions").glob("3.*/bin"))
    found: dict[int, Path] = {}
    for minor in range(OLDEST, 20):
        for program in (folder / f"python3.{minor}" for folder in folders):
            # What pyenv puts into PATH is only a script, and fails for versions not chosen.
            if minor not in found and program.exists() and _works(program):
                found[minor] = program
    others = sorted(minor for minor in found if minor != sys.version_info.minor)
    return [found[minor] for minor in dict.fromkeys(others[:1] + others[-1:])]


def _works(program: Path) -> bool:
    done = subprocess.run(
        [program, "-c", "import venv, ensurepip"], capture_output=True, check=False
    )
    return done.returncode == 0


@pytest.mark.timeout(1200)  # it installs everything anew
@pytest.mark.parametrize("python", pythons() or [None], ids=lambda path: path and path.name)
def test_the_program_runs(python: Path | None, vectorizer_url: str, tmp_path: Path) -> None:
    if python is None:
        pytest.skip("there is no other Python on this machine")
    environment = {**os.environ, "VECTORIZER_URL": vectorizer_url}
    environment.pop("PYTHONPATH", None)

    def run(*command: object) -> str:
        done = subprocess.run(
            [str(part) for part in command],
            cwd=tmp_path, env=environment, text=True, check=False,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout
        return done.stdout

    run(python, "-m", "venv", tmp_path / "venv")
    programs = tmp_path / "venv" / "bin"
    run(programs / "python", "-m", "pip", "install", "-qq", "pip>=22")
    run(programs / "python", "-m", "pip", "install", "-qq", REPOSITORY)
    with psycopg.connect(vectorizer_url) as connection:
        connection.execute("create table blog (id int primary key, contents text)")
        connection.execute("insert into blog values (1, 'a cat sleeps'), (2, 'an index')")
    options = ("--chunk-column", "contents", "--embedder", "fake", "--dimensions", "16")
    run(programs / "vectorizer", "install", "blog", *options)
    assert "blog: 2 rows" in run(programs / "vectorizer", "run")
    assert "a cat sleeps" in run(programs / "vectorizer", "search", "blog", "cat", "--limit", "1")
    assert "blog: ok" in run(programs / "vectorizer", "verify")
