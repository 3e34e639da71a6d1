"""The SQL files of this package: `sql/` beside the package in a checkout, inside it in a wheel."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path

__all__ = ["Migration", "migrations", "query"]


@dataclass(frozen=True, slots=True)
class Migration:
    """A numbered step of our schema; `text` has the placeholders {schema} and {schema_name}."""

    number: int
    name: str
    text: str


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
