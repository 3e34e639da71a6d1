"""From PostgreSQL's errors to ours: what was wrong, and what to do next."""

from __future__ import annotations

from typing import Final

import psycopg
from psycopg.conninfo import conninfo_to_dict
from psycopg_pool import PoolTimeout

from vectorizer.errors import (
    AlreadyInstalled,
    ConfigurationError,
    DatabaseError,
    DatabaseUnavailable,
    ExtensionMissing,
    NotCaughtUp,
    NotInstalled,
    SourceError,
    SyncFailed,
    SyncTimeout,
    VectorizerError,
)

__all__ = [
    "is_conflict",
    "is_data_error",
    "is_drift",
    "is_lost_connection",
    "place",
    "translated",
    "unreachable",
]

# SQLSTATEs that our own functions raise; see sql/functions/common.sql.
_OURS: Final[dict[str, type[VectorizerError]]] = {
    "VZ001": SourceError,
    "VZ002": ConfigurationError,
    "VZ003": AlreadyInstalled,
    "VZ004": NotInstalled,
    "VZ005": ExtensionMissing,
    "VZ006": SyncFailed,
    "VZ007": SyncTimeout,
    "VZ008": NotCaughtUp,
}
# Connection exceptions; disk, memory or connections used up; shutdown, crash, cannot connect
# now; timeouts of a silent client.
_GONE: Final = ("08", "53", "57P", "57014", "25P03", "25P04")
_NO_RIGHT: Final = "42501"
_UNDEFINED: Final = ("3F000", "42P01", "42883")


def place(url: str) -> str:
    """Return which database a connection string names, without its password."""
    try:
        parts = conninfo_to_dict(url)
    except psycopg.ProgrammingError:
        return "the given database URL"
    host = parts.get("host") or parts.get("hostaddr") or "the local socket"
    port = f":{parts['port']}" if parts.get("port") else ""
    return f"database {parts.get('dbname') or '(default)'} at {host}{port}"


def unreachable(url: str, error: Exception) -> DatabaseUnavailable:
    """Return the error for a connection that could not be made."""
    try:
        conninfo_to_dict(url)
    except psycopg.ProgrammingError:
        # libpq repeats what it could not read, which may hold a password.
        return DatabaseUnavailable(
            "the database URL is malformed; expected postgresql://user:password@host:port/database"
        )
    reason = " ".join(str(error).split())
    check = "host, port, user and password in the database URL"
    if "SSL" in reason or "certificate" in reason:
        check = "sslmode and sslrootcert in the database URL (or PGSSLMODE and PGSSLROOTCERT)"
    return DatabaseUnavailable(f"cannot connect to {place(url)}: {reason}; check {check}")


def translated(url: str, error: Exception) -> VectorizerError:
    """Return our error for one of the driver's."""
    if isinstance(error, (PoolTimeout, TimeoutError)):
        return DatabaseUnavailable(f"no connection to {place(url)} became free in time: {error}")
    if not isinstance(error, psycopg.Error):
        return DatabaseError(str(error))
    state = error.sqlstate or ""
    if state in _OURS:
        return _OURS[state](_message(error))
    if state.startswith(_GONE) or (not state and isinstance(error, psycopg.OperationalError)):
        return DatabaseUnavailable(f"lost the connection to {place(url)}: {_message(error)}")
    if state in _UNDEFINED and "vectorizer" in str(error):
        return DatabaseError(
            f"{_message(error)}: our schema is missing in {place(url)}; install a vectorizer first"
        )
    return DatabaseError(f"{place(url)}: {_message(error)}{_remedy(error)}")


def _remedy(error: psycopg.Error) -> str:
    if error.sqlstate != _NO_RIGHT or "row-level security" in str(error):
        return ""
    return (
        "; let this role do that, or use one that may; what a worker needs, the installer gives "
        "with: vectorizer grant worker ROLE"
    )


def _message(error: psycopg.Error) -> str:
    primary = error.diag.message_primary or " ".join(str(error).split())
    detail, hint = error.diag.message_detail, error.diag.message_hint
    return "; ".join(part for part in (primary, detail, hint) if part)


def is_conflict(error: BaseException) -> bool:
    """Whether others were in the way, and trying again will do.

    SQLSTATEs serialization_failure, deadlock_detected and lock_not_available.
    """
    return _state(error) in ("40001", "40P01", "55P03")


def is_lost_connection(error: BaseException) -> bool:
    """Whether the connection broke, or the server ended it; not: no answer in time."""
    cause = error.__cause__
    if not isinstance(cause, psycopg.OperationalError) or isinstance(cause, PoolTimeout):
        return False
    return cause.sqlstate is None or cause.sqlstate.startswith(("08", "57P"))


def is_data_error(error: VectorizerError) -> bool:
    """Whether a value of some row was the cause: SQLSTATE classes 22 (data) and 23 (constraint)."""
    return _state(error).startswith(("22", "23"))


def is_drift(error: VectorizerError) -> bool:
    """Whether a statement does not fit the database any more: a name or a right is gone.

    SQLSTATE class 42, "syntax error or access rule violation": renamed and dropped tables and
    columns, lost permissions, and row-level security that would hide rows from us.
    """
    return _state(error).startswith("42")


def _state(error: BaseException) -> str:
    return getattr(error.__cause__, "sqlstate", None) or ""
