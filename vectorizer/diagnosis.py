"""From facts about a database to findings: what is well, what is not, and what to do."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from enum import Enum
from typing import Any, Final

__all__ = ["Finding", "Level", "of_schema", "of_server", "of_status", "of_vectorizer"]

_OLDEST_VECTOR: Final = (0, 5)
_HALF_VECTORS: Final = (0, 7)
# A worker of four batches and a few commands beside it.
_CONNECTIONS: Final = 8
# Rows are updated in place: this many dead ones for each live one is more than VACUUM would leave.
_DEAD_SHARE, _DEAD_LEAST = 1, 100_000
_LAG_SECONDS: Final = 60.0


class Level(str, Enum):
    """How a check came out."""

    ok = "ok"
    warn = "warn"
    fail = "fail"


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of a diagnosis: which check, how it came out, why, and what to do about it."""

    check: str
    level: Level
    text: str
    remedy: str | None = None


def _ok(check: str, text: str) -> Finding:
    return Finding(check, Level.ok, text)


def of_server(facts: Mapping[str, Any], *, through_pooler: bool) -> Iterator[Finding]:
    """Judge what `doctor_server.sql` tells."""
    yield _version(facts)
    yield _extension(facts["vector"], facts["vector_available"])
    left = facts["max_connections"] - facts["connections"]
    used = f"{facts['connections']} of {facts['max_connections']} connections are in use"
    if left < _CONNECTIONS:
        remedy = "raise max_connections, put a pooler before the server, or lower --concurrency"
        yield Finding("connections", Level.warn, used, remedy)
    else:
        yield _ok("connections", f"{used}, {facts['ours']} by us")
    if through_pooler:
        yield _ok("pooler", "a pooler stands before the server: no prepared statements, no LISTEN")
    if facts["autovacuum"]:
        yield _ok("autovacuum", "on")
    else:
        text = "off: dead rows of the queue stay, and claims become slow"
        remedy = "set autovacuum = on and track_counts = on, and reload"
        yield Finding("autovacuum", Level.fail, text, remedy)


def _version(facts: Mapping[str, Any]) -> Finding:
    tls = "encrypted" if facts["tls"] else "not encrypted"
    text = f"PostgreSQL {facts['version'] // 10_000}, as {facts['role']}, {tls}"
    if facts["in_recovery"]:
        remedy = "give the URL of the primary server, or several hosts and target_session_attrs"
        return Finding("server", Level.fail, f"{text}: a read-only replica", remedy)
    return _ok("server", text)


def _extension(installed: str | None, available: str | None) -> Finding:
    if installed is None:
        remedy = "create extension vector" if available else "install pgvector on the server"
        return Finding("extension", Level.fail, "vector is not installed here", remedy)
    version = tuple(int(part) for part in installed.split(".")[:2])
    update = f"alter extension vector update (to {available}, if that is newer)"
    if version < _OLDEST_VECTOR:
        return Finding("extension", Level.fail, f"vector {installed} is too old", update)
    if version < _HALF_VECTORS:
        return Finding("extension", Level.warn, f"vector {installed} has no halfvec", update)
    return _ok("extension", f"vector {installed}")


def of_schema(facts: Mapping[str, Any]) -> Iterator[Finding]:
    """Judge what `doctor_schema.sql` tells."""
    yield _grants("grants", facts["lacking"])
    if facts["abandoned"]:
        text = f"{facts['abandoned']} batches of workers that vanished wait to be taken over"
        yield Finding("leases", Level.warn, text, "start a worker: vectorizer worker")
    if facts["horizon"]:
        remedy = "end it; idle_in_transaction_session_timeout ends such by itself"
        for warning in facts["horizon"]:
            yield Finding("transactions", Level.warn, warning, remedy)
    else:
        yield _ok("transactions", "no old transaction, prepared one or slot holds VACUUM back")


def _grants(check: str, lacking: Sequence[str]) -> Finding:
    if lacking:
        remedy = "as the installer: vectorizer grant worker ROLE"
        return Finding(check, Level.fail, f"this role lacks {', '.join(lacking)}", remedy)
    return _ok(check, "this role may do a worker's work")


def of_vectorizer(facts: Mapping[str, Any]) -> Iterator[Finding]:
    """Judge one row of `doctor_vectorizers.sql`."""
    name = facts["name"]
    if not facts["has_source"]:
        remedy = f"vectorizer uninstall {name}"
        yield Finding(f"{name}: source", Level.fail, "its table was dropped", remedy)
        return
    yield _grants(f"{name}: grants", facts["lacking"])
    if facts["hidden_rows"]:
        text = "row-level security hides rows of its table from this role"
        remedy = "let the worker be a role with BYPASSRLS, or the owner of the table"
        yield Finding(f"{name}: security", Level.fail, text, remedy)
    if facts["uncaptured"]:
        tables = ", ".join(facts["uncaptured"])
        enable = "; ".join(f"alter table {one} enable trigger all" for one in facts["uncaptured"])
        remedy = (
            f"{enable}; then: vectorizer verify {name} --repair; "
            f"if they are missing: vectorizer suspend {name}, vectorizer resume {name}"
        )
        text = f"changes of {tables} are not captured: triggers are missing or disabled"
        yield Finding(f"{name}: triggers", Level.fail, text, remedy)
    else:
        yield _ok(f"{name}: triggers", "every change of its table is captured")
    yield _vacuum(facts)


def _vacuum(facts: Mapping[str, Any]) -> Finding:
    check = f"{facts['name']}: vacuum"
    if facts["unvacuumed"]:
        tables = ", ".join(facts["unvacuumed"])
        remedy = "; ".join(
            f"alter table {one} reset (autovacuum_enabled)" for one in facts["unvacuumed"]
        )
        return Finding(check, Level.fail, f"autovacuum is disabled for {tables}", remedy)
    dead, live = facts["dead_tuples"], facts["live_tuples"]
    if dead > max(_DEAD_LEAST, live * _DEAD_SHARE):
        remedy = "look for what holds VACUUM back, above; give autovacuum more workers"
        return Finding(check, Level.warn, f"{dead:,} dead rows beside {live:,} live ones", remedy)
    return _ok(check, f"{dead:,} dead rows beside {live:,} live ones")


def of_status(rows: Iterable[Mapping[str, Any]]) -> Iterator[Finding]:
    """Judge rows of the view `status`: what waits, and what has failed."""
    for row in rows:
        yield from _of_status(row)


def _of_status(row: Mapping[str, Any]) -> Iterator[Finding]:
    name = row["name"]
    if row["state"] == "paused":
        remedy = f"mend that, then: vectorizer resume {name}"
        yield Finding(f"{name}: state", Level.fail, f"paused: {row['reason']}", remedy)
    else:
        yield _ok(f"{name}: state", str(row["state"]))
    if row["dead_letters"]:
        remedy = f"see: vectorizer dead-letters {name}; then: vectorizer retry {name} --all"
        text = f"{row['dead_letters']:,} rows were given up"
        yield Finding(f"{name}: dead letters", Level.warn, text, remedy)
    yield _lag(row)
    # Those of transactions and of capture have lines of their own.
    for warning in row["warnings"] or ():
        if "vacuumed" not in warning and "captured" not in warning and "waited" not in warning:
            yield Finding(f"{name}: warning", Level.warn, warning)


def _lag(row: Mapping[str, Any]) -> Finding:
    check = f"{row['name']}: lag"
    queue = f"{row['waiting']:,} changes wait, {row['log_bytes'] / 1024:,.0f} KB of queue on disk"
    oldest: datetime | None = row["oldest_change"]
    seconds = 0.0 if oldest is None else (datetime.now(timezone.utc) - oldest).total_seconds()
    if seconds > _LAG_SECONDS:
        remedy = "is a worker running? start one, or more: vectorizer worker"
        return Finding(check, Level.warn, f"{queue}, the oldest for {seconds:,.0f} s", remedy)
    return _ok(check, queue)
