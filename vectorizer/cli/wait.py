"""`vectorizer wait`."""

from __future__ import annotations

from typing import Annotated

import typer

from vectorizer.cli._shared import (
    JsonOption,
    NameArgument,
    UrlOption,
    database_url,
    opened,
    report,
)

HELP = """Wait until everything committed so far can be searched. A worker has to be running.

Example: vectorizer wait blog --timeout 30
"""


def command(
    name: NameArgument,
    timeout: Annotated[float, typer.Option(min=0, help="Seconds to wait at most.")] = 60.0,
    json: JsonOption = False,
    url: UrlOption = None,
) -> None:
    """Wait for sync."""
    with opened(database_url(url)) as schema:
        schema.wait_for_sync(name, timeout)
    report(json, {"name": name, "in_step": True}, f"Vectorizer {name} is in step.")
