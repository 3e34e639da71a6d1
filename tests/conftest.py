"""What our own tests need beyond the fixtures of `vectorizer.testing.pytest_plugin`."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
from typing import TYPE_CHECKING

import pytest
from waiting import until

from vectorizer.testing.pytest_plugin import database, template

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

# A shell without job control starts what it puts into the background with SIGINT ignored, and our
# children would inherit that.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

_TEMPORARY = "PYTEST_DEBUG_TEMPROOT"


def pytest_configure(config: pytest.Config) -> None:
    """As root, keep the temporary folders apart from those of other runs of pytest.

    Each run closes the folder above all of them to other users, and as root our servers are
    run by one.
    """
    if os.geteuid() == 0 and _TEMPORARY not in os.environ:
        folder = os.environ[_TEMPORARY] = tempfile.mkdtemp(prefix="vectorizer-tests-")
        config.add_cleanup(lambda: shutil.rmtree(folder, ignore_errors=True))


@pytest.fixture(scope="session")
def postgres17_template() -> Iterator[tuple[str, str]]:
    """URL of the PostgreSQL 17 of .ci/postgres17.sh, and the template made there."""
    server = os.environ.get("VECTORIZER_TEST_URL_17")
    if not server:
        pytest.skip("VECTORIZER_TEST_URL_17 is not set: see .ci/postgres17.sh")
    with template(server) as name:
        yield server, name


@pytest.fixture
def postgres17_url(postgres17_template: tuple[str, str]) -> Iterator[str]:
    """URL of a fresh database with pgvector on PostgreSQL 17, for tests marked `needs_apt`."""
    with database(*postgres17_template) as url:
        yield url


@pytest.fixture
def eventually() -> Callable[[Callable[[], object]], None]:
    """Wait until a condition holds: `eventually(lambda: queue.empty())`."""
    return until
