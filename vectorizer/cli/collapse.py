"""`vectorizer collapse`."""

from __future__ import annotations

from vectorizer.cli._shared import (
    DryRunOption,
    JsonOption,
    NameArgument,
    UrlOption,
    changing,
    report,
)

HELP = """Shrink a change log that nobody drained to one entry a row. Nothing is lost.

Writers go on meanwhile. The next upkeep gives the freed space back to the disk, if it is much;
VACUUM (TRUNCATE) does so at once, and holds writers up for milliseconds.

Example: vectorizer collapse blog
"""


def command(
    name: NameArgument,
    dry_run: DryRunOption = False,
    json: JsonOption = False,
    url: UrlOption = None,
) -> None:
    """Collapse the log of a vectorizer."""
    with changing(url, dry_run=dry_run) as schema:
        removed = schema.collapse(name)
        waiting = 0 if dry_run else schema.status(name)[0]["waiting"]
    text = f"{removed:,} entries of the change log of {name} went; {waiting:,} are left."
    report(json, {"removed": removed, "waiting": waiting}, text)
