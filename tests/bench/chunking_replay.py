"""Replay an editing history through Chunker and count what would be sent to the embedder.

The history has one JSON object per line, in time order, each with `document` and `text` (the
whole document at that time); it may be compressed (.xz). A chunk goes to the embedder unless
the previous version of its document has a chunk of the same text but for white space, or with the
optional cache any version of any document has the same text.

    python tests/bench/chunking_replay.py document-edits.jsonl.xz --min-chars 400
"""

from __future__ import annotations

import argparse
import json
import lzma
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from vectorizer.chunking import Chunker
from vectorizer.rechunking import rechunk

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

DEFAULT = "VECTORIZER_EDIT_HISTORY"


@dataclass
class Totals:
    """Characters and chunks over all versions."""

    versions: int = 0
    chunks: int = 0
    characters: int = 0
    sent: int = 0
    uncached: int = 0

    def __str__(self) -> str:
        return (
            f"versions            {self.versions:>11,}\n"
            f"chunks              {self.chunks:>11,}\n"
            f"average length      {self.characters / max(self.chunks, 1):>11.1f} characters\n"
            f"re-embed everything {self.characters:>11,} characters\n"
            f"sent                {self.sent:>11,} characters\n"
            f"ratio               {self.sent / max(self.characters, 1):>11.4f}\n"
            f"ratio with a cache  {self.uncached / max(self.characters, 1):>11.4f}"
        )


def versions(path: Path) -> Iterator[tuple[object, str]]:
    """Yield document and text of each version, in time order."""
    reader = lzma.open if path.suffix == ".xz" else open
    with reader(path, "rt", encoding="utf-8") as lines:
        for line in lines:
            version = json.loads(line)
            yield version["document"], version["text"]


def replay(
    history: Iterable[tuple[object, str]], chunker: Chunker, *, afresh: bool = False
) -> Totals:
    """Count over a history; afresh: each version is cut by itself, as a new text."""
    totals = Totals()
    stored: dict[object, list[str]] = {}
    ever: set[str] = set()
    for document, text in history:
        known = stored.get(document, [])
        words = {" ".join(chunk.split()) for chunk in known}
        chunks = rechunk(chunker, text, [] if afresh else known)
        totals.versions += 1
        totals.chunks += len(chunks)
        totals.characters += sum(map(len, chunks))
        new = [chunk for chunk in chunks if " ".join(chunk.split()) not in words]
        totals.sent += sum(map(len, new))
        totals.uncached += sum(len(chunk) for chunk in set(new) if chunk not in ever)
        ever.update(chunks)
        stored[document] = chunks
    return totals


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Count what an editing history would send.")
    parser.add_argument(
        "history", nargs="?", default=os.environ.get(DEFAULT), help=f"default: ${DEFAULT}"
    )
    parser.add_argument("--min-chars", type=int, default=Chunker.min_chars)
    parser.add_argument("--max-chars", type=int, default=Chunker.max_chars)
    parser.add_argument("--overlap", type=int, default=Chunker.overlap)
    parser.add_argument("--afresh", action="store_true", help="cut each version by itself")
    given = parser.parse_args()
    if not given.history:
        parser.error(f"name the history file, or set {DEFAULT}")
    return given


def main() -> None:
    given = arguments()
    chunker = Chunker(given.min_chars, given.max_chars, given.overlap)
    sys.stdout.write(f"{replay(versions(Path(given.history)), chunker, afresh=given.afresh)}\n")


if __name__ == "__main__":
    main()
