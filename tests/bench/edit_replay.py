"""Replay an editing history through the whole system as SQL updates; count what is sent.

    python tests/bench/edit_replay.py document-edits.jsonl.xz [--cache] [--documents 60]

The first version of a document is an INSERT, each later one an UPDATE; after each the worker
runs. In the end the table is emptied and filled again with the same rows before the next run.
Measured with all 60 documents: ratio 0.1145, with the cache 0.1138, 515 characters a chunk, and 0
characters after the reload.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path
from time import perf_counter

import numpy as np
import psycopg
from bench_server import database
from chunking_replay import DEFAULT, versions
from numpy.typing import NDArray

from vectorizer import Vectorizer


class CountingEmbedder:
    """Answers with zeros, and counts the characters it was given."""

    model = "counting"
    dimensions = 4
    max_texts = 2048

    def __init__(self) -> None:
        self.characters = 0

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return zeros."""
        self.characters += sum(map(len, texts))
        return np.zeros((len(texts), self.dimensions), np.float32)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("history", nargs="?", default=os.environ.get(DEFAULT))
    parser.add_argument("--documents", type=int, default=10**9)
    parser.add_argument("--cache", action="store_true")
    parser.add_argument("--url")
    given = parser.parse_args()
    if not given.history:
        parser.error(f"name the history file, or set {DEFAULT}")
    with database(given.url) as url, psycopg.connect(url, autocommit=True) as connection:
        replay(url, connection, given)


def replay(
    url: str, connection: psycopg.Connection[tuple[object, ...]], given: argparse.Namespace
) -> None:
    """Replay, and print what it took."""
    connection.execute("create extension if not exists vector")
    connection.execute("create table document (id int primary key, body text)")
    embedder = CountingEmbedder()
    everything = chunks = count = 0
    began = perf_counter()
    options = {"cache": True} if given.cache else {}
    with Vectorizer(
        url, "document", embedder=embedder, chunk_column="body", **options
    ) as vectorizer:
        vectorizer.install()
        for document, text in versions(Path(given.history)):
            if int(str(document)) >= given.documents:
                continue
            connection.execute(
                "insert into document values (%s, %s) "
                "on conflict (id) do update set body = excluded.body",
                [document, text],
            )
            vectorizer.run()
            stored, characters = _stored(connection, document)
            count, chunks, everything = count + 1, chunks + stored, everything + characters
        seconds = perf_counter() - began
        sent = embedder.characters
        connection.execute("create table copy as table document")
        connection.execute("truncate document")
        connection.execute("insert into document table copy")
        vectorizer.run()
        assert vectorizer.verify().ok
    print(f"versions            {count:>11,} in {seconds:.0f} s")
    print(f"average length      {everything / chunks:>11.1f} characters")
    print(f"re-embed everything {everything:>11,} characters")
    print(f"sent                {sent:>11,} characters")
    print(f"ratio               {sent / everything:>11.4f}")
    print(f"sent after a reload {embedder.characters - sent:>11,} characters")


def _stored(
    connection: psycopg.Connection[tuple[object, ...]], document: object
) -> tuple[int, int]:
    found = connection.execute(
        "select count(*)::int, coalesce(sum(length(contents)), 0)::int from document_embedding "
        "where source_id = %s",
        [document],
    ).fetchone()
    assert found is not None
    return int(str(found[0])), int(str(found[1]))


if __name__ == "__main__":
    main()
