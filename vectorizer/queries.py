"""The SQL files of this package: `sql/` beside the package in a checkout, inside it in a wheel."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from pathlib import Path

__all__ = ["Functions", "Migration", "functions", "migrations", "query"]


@dataclass(frozen=True, slots=True)
class Migration:
    """A numbered step of our schema; `text` has the placeholders {schema} and {schema_name}."""

    number: int
    name: str
    text: str


@dataclass(frozen=True, slots=True)
class Functions:
    """All functions and views of our schema, made anew whenever it is migrated.

    text: with the same placeholders; digest: tells one state of them from another.
    """

    text: str
    digest: str


@cache
def _folder() -> Path:
    package = Path(__file__).resolve().parent
    inside = package / "sql"
    return inside if inside.is_dir() else package.parent / "sql"


@cache
def query(name: str) -> str:
    """Return the text of `sql/queries/<name>.sql`."""
    return (_folder() / "queries" / f"{name}.sql").read_text(encoding="utf-8")


@cache
def migrations() -> tuple[Migration, ...]:
    """Return all migrations, oldest first."""
    files = sorted((_folder() / "migrations").glob("*.sql"))
    return tuple(
        Migration(int(file.name[:4]), file.stem, file.read_text(encoding="utf-8")) for file in files
    )


@cache
def functions() -> Functions:
    """Return `sql/functions/*.sql` as one text."""
    files = sorted((_folder() / "functions").glob("*.sql"))
    text = "\n".join(file.read_text(encoding="utf-8") for file in files)
    return Functions(text, sha256(text.encode()).hexdigest())
