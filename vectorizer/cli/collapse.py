"""`vectorizer collapse`."""

from __future__ import annotations

from vectorizer.cli._shared import (
    JsonOption,
    NameArgument,
    UrlOption,
    database_url,
    opened,
    out,
    print_json,
)

HELP = """Shrink a change log that nobody drained to one entry a row. Nothing is lost.

Writers go on meanwhile. The next upkeep gives the freed space back to the disk, if it is much;
VACUUM (TRUNCATE) does so at once, and holds writers up for milliseconds.

Example: vectorizer collapse blog
"""


def command(name: NameArgument, json: JsonOption = False, url: UrlOption = None) -> None:
    """Collapse the log of a vectorizer."""
    with opened(database_url(url)) as schema:
        removed = schema.collapse(name)
        status = schema.status(name)[0]
    if json:
        print_json({"removed": removed, "waiting": status["waiting"]})
        return
    out.print(
        f"{removed:,} entries of the change log of {name} went; {status['waiting']:,} are left.",
        markup=False,
    )
