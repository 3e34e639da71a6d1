"""`vectorizer resume`."""

from __future__ import annotations

from vectorizer.cli._shared import (
    DryRunOption,
    JsonOption,
    NameArgument,
    UrlOption,
    changing,
    report,
)

HELP = """Go on after pause or suspend. Text that did not change is not embedded again.

Example: vectorizer resume blog
"""


def command(
    name: NameArgument,
    dry_run: DryRunOption = False,
    json: JsonOption = False,
    url: UrlOption = None,
) -> None:
    """Resume a vectorizer."""
    with changing(url, dry_run=dry_run) as schema:
        schema.resume(name)
    report(json, {"name": name, "resumed": True}, f"Vectorizer {name} goes on.")
