"""What mkdocs calls while it builds the site."""

from __future__ import annotations

import re
from typing import Any

import generated


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Put what is generated from the code where a page says `<!-- generated: name -->`."""
    return re.sub(
        r"^<!-- generated: (\w+) -->$",
        lambda match: getattr(generated, match[1])(),
        markdown,
        flags=re.MULTILINE,
    )
