"""`vectorizer demo`."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
import time
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from vectorizer import demo
from vectorizer._sync.vectorizer import Vectorizer
from vectorizer.batch import Counts
from vectorizer.cli._progress import shown, waiting
from vectorizer.cli._shared import JsonOption, out, print_json, report
from vectorizer.embedders import MiniLMEmbedder
from vectorizer.search import SearchResult

HELP = """Show the main job, on the embedded database with a real model.

Your own databases stay untouched. The demo starts afresh each time.

Example: vectorizer demo
"""

_QUERIES = ("posts about cats", "database performance")
_HITS = 5
# The long posts have a dozen chunks: enough of them to find five different posts.
_CHUNKS = 40

_DEFINITION = """\
blog = Vectorizer(url, "blog", embedder=MiniLMEmbedder(),
    chunk_column="contents", time_column="published_time",
    template="Author {author}, title: {title}, contents: {chunk}",
    metadata=["author", "category", "published_time"],
    partition_interval=timedelta(days=30), destination="blog_embedding")
blog.install()
blog.run()"""


def command(
    stop: Annotated[
        bool, typer.Option("--stop", help="Stop the embedded database that the demo left running.")
    ] = False,
    json: JsonOption = False,
) -> None:
    """Run the demo from the beginning."""
    from vectorizer import embedded  # noqa: PLC0415 - only here is it needed

    if stop:
        embedded.stop()
        report(json, {"stopped": True}, "The embedded database is stopped; its data stays.")
        return
    server = embedded.start(keep_running=True)
    if json:
        print_json({"url": server.url, **_outcome(server.url)})
        return
    _heading("1. A table of blog posts, as any application has one")
    demo.reset(server.url)
    _line(f"{demo.fill(server.url)} posts in table blog, PostgreSQL in {server.folder}")
    with demo.make_vectorizer(server.url, MiniLMEmbedder()) as blog:
        _embed_everything(blog)
        _search(blog)
        _change_rows(server.url, blog)
    _farewell(server.url)


def _outcome(url: str) -> dict[str, Any]:
    """Do all of it without a word; return what came of it."""
    demo.reset(url)
    posts = demo.fill(url)
    with demo.make_vectorizer(url, MiniLMEmbedder()) as blog:
        blog.install()
        first = dict(_drained(blog, quiet=True))
        for change in demo.CHANGES:
            demo.apply(url, change)
        second = dict(_drained(blog, quiet=True))
        found = {query: [hit.key for hit in _nearest(blog, query)] for query in _QUERIES}
    return {"posts": posts, "first_run": first, "after_changes": second, "found": found}


def _embed_everything(blog: Vectorizer) -> None:
    _heading("2. Attach a vectorizer, and embed what is there with all-MiniLM-L6-v2")
    for line in _DEFINITION.splitlines():
        _line(line)
    started = time.monotonic()
    blog.install()
    counts = _drained(blog)
    _line(
        f"-> {counts.rows} rows, {counts.embedded} chunks embedded "
        f"in {time.monotonic() - started:.0f} s; posts not yet published have none"
    )


def _drained(blog: Vectorizer, *, quiet: bool = False) -> Counts:
    with shown({blog.name: waiting(blog.status())}, quiet=quiet) as show:
        return blog.run(partial(show, blog.name))


def _search(blog: Vectorizer) -> None:
    _heading("3. Search by meaning: the nearest posts, with score, date and author")
    for query in _QUERIES:
        _print_hits(blog, query)


def _change_rows(url: str, blog: Vectorizer) -> None:
    _heading("4. The application changes four posts, in plain SQL")
    titles, before = demo.titles(url), demo.chunks(url)
    for change in demo.CHANGES:
        demo.apply(url, change)
        _line(f"{change.what:<22}{change.title}")
    _heading("5. Sync: blog.run() sends only what changed to the model")
    counts = _drained(blog)
    _print_changes({**titles, **demo.titles(url)}, before, demo.chunks(url))
    _print_row(f"{counts.rows} rows", counts.embedded, counts.kept, counts.deleted)
    _print_hits(blog, _QUERIES[0])
    found = {_title(hit.contents) for hit in blog.search(demo.DELETED_TITLE, limit=_CHUNKS)}
    gone = "STILL IN" if demo.DELETED_TITLE in found else "gone from"
    _line(f"The deleted post is {gone} the search.")


def _print_changes(titles: dict[int, str], before: demo.Chunks, after: demo.Chunks) -> None:
    _line(f"{'chunks':<34}{'embedded':>10}{'kept':>10}{'deleted':>10}")
    numbers = {title: number for number, title in titles.items()}
    for change in demo.CHANGES:
        number = numbers[change.title]
        old, new = before.get(number, set()), after.get(number, set())
        _print_row(change.title, len(new - old), len(new & old), len(old - new))


def _print_row(label: str, *counts: int) -> None:
    _line(f"{label:<34}" + "".join(f"{count:>10}" for count in counts))


def _print_hits(blog: Vectorizer, query: str) -> None:
    out.print(f'   [bold]"{query}"[/]')
    for hit in _nearest(blog, query):
        author = hit.metadata["author"]
        _line(f"{hit.score:.2f}  {hit.time:%Y-%m-%d}  {author:<14}  {_title(hit.contents)}")


def _nearest(blog: Vectorizer, query: str) -> list[SearchResult]:
    return demo.best_per_post(blog.search(query, limit=_CHUNKS))[:_HITS]


def _title(contents: str) -> str:
    return contents.split(", title: ", 1)[-1].split(", contents: ", 1)[0]


def _heading(text: str) -> None:
    out.print(f"\n[bold cyan]{text}[/]")


def _line(text: str) -> None:
    # What is too long for the terminal is a path or a URL to copy: never broken by us.
    out.print(f"   {text}", markup=False, soft_wrap=True)


def _farewell(url: str) -> None:
    command = _this_command()
    # These would win over the embedded database.
    other = any(os.environ.get(name) for name in ("VECTORIZER_URL", "DATABASE_URL"))
    option = f" --url {shlex.quote(url)}" if other else ""
    _heading("Yours to try: the database goes on running")
    _line(url)
    _line(f'{command} search blog "night trains" --limit 3{option}')
    _line(f"{command} status{option}")
    _line(f"{command} run blog{option}")
    _line(f"{command} demo --stop")


def _this_command() -> str:
    """Return how to call this program from the user's shell: by its name where PATH has it."""
    program = Path(sys.argv[0])
    if program.name == "__main__.py":
        return f"{shlex.quote(sys.executable)} -m vectorizer.cli"
    found = shutil.which("vectorizer")
    if found is not None and Path(found).resolve() == program.resolve():
        return "vectorizer"
    try:
        return shlex.quote(str(program.resolve().relative_to(Path.cwd())))
    except ValueError:
        return shlex.quote(str(program))
