from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_synchronous_code_is_what_unasync_makes() -> None:
    check = [sys.executable, str(ROOT / ".ci" / "unasync.py"), "--check"]
    done = subprocess.run(check, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"run .ci/unasync.py\n{done.stdout}{done.stderr}"
