"""`vectorizer config`."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Any

import tomlkit
import typer
from pydantic_core import to_jsonable_python

from vectorizer.cli._settings import settings
from vectorizer.cli._shared import (
    JsonOption,
    UrlOption,
    database_url,
    flowing,
    opened,
    out,
    print_json,
)
from vectorizer.config import Loaded, masked
from vectorizer.definition import Installation
from vectorizer.errors import NotInstalled
from vectorizer.intervals import format_interval

HELP = """Check and show the configuration: vectorizer.toml, environment variables, flags.

Example: vectorizer config check
"""
CHECK_HELP = """Read the configuration and say what is wrong with it; exits with 2 then.

Example: vectorizer --config deploy/vectorizer.toml config check
"""
SHOW_HELP = """Show what is given and where it comes from, secrets masked; or what is installed.

It prints TOML: of a NAME the definition as it is installed, to be put into vectorizer.toml.

Example: vectorizer config show blog
"""

# What only the registry knows: the file says it by the embedder, or not at all.
_OURS = {"model", "dimensions"}

app = typer.Typer(help=flowing(HELP))


@app.command("check", help=flowing(CHECK_HELP))
def check(json: JsonOption = False) -> None:
    """Check the configuration."""
    loaded = settings()
    if json:
        names = sorted(loaded.config.vectorizers)
        print_json({"ok": True, "file": _file(loaded), "vectorizers": names})
        return
    defined = ", ".join(sorted(loaded.config.vectorizers)) or "none"
    out.print(
        f"{_file(loaded) or 'No vectorizer.toml'}: ok; {len(loaded.sources)} keys are given; "
        f"vectorizers defined: {defined}",
        markup=False,
        soft_wrap=True,
    )


@app.command("show", help=flowing(SHOW_HELP))
def show(
    name: Annotated[
        str | None, typer.Argument(metavar="[NAME]", help="Installed vectorizer.")
    ] = None,
    json: JsonOption = False,
    url: UrlOption = None,
) -> None:
    """Show the configuration, or the definition of an installed vectorizer."""
    if name is not None:
        with opened(database_url(url)) as schema:
            definition = described(_serving(schema.generations(name), name))
        document: Any = {"vectorizers": {name: definition}}
        print_json(document) if json else out.out(tomlkit.dumps(document), end="")
        return
    loaded = settings()
    if json:
        print_json(
            [
                {"key": ".".join(key), "value": to_jsonable_python(value), "source": source}
                for key, value, source in loaded.given()
            ]
        )
        return
    out.out(_toml(loaded), end="")


def described(installation: Installation) -> dict[str, Any]:
    """Return an installed definition as vectorizer.toml has it."""
    given = installation.definition.model_dump(exclude_defaults=True, exclude=_OURS)
    source = installation.source
    table = source.name if source.schema == "public" else str(source)
    return {"table": table} | {
        key: _plain(masked((key,), value)) for key, value in given.items() if value
    }


def _serving(generations: list[Installation], name: str) -> Installation:
    for generation in generations:
        if generation.serving:
            return generation
    raise NotInstalled(f"there is no vectorizer {name!r}")


def _plain(value: Any) -> Any:
    if isinstance(value, timedelta):
        return format_interval(value)
    return to_jsonable_python(value)


def _file(loaded: Loaded) -> str | None:
    return None if loaded.file is None else str(loaded.file)


def _toml(loaded: Loaded) -> str:
    document = tomlkit.document()
    for key, value, source in loaded.given():
        place: Any = document
        for name in key[:-1]:
            place = place.setdefault(name, tomlkit.table())
        item = tomlkit.item(_plain(value))
        place[key[-1]] = item.comment(source)
    return tomlkit.dumps(document)
