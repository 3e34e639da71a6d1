"""What a vectorizer does with its source, as kept in the registry, and how it is installed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    ValidationError,
    field_validator,
)
from typing_extensions import Required, TypedDict

from vectorizer.chunking import Chunker
from vectorizer.errors import ConfigurationError, SourceError
from vectorizer.template import Template
from vectorizer.types import JSON

__all__ = ["Definition", "Installation", "KeyColumn", "Options", "Relation"]


def _interval(value: Any) -> Any:
    # The registry keeps seconds in PostgreSQL's own words.
    if isinstance(value, str) and value.endswith(" seconds"):
        return timedelta(seconds=int(value.removesuffix(" seconds")))
    return value


_SHORTEST, _LONGEST = timedelta(hours=1), timedelta(days=36_525)


def _usable(value: timedelta) -> timedelta:
    if not _SHORTEST <= value <= _LONGEST:
        raise ValueError("expected an hour to a hundred years, such as timedelta(days=30)")
    return value


def _seconds(value: timedelta | None) -> str | None:
    return None if value is None else f"{int(value.total_seconds())} seconds"


Interval = Annotated[
    timedelta, BeforeValidator(_interval), AfterValidator(_usable), PlainSerializer(_seconds)
]


class Joined(TypedDict, total=False):
    """Columns of other tables, for the template and the metadata.

    query: SQL that returns the source's key columns under their own names, and more.
    parents: tables whose changes it shows, each with the columns of the query that hold the
        parent's primary key. When a parent changes, the rows it concerns are looked at again.
    """

    query: Required[str]
    parents: Mapping[str, Sequence[str]]


class Options(TypedDict, total=False):
    """What a user says of a vectorizer over the built-in pipeline.

    chunk_column: the text column that is split and embedded.
    template: what is embedded for each chunk, `{chunk}` and columns in braces; by default the
        chunk.
    metadata: columns copied to each embedding, to filter by.
    joined: columns of other tables, which template and metadata may name like the row's own.
    time_column: the row's time; a row where it is NULL is not embedded.
    key: columns of the unique index that names a row; by default the primary key.
    partition_interval: width of the destination's partitions; None for one plain table.
    retention: how old a row may be, by its time; older ones are not embedded, and partitions of
        which all rows are older are dropped. Needs time_column and partition_interval.
    destination: the view that readers search, by default `<table>_embedding`, in the source's
        schema unless named with one.
    chunk_size: least and most characters of a chunk; chunk_overlap: characters repeated.
    splitter: "text", "markdown", "html" (the text without its markup is embedded), or "none" for
        one chunk a row; chunk_unit: what chunk_size and chunk_overlap count, "characters" or
        "tokens" of OpenAI's models.
    vectors: pgvector's type for them; halfvec has half the size and, in an index, twice the
        dimensions.
    index: "hnsw" or "ivfflat", built when everything that is there is embedded; without one a
        search compares all vectors, which is exact, and slow from some 100,000 chunks on.
    on_long_text: whether a text too long for the model is "split" into several, has its end left
        out ("truncate"), or fails its row ("dead-letter").
    cache: keep vectors by model and text, so that a text that comes back costs nothing.
    max_tokens_per_day: how many tokens may be sent to the model from one midnight (UTC) to the
        next; rows beyond that wait, and are captured all the same.
    where: SQL condition over the source's columns; a row that does not meet it is not embedded.
    always: capture what logical replication applies, too.
    """

    chunk_column: Required[str]
    template: str | None
    metadata: Sequence[str]
    joined: Joined | None
    time_column: str | None
    key: Sequence[str] | None
    partition_interval: timedelta | None
    retention: timedelta | None
    destination: str | None
    chunk_size: tuple[int, int]
    chunk_overlap: int
    splitter: Literal["text", "markdown", "html", "none"]
    chunk_unit: Literal["characters", "tokens"]
    vectors: Literal["vector", "halfvec"]
    index: Literal["hnsw", "ivfflat"] | None
    on_long_text: Literal["split", "truncate", "dead-letter"]
    cache: bool
    max_tokens_per_day: int | None
    where: str | None
    always: bool


class _Joined(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    query: str
    parents: dict[str, tuple[str, ...]] = Field(default_factory=dict)


class Definition(BaseModel):
    """What a vectorizer does, as it stands in the registry: `Options`, and what embeds.

    Without `chunk_column` a callback does the embedding.

    embedder: configuration from which a worker makes the embedder; never a secret.
    model, dimensions: what the vectors are.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    chunk_column: str | None = None
    template: str | None = None
    metadata: tuple[str, ...] = ()
    joined: _Joined | None = None
    time_column: str | None = None
    key: tuple[str, ...] | None = None
    partition_interval: Interval | None = None
    retention: Interval | None = None
    destination: str | None = None
    embedder: dict[str, JSON] = Field(default_factory=dict)
    model: str | None = None
    dimensions: Annotated[int, Field(gt=0, le=16_000)] | None = None
    chunk_size: tuple[int, int] = (500, 1000)
    chunk_overlap: Annotated[int, Field(ge=0)] = 0
    splitter: Literal["text", "markdown", "html", "none"] = "text"
    chunk_unit: Literal["characters", "tokens"] = "characters"
    vectors: Literal["vector", "halfvec"] = "vector"
    on_long_text: Literal["split", "truncate", "dead-letter"] = "split"
    index: Literal["hnsw", "ivfflat"] | None = None
    cache: bool = False
    max_tokens_per_day: Annotated[int, Field(gt=0)] | None = None
    where: str | None = None
    always: bool = False

    @classmethod
    def parse(cls, options: Mapping[str, Any]) -> Definition:
        """Check options and return them as a definition.

        Raises ConfigurationError naming the first option that is wrong, or TemplateError.
        """
        try:
            definition = cls(**options)
        except ValidationError as error:
            first = error.errors()[0]
            name = ".".join(str(part) for part in first["loc"]) or "definition"
            raise ConfigurationError(
                f"option {name}={first['input']!r}: {first['msg'].removeprefix('Value error, ')}"
            ) from error
        # These check themselves when they are made.
        _ = definition.parsed_template, definition.chunker
        return definition

    @field_validator("metadata", "key", mode="before")
    @classmethod
    def _no_bare_string(cls, value: Any) -> Any:
        if isinstance(value, str):
            raise ValueError(f"expected a list of column names, got {value!r}")  # noqa: TRY004 - pydantic wants ValueError
        return value

    @property
    def parsed_template(self) -> Template:
        """The template; without one the chunk itself is the text."""
        return Template(self.template if self.template is not None else "{chunk}")

    @property
    def chunker(self) -> Chunker:
        """The splitter these options describe."""
        least, most = self.chunk_size
        return Chunker(least, most, self.chunk_overlap, self.splitter, self.chunk_unit)

    def to_json(self) -> dict[str, JSON]:
        """Return what `vectorizer.install` takes: only what is really given."""
        options = self.model_dump(mode="json", exclude_defaults=True)
        if self.chunk_column is not None:
            options |= {"chunk_size": list(self.chunk_size), "embedder": self.embedder}
        return options


@dataclass(frozen=True, slots=True)
class Relation:
    """A table or view by schema and name."""

    schema: str
    name: str

    def __str__(self) -> str:
        return f"{self.schema}.{self.name}"


@dataclass(frozen=True, slots=True)
class KeyColumn:
    """A column of the source's key.

    column: its name when the vectorizer was attached; current: its name now; name: its name
    in our tables; type: as SQL, with its collation; send, equals: its type's binary output
    function and its equality operator, qualified.
    """

    column: str
    number: int
    current: str
    name: str
    type: str
    send: str
    equals: str


@dataclass(frozen=True)
class Installation:
    """A vectorizer as it is installed in a database."""

    id: int
    name: str
    generation: int
    serving: bool
    """Whether readers see this generation."""
    takes_over: bool
    """Whether it serves by itself as soon as it has caught up."""
    revision: int
    """Changes in place so far for which every row had to be compared."""
    source: Relation
    source_oid: int
    source_columns: str
    """Numbers and names of the source's columns when this was read."""
    key: tuple[KeyColumn, ...]
    columns: Mapping[str, str] | None
    """Present names of the columns that the definition names; None where all columns count."""
    definition: Definition
    log_table: str
    row_table: str
    parents_table: str | None
    """Log of parents that changed; None without any."""
    joined_query: str | None
    """What is joined to the rows, with the names that columns have now."""
    joined_view: str | None
    """The view that says so; None where it is not there, in a preview."""
    destination: Relation | None
    storage: Relation | None
    paused_reason: str | None
    vector_schema: str | None
    vector_version: tuple[int, ...]

    def __str__(self) -> str:
        return f"vectorizer {self.name}, generation {self.generation}"

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Installation:
        """Return one row of what `find_generations.sql` found.

        Raises SourceError if the source table, a column of it, or the storage is gone.
        """
        if record["source_name"] is None:
            raise SourceError(
                f"vectorizer {record['name']}: its source table was dropped; "
                f"run: vectorizer uninstall {record['name']}"
            )
        if record["storage_name"] is None and "chunk_column" in record["definition"]:
            raise SourceError(
                f"vectorizer {record['name']}: its table of embeddings was dropped; run: "
                f"vectorizer uninstall {record['name']} --drop-embeddings, and install it again"
            )
        lost = [name for name, current in (record["columns"] or {}).items() if current is None]
        lost += [record["lost_key"]] if record["lost_key"] else []
        if lost and record["restored"]:
            raise SourceError(
                f"vectorizer {record['name']}: its source column {lost[0]} is not in the restored "
                f"table; if it was renamed before the dump, give it that name again and run: "
                f"vectorizer suspend {record['name']}; vectorizer resume {record['name']}; after "
                f"that it may have any name"
            )
        if lost:
            raise SourceError(
                f"vectorizer {record['name']}: its source column {lost[0]} was dropped; "
                f"run: vectorizer uninstall {record['name']}, and install it without that column"
            )
        return cls(
            id=record["id"],
            name=record["name"],
            generation=record["generation"],
            serving=record["serving"],
            takes_over=record["takes_over"],
            revision=record["revision"],
            source=Relation(record["source_schema"], record["source_name"]),
            source_oid=record["source_oid"],
            source_columns=record["source_columns"],
            key=tuple(KeyColumn(**column) for column in record["key"]),
            columns=record["columns"],
            definition=Definition.parse(record["definition"]),
            log_table=record["log_table"],
            row_table=record["row_table"],
            parents_table=record["parents_table"],
            joined_query=record["joined_query"],
            joined_view=record["joined_view"],
            destination=_relation(record, "destination"),
            storage=_relation(record, "storage"),
            paused_reason=record["paused_reason"] if record["paused_at"] else None,
            vector_schema=record["vector_schema"],
            vector_version=_version(record["vector_version"]),
        )


def _version(text: str | None) -> tuple[int, ...]:
    return tuple(int(part) for part in (text or "").split(".") if part.isdigit())


def _relation(record: Mapping[str, Any], what: str) -> Relation | None:
    name = record[f"{what}_name"]
    return None if name is None else Relation(record[f"{what}_schema"], name)
