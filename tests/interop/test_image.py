"""The image of the Dockerfile, which `make image` builds: its root, run without Docker."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import urllib.request
from contextlib import contextmanager
from pathlib import Path
from signal import SIGTERM
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from vectorizer import Vectorizer
from vectorizer.testing import FakeEmbedder

sys.path.append(str(Path(__file__).parents[1] / "faults"))
from proxy import Proxy

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

FOLDER = Path(os.environ.get("VECTORIZER_TEST_IMAGE", "/nowhere"))
pytestmark = pytest.mark.skipif(
    not (FOLDER / "root").is_dir(), reason="VECTORIZER_TEST_IMAGE is not set: see make image"
)
MEGABYTE = 1_000_000
CHROOT = shutil.which("chroot")


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@pytest.fixture
def url(vectorizer_url: str) -> Iterator[str]:
    """URL of a database with pgvector that can be reached over TCP."""
    with Proxy(vectorizer_url) as proxy:
        yield proxy.url


@pytest.fixture(scope="module")
def config() -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((FOLDER / "config.json").read_text())
    return loaded


class Image:
    """Starts commands in the image's root, as its user, with nothing writable but /proc."""

    def __init__(self, config: dict[str, Any]) -> None:
        self.config = config

    def command(self, arguments: Sequence[str]) -> list[str]:
        root = FOLDER / "root"
        script = (
            f"mount --bind {root} {root} && mount -o remount,bind,ro {root} &&"
            f' PATH="$IMAGE_PATH" exec {CHROOT} --userspec={self.config["User"]} {root} "$@"'
        )
        return ["unshare", "--mount", "sh", "-ec", script, "sh", *arguments]

    def environment(self, variables: Mapping[str, str]) -> dict[str, str]:
        own = dict(variable.split("=", 1) for variable in self.config["Env"])
        return {**own, **variables, "PATH": os.environ["PATH"], "IMAGE_PATH": own["PATH"]}

    @contextmanager
    def running(self, *arguments: str, **variables: str) -> Iterator[subprocess.Popen[str]]:
        command = self.command([*self.config["Entrypoint"], *arguments])
        environment = self.environment(variables)
        with subprocess.Popen(
            command, env=environment, stderr=subprocess.PIPE, text=True
        ) as process:
            try:
                yield process
            finally:
                process.kill()

    def run(self, arguments: Sequence[str], **variables: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.command(arguments),
            env=self.environment(variables),
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )


@pytest.fixture(scope="module")
def image(config: dict[str, Any]) -> Image:
    unshare = shutil.which("unshare")
    if unshare is None or subprocess.run([unshare, "--mount", "true"], check=False).returncode:
        pytest.skip("mount namespaces are not to be had here: run it as root")
    return Image(config)


def test_it_is_configured_as_it_should_be(config: dict[str, Any]) -> None:
    assert config["User"] == "65532:65532"
    assert config["Entrypoint"] == ["vectorizer"]
    assert config["Cmd"] == ["worker"]
    assert config["ExposedPorts"] == {"9464/tcp": {}}
    assert config["Healthcheck"]["Test"][0] == "CMD"


def test_it_holds_no_more_than_it_needs() -> None:
    ours = FOLDER / "root" / "opt" / "vectorizer"
    size = sum(f.lstat().st_size for f in ours.rglob("*") if not f.is_dir())
    assert size < 160 * MEGABYTE
    assert not list(ours.glob("lib/python3*/site-packages/pip"))
    outside = {path.name for path in (FOLDER / "root").iterdir()}
    assert not outside & {"src", "vectorizer"}


def test_its_commands_run_read_only(image: Image, url: str) -> None:
    done = image.run([*image.config["Entrypoint"], "--version"])
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("vectorizer ")
    done = image.run(["python3", "-c", "open('/opt/vectorizer/mine', 'w')"])
    assert "Read-only file system" in done.stderr
    done = image.run([*image.config["Entrypoint"], "migrate"], VECTORIZER_URL=url)
    assert done.returncode == 0, done.stderr


def test_its_worker_embeds_is_healthy_and_stops(
    image: Image, url: str, eventually: Callable[[Callable[[], object]], None]
) -> None:
    port = str(free_port())
    variables = {"VECTORIZER_URL": url, "VECTORIZER_METRICS_PORT": port}
    check = image.config["Healthcheck"]["Test"][1:]
    assert image.run(check, **variables).returncode != 0
    with (
        psycopg.connect(url, autocommit=True) as db,
        Vectorizer(url, "post", embedder=FakeEmbedder(), chunk_column="body") as vectorizer,
    ):
        db.execute("create table post (id int primary key, body text)")
        db.execute("insert into post select n, 'text ' || n from generate_series(1, 500) n")
        vectorizer.install()
        with image.running(*image.config["Cmd"], **variables) as worker:
            count = "select count(*) from post_embedding"
            eventually(lambda: db.execute(count).fetchone() == (500,))
            db.execute("update post set body = 'edited' where id = 7")
            edited = "select contents from post_embedding where source_id = 7"
            eventually(lambda: db.execute(edited).fetchone() == ("edited",))
            assert image.run(check, **variables).returncode == 0
            page = f"http://127.0.0.1:{port}/metrics"
            with urllib.request.urlopen(page, timeout=10) as answer:
                assert b"vectorizer_rows_total" in answer.read()
            worker.send_signal(SIGTERM)
            _, log = worker.communicate(timeout=30)
        assert worker.returncode == 0, log
        assert all(line.startswith("{") for line in log.splitlines()), log
        assert all(json.loads(line)["message"] for line in log.splitlines())
        assert vectorizer.verify().ok
