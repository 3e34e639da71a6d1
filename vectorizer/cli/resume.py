"""`vectorizer resume`."""

from __future__ import annotations

from vectorizer.cli._shared import NameArgument, UrlOption, database_url, opened, out

HELP = """Go on after pause or suspend. Text that did not change is not embedded again.

Example: vectorizer resume blog
"""


def command(name: NameArgument, url: UrlOption = None) -> None:
    """Resume a vectorizer."""
    with opened(database_url(url)) as schema:
        schema.resume(name)
    out.print(f"Vectorizer {name} goes on.")
