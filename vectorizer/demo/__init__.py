"""The main job on a table of blog posts: install, embed, change rows in SQL, sync again."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from importlib.resources import files
from typing import TYPE_CHECKING, TypeAlias
from uuid import UUID

from vectorizer._sync.database import Database
from vectorizer._sync.schema import Schema
from vectorizer._sync.vectorizer import Vectorizer
from vectorizer.errors import NotInstalled
from vectorizer.search import SearchResult
from vectorizer.types import Embedder

if TYPE_CHECKING:
    from typing_extensions import LiteralString

__all__ = [
    "CHANGES",
    "DELETED_TITLE",
    "Change",
    "Chunks",
    "Post",
    "apply",
    "best_per_post",
    "chunks",
    "fill",
    "make_vectorizer",
    "posts",
    "reset",
    "titles",
]

NAME = "blog"

DELETED_TITLE = "The Cat Nobody Had Asked For"


Chunks: TypeAlias = dict[int, set[UUID]]
"""The ids of the chunks of each post, by the post's id."""


@dataclass(frozen=True, slots=True)
class Change:
    """A change an application would make to a post, in plain SQL."""

    what: str
    title: str
    statement: LiteralString


CHANGES = (
    Change(
        "inserted",
        "Two Cats and One Radiator",
        """
insert into blog (title, author, contents, category, published_time) values (
  'Two Cats and One Radiator', 'Priya Raman',
  'There is one radiator in the flat and there are two cats. From October to April they take '
  'turns, four hours each, and hand over with a short hiss that means nothing.',
  'Pets', now())
""",
    ),
    Change(
        "one paragraph edited",
        "A Year of Making Postgres Faster",
        """
update blog set contents = replace(contents,
  'This is an account of the twelve months after that Friday.',
  'This is the story of the twelve months that followed, told from our notebook.')
where title = 'A Year of Making Postgres Faster'
""",
    ),
    Change(
        "deleted",
        DELETED_TITLE,
        "delete from blog where title = 'The Cat Nobody Had Asked For'",
    ),
    Change(
        "un-published",
        "Two Budgies and a Kettle",
        "update blog set published_time = null where title = 'Two Budgies and a Kettle'",
    ),
)

_TABLE = """
create table blog (
  id serial primary key,
  title text,
  author text,
  contents text,
  category text,
  published_time timestamptz null
)
"""


@dataclass(frozen=True, slots=True)
class Post:
    """A post as it stands in its file: front matter, then the text."""

    title: str
    author: str
    category: str
    published_time: datetime | None
    contents: str


def posts() -> Iterator[Post]:
    """Yield the sample posts in the order of their file names."""
    folder = files(__name__) / "posts"
    for file in sorted(folder.iterdir(), key=lambda file: file.name):
        if file.name.endswith(".md"):
            yield _parsed(file.read_text(encoding="utf-8"))


def _parsed(text: str) -> Post:
    _, head, contents = text.split("---\n", 2)
    pairs = (line.partition(":") for line in head.splitlines())
    options = {name: value.strip() for name, _, value in pairs}
    time = options["published_time"]
    return Post(
        title=options["title"],
        author=options["author"],
        category=options["category"],
        published_time=datetime.fromisoformat(time) if time else None,
        contents=contents.strip(),
    )


def make_vectorizer(url: str, embedder: Embedder) -> Vectorizer:
    """Return the vectorizer of the demo, as README shows it."""
    return Vectorizer(
        url,
        "blog",
        embedder=embedder,
        chunk_column="contents",
        template="Author {author}, title: {title}, contents: {chunk}",
        metadata=["author", "category", "published_time"],
        time_column="published_time",
        partition_interval=timedelta(days=30),
        destination="blog_embedding",
        batch_size=8,
    )


def reset(url: str) -> None:
    """Remove what an earlier demo left in this database, whatever state it is in."""
    with Database(url) as database:
        schema = Schema(database)
        schema.migrate()
        with suppress(NotInstalled):
            schema.uninstall(NAME, drop_embeddings=True)
        with database.transaction() as connection:
            connection.execute("drop table if exists blog")


def fill(url: str) -> int:
    """Create the table and insert the posts; return how many."""
    with Database(url) as database, database.transaction() as connection:
        connection.execute(_TABLE)
        rows = [(p.title, p.author, p.contents, p.category, p.published_time) for p in posts()]
        connection.cursor().executemany(
            "insert into blog (title, author, contents, category, published_time) "
            "values (%s, %s, %s, %s, %s)",
            rows,
        )
    return len(rows)


def apply(url: str, change: Change) -> None:
    """Make a change as an application would, knowing nothing of vectorizers."""
    with Database(url) as database, database.transaction() as connection:
        connection.execute(change.statement)


def titles(url: str) -> dict[int, str]:
    """Return the title of each post by its id."""
    with Database(url) as database, database.transaction() as connection:
        found = connection.execute("select id, title from blog")
        return dict(found.fetchall())


def chunks(url: str) -> Chunks:
    """Return the chunks that are stored of each post: a kept chunk keeps its id."""
    with Database(url) as database, database.transaction() as connection:
        found = connection.execute(
            "select source_id, array_agg(id) from blog_embedding group by source_id"
        )
        return {number: set(ids) for number, ids in found.fetchall()}


def best_per_post(hits: Iterable[SearchResult]) -> list[SearchResult]:
    """Return the nearest chunk of each post: hits come nearest first."""
    best: dict[int, SearchResult] = {}
    for hit in hits:
        best.setdefault(hit.key["id"], hit)
    return list(best.values())
