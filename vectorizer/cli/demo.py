"""`vectorizer demo`."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from vectorizer import demo
from vectorizer._sync.vectorizer import Vectorizer
from vectorizer.batch import Counts
from vectorizer.cli._progress import drained
from vectorizer.cli._shared import out
from vectorizer.cli.run import describe
from vectorizer.embedders import MiniLMEmbedder

HELP = """Show the main job, on the embedded database with a real model.

Your own databases stay untouched. The demo starts afresh each time.

Example: vectorizer demo
"""

_QUERIES = ("posts about cats", "database performance")


def command(
    stop: Annotated[
        bool, typer.Option("--stop", help="Stop the embedded database that the demo left running.")
    ] = False,
) -> None:
    """Run the demo from the beginning."""
    from vectorizer import embedded  # noqa: PLC0415 - only here is it needed

    if stop:
        embedded.stop()
        out.print("The embedded database is stopped; its data stays.")
        return
    server = embedded.start(keep_running=True)
    _heading("1. A table of blog posts, as any application has one")
    demo.reset(server.url)
    out.print(
        f"{demo.fill(server.url)} posts in table blog, PostgreSQL in {server.folder}",
        soft_wrap=True,
    )
    with demo.make_vectorizer(server.url, MiniLMEmbedder()) as blog:
        _embed_everything(blog)
        _search(blog)
        _change_rows(server.url, blog)
    _farewell(server.url)


def _embed_everything(blog: Vectorizer) -> None:
    _heading("2. Attach a vectorizer, and embed what is there with all-MiniLM-L6-v2")
    blog.install()
    _done(drained(blog))


def _search(blog: Vectorizer) -> None:
    _heading("3. Search by meaning")
    for query in _QUERIES:
        _print_hits(blog, query)


def _change_rows(url: str, blog: Vectorizer) -> None:
    _heading("4. The application changes rows, in plain SQL")
    for change in demo.CHANGES:
        demo.apply(url, change)
        out.print(f"   {change.what}")
    _heading("5. Sync: only what changed goes to the model")
    _done(drained(blog))
    _print_hits(blog, _QUERIES[0])
    left = blog.search(demo.DELETED_TITLE, limit=5)
    gone = all(demo.DELETED_TITLE not in hit.contents for hit in left)
    out.print(f"The deleted post is {'gone from' if gone else 'STILL IN'} the search.")


def _print_hits(blog: Vectorizer, query: str) -> None:
    out.print(f'[bold]"{query}"[/]')
    for hit in blog.search(query, limit=5):
        title = hit.contents.split(", title: ", 1)[-1].split(", contents: ", 1)[0]
        author = hit.metadata["author"]
        out.print(f"   {hit.score:.3f}  {hit.time:%Y-%m-%d}  {escape(author):<16} {escape(title)}")


def _done(counts: Counts) -> None:
    out.print(describe(counts))


def _heading(text: str) -> None:
    out.print(f"\n[bold cyan]{text}[/]")


def _farewell(url: str) -> None:
    command = _this_command()
    _heading("Yours to try: the database goes on running")
    out.print(f"   {escape(url)}", soft_wrap=True)
    for line in (
        f'{command} search blog "night trains" --limit 3',
        f"{command} status",
        f"{command} run blog",
        f"{command} demo --stop",
    ):
        out.print(f"   {escape(line)}", soft_wrap=True)


def _this_command() -> str:
    """Return how to call this program from the user's shell: by its name where PATH has it."""
    program = Path(sys.argv[0])
    found = shutil.which("vectorizer")
    if found is not None and Path(found).resolve() == program.resolve():
        return "vectorizer"
    try:
        return str(program.resolve().relative_to(Path.cwd()))
    except ValueError:
        return str(program)
