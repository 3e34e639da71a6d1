"""The main job on a table of blog posts: install, embed, change rows in SQL, sync again."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from importlib.resources import files
from typing import TYPE_CHECKING

from vectorizer._sync.database import Database
from vectorizer._sync.schema import Schema
from vectorizer._sync.vectorizer import Vectorizer
from vectorizer.errors import NotInstalled
from vectorizer.types import Embedder

if TYPE_CHECKING:
    from typing_extensions import LiteralString

__all__ = [
    "CHANGES",
    "DELETED_TITLE",
    "Change",
    "Post",
    "apply",
    "fill",
    "make_vectorizer",
    "posts",
    "reset",
]

NAME = "blog"

DELETED_TITLE = "The Cat Nobody Had Asked For"


@dataclass(frozen=True, slots=True)
class Change:
    """A change an application would make, in plain SQL."""

    what: str
    statement: LiteralString


CHANGES = (
    Change(
        "insert a post about cats",
        """
insert into blog (title, author, contents, category, published_time) values (
  'Two Cats and One Radiator', 'Priya Raman',
  'There is one radiator in the flat and there are two cats. From October to April they take '
  'turns, four hours each, and hand over with a short hiss that means nothing.',
  'Pets', now())
""",
    ),
    Change(
        "edit one paragraph of a long post",
        """
update blog set contents = replace(contents,
  'This is an account of the twelve months after that Friday.',
  'This is the story of the twelve months that followed, told from our notebook.')
where title = 'A Year of Making Postgres Faster'
""",
    ),
    Change(
        f"delete the post {DELETED_TITLE!r}",
        "delete from blog where title = 'The Cat Nobody Had Asked For'",
    ),
    Change(
        "un-publish a post",
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
