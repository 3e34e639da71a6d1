"""Configuration: a TOML file, over it environment variables, over these what flags say.

A source sets only what is really given there. The keys are those of the classes below::

    [database]
    url = "postgresql://…"

    [worker]                       # every option of vectorizer.worker.WorkerOptions
    concurrency = 8

    [log]
    format = "json"

    [metrics]
    port = 9187

    [vectorizers.blog]             # every option of vectorizer.definition.Options
    table = "blog"
    chunk_column = "contents"
    embedder = { provider = "minilm" }

In the environment a key is `VECTORIZER_<SECTION>_<KEY>`, such as `VECTORIZER_WORKER_CONCURRENCY`,
and one of a definition `VECTORIZER_VECTORIZERS__<NAME>__<KEY>`. Lists and tables are written there
as in TOML.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from datetime import timedelta, timezone
from difflib import get_close_matches
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Final, Literal, get_args, get_type_hints

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)
from typing_extensions import Self

from vectorizer.definition import Definition, Options
from vectorizer.errors import ConfigurationError
from vectorizer.intervals import parse_interval
from vectorizer.worker import WorkerOptions

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

__all__ = [
    "DEFAULT_FILE",
    "Config",
    "DatabaseConfig",
    "Loaded",
    "LogConfig",
    "MetricsConfig",
    "VectorizerConfig",
    "load",
    "masked",
]

DEFAULT_FILE: Final = Path("vectorizer.toml")
_PREFIX: Final = "VECTORIZER_"
# Of which variable a key may come besides its own; the first that is set counts.
_URLS: Final = ("VECTORIZER_URL", "VECTORIZER_DATABASE_URL", "DATABASE_URL")
# What Kubernetes sets in every container for a Service that is called like a section.
_KUBERNETES: Final = re.compile(r"_SERVICE_(HOST|PORT)|_PORT_\d+_(TCP|UDP)|_PORT$")
_SECRET: Final = re.compile(r"(^|[-_])(key|secret|token|password|authorization)$", re.IGNORECASE)


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class DatabaseConfig(_Section):
    """Where the tables are.

    url: libpq connection string; schema: where our own tables live.
    """

    url: str | None = None
    schema_: Annotated[str, Field(alias="schema", min_length=1)] = "vectorizer"


class LogConfig(_Section):
    """What a worker writes to standard error.

    format: lines to read, or one JSON object a line; level: the least that is written.
    """

    format: Literal["console", "json"] = "console"
    level: Literal["debug", "info", "warning", "error"] = "info"


class MetricsConfig(_Section):
    """Where a worker answers /metrics, /healthz and /readyz; nowhere without a port.

    host: address it listens on; port: TCP port.
    """

    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65_535)] | None = None


def _list(value: Any) -> Any:
    if isinstance(value, str):
        return [part.strip() for part in value.split(",") if part.strip()]
    return value


def _interval(value: Any) -> Any:
    return parse_interval(value) if isinstance(value, str) else value


def _embedder(value: dict[str, Any]) -> dict[str, Any]:
    secret = next((key for key in _names(value) if _SECRET.search(key)), None)
    if secret is not None:
        raise ValueError(
            f"{secret} would be readable in the database: give secrets in the environment, "
            f"such as OPENAI_API_KEY"
        )
    return value


def _names(value: Any) -> Iterator[str]:
    if isinstance(value, Mapping):
        for name, inner in value.items():
            yield str(name)
            yield from _names(inner)


# Options that are lengths of time; a person writes 30d.
_INTERVALS: Final = tuple(
    name for name, kind in get_type_hints(Options).items() if timedelta in get_args(kind)
)


class VectorizerConfig(Definition):
    """A vectorizer to install: its table, and the options of a definition.

    table: the source, with its schema if that is not public.
    embedder: what makes the vectors, by its provider, and the options it is made with; its model
        and dimensions are said here, too.
    """

    table: Annotated[str, Field(min_length=1)]
    chunk_column: Annotated[str, Field(min_length=1)]
    embedder: Annotated[dict[str, Any], AfterValidator(_embedder)] = Field(
        default_factory=lambda: {"provider": "minilm"}
    )

    @field_validator("metadata", "key", mode="before")
    @classmethod
    def _no_bare_string(cls, value: Any) -> Any:
        return _list(value)  # the environment and flags have no other lists

    @field_validator("partition_interval", "retention", mode="before")
    @classmethod
    def _readable(cls, value: Any) -> Any:
        return _interval(value)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.model is not None or self.dimensions is not None:
            raise ValueError("model and dimensions belong into the embedder: embedder = { … }")
        try:
            _ = self.parsed_template, self.chunker
        except ConfigurationError as error:
            raise ValueError(str(error)) from None
        return self

    def options(self) -> dict[str, Any]:
        """Return the options that are really given, as `Vectorizer` takes them."""
        ours = {"table", "embedder", "model", "dimensions"}
        return {name: getattr(self, name) for name in self.model_fields_set - ours}


class Config(_Section):
    """All of it."""

    database: DatabaseConfig = DatabaseConfig()
    worker: WorkerOptions = WorkerOptions()
    log: LogConfig = LogConfig()
    metrics: MetricsConfig = MetricsConfig()
    vectorizers: dict[str, VectorizerConfig] = {}


@dataclass(frozen=True)
class Loaded:
    """A configuration, the file it was read from if any, and where each given key came from."""

    config: Config
    file: Path | None
    sources: Mapping[tuple[str, ...], str]

    def given(self) -> Iterator[tuple[tuple[str, ...], Any, str]]:
        """Yield each key that is given, its value with secrets masked, and its source."""
        for key, source in sorted(self.sources.items()):
            yield key, masked(key, _value(self.config, key)), source


def load(
    file: Path | None, environment: Mapping[str, str], flags: Mapping[str, Mapping[str, Any]]
) -> Loaded:
    """Read, merge and check a configuration.

    file: of the user's choice; by default vectorizer.toml in the working folder, if it is there.
    flags: what was given on the command line, by section, those of a vectorizer by its name,
        too; None is what was not.

    Raises ConfigurationError naming the source, the key, and what it may be.
    """
    path = _find(file, environment)
    merged: dict[tuple[str, ...], Any] = {}
    sources: dict[tuple[str, ...], str] = {}
    given = [
        (str(path), _leaves(_read(path)) if path is not None else {}),
        ("environment", _from_environment(environment)),
        ("command line", _from_flags(flags)),
    ]
    for source, values in given:
        for key, (value, name) in values.items():
            merged[key] = value
            sources[key] = f"{source}, {name}" if name else source
    try:
        config = Config.model_validate(_nested(merged))
    except ValidationError as error:
        raise ConfigurationError(_message(error, sources, path)) from None
    _check_schedules(config.worker, sources, path)
    return Loaded(config, path, sources)


def masked(key: Sequence[str], value: Any) -> Any:
    """Return a value as it may be shown: without passwords and keys."""
    if isinstance(value, str) and key[-1] == "url":
        value = re.sub(r"(://[^:/@?]*):[^/?]*@", r"\1:***@", value)
        return re.sub(r"(password\s*=\s*)('[^']*'|[^\s&]*)", r"\1***", value)
    if isinstance(value, Mapping):
        return {name: masked((*key, name), inner) for name, inner in value.items()}
    return "***" if isinstance(value, str) and _SECRET.search(key[-1]) else value


def _check_schedules(
    worker: WorkerOptions, sources: Mapping[tuple[str, ...], str], path: Path | None
) -> None:
    if not worker.schedules and worker.verify_schedule is None:
        return
    # APScheduler is loaded by those who have a schedule.
    from vectorizer.worker._cron import cron_trigger, zone  # noqa: PLC0415

    checks: list[tuple[str, Callable[[], object]]] = [("timezone", partial(zone, worker.timezone))]
    expressions = [("schedules", text) for text in worker.schedules.values()]
    if worker.verify_schedule is not None:
        expressions.append(("verify_schedule", worker.verify_schedule))
    checks += [(key, partial(cron_trigger, text, timezone.utc)) for key, text in expressions]
    for key, check in checks:
        try:
            check()
        except ConfigurationError as error:
            source = _source(("worker", key), sources, path)
            raise ConfigurationError(f"{source}: worker.{key}: {error}") from None


def _find(file: Path | None, environment: Mapping[str, str]) -> Path | None:
    named = file or (Path(given) if (given := environment.get("VECTORIZER_CONFIG")) else None)
    if named is not None and not named.is_file():
        raise ConfigurationError(
            f"there is no configuration file {named}; write one with: vectorizer init"
        )
    return named or (DEFAULT_FILE if DEFAULT_FILE.is_file() else None)


def _read(path: Path) -> dict[str, Any]:
    try:
        document: dict[str, Any] = tomllib.loads(path.read_text(encoding="utf-8"))
    except tomllib.TOMLDecodeError as error:
        raise ConfigurationError(f"{path} is no TOML: {error}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{path} cannot be read: {error}") from None
    return document


_Leaves = dict[tuple[str, ...], tuple[Any, str]]


def _leaves(document: Mapping[str, Any]) -> _Leaves:
    """Return what a file says by section and key, deeper by one under [vectorizers]."""
    found: _Leaves = {}
    for section, values in document.items():
        depth = 2 if section == "vectorizers" else 1
        found |= {key: (value, "") for key, value in _flat((section,), values, depth)}
    return found


def _flat(path: tuple[str, ...], value: Any, depth: int) -> Iterator[tuple[tuple[str, ...], Any]]:
    if depth == 0 or not isinstance(value, Mapping):
        yield path, value
        return
    for name, inner in value.items():
        yield from _flat((*path, name), inner, depth - 1)


def _from_environment(environment: Mapping[str, str]) -> _Leaves:
    found: _Leaves = {}
    for name, text in sorted(environment.items()):
        if text and (key := _key_of(name, text)) is not None:
            found[key] = (_parsed(text), name)
    for name in reversed(_URLS):
        if environment.get(name):
            found["database", "url"] = (environment[name], name)
    return found


def _key_of(name: str, text: str) -> tuple[str, ...] | None:
    if name.startswith(f"{_PREFIX}VECTORIZERS__"):
        _, vectorizer, *key = name.removeprefix(_PREFIX).lower().split("__")
        return ("vectorizers", vectorizer, *key)
    for section in ("database", "worker", "log", "metrics"):
        start = f"{_PREFIX}{section.upper()}_"
        if name.startswith(start):
            foreign = _KUBERNETES.search(name) is not None and not text.isdigit()
            return None if foreign else (section, name.removeprefix(start).lower())
    return None


def _parsed(text: str) -> Any:
    if text.lstrip().startswith(("[", "{")):
        try:
            return tomllib.loads(f"value = {text}")["value"]
        except tomllib.TOMLDecodeError:
            pass  # a template may begin with a brace
    return text


def _from_flags(flags: Mapping[str, Mapping[str, Any]]) -> _Leaves:
    return {
        key: (value, "--" + key[-1].replace("_", "-"))
        for section, values in flags.items()
        for key, value in _flat((section,), values, 2 if section == "vectorizers" else 1)
        if value is not None and len(key) > 1
    }


def _nested(leaves: Mapping[tuple[str, ...], Any]) -> dict[str, Any]:
    document: dict[str, Any] = {}
    for key, value in leaves.items():
        place = document
        for name in key[:-1]:
            # A section that is no table is told of by the check.
            inner = place.setdefault(name, {})
            if not isinstance(inner, dict):
                inner = place[name] = {}
            place = inner
        place[key[-1]] = value
    return document


def _value(config: Config, key: tuple[str, ...]) -> Any:
    value: Any = config
    for name in key:
        if isinstance(value, Mapping):
            value = value.get(name)
        else:
            value = getattr(value, "schema_" if name == "schema" else name)
    return value


def _message(
    error: ValidationError, sources: Mapping[tuple[str, ...], str], path: Path | None
) -> str:
    messages = []
    for one in error.errors(include_url=False):
        key = tuple(str(part) for part in one["loc"])
        messages.append(f"{_source(key, sources, path)}: {_explained(key, one)}")
    return "; ".join(dict.fromkeys(messages))


def _source(key: tuple[str, ...], sources: Mapping[tuple[str, ...], str], path: Path | None) -> str:
    for given, source in sources.items():
        if given[: len(key)] == key or key[: len(given)] == given:
            return source
    return str(path or "configuration")


def _explained(key: tuple[str, ...], one: Mapping[str, Any]) -> str:
    name = ".".join(key)
    if one["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
        known = _known(key[:-1])
        near = get_close_matches(key[-1], known, 1)
        hint = f"did you mean {near[0]}? " if near else ""
        return f"unknown key {name}; {hint}known are: {', '.join(known)}"
    if one["type"] == "missing":
        return f"{name} is required"
    said = one["msg"].removeprefix("Value error, ")
    shown = masked(key or ("",), one["input"])
    if isinstance(shown, (str, int, float)):
        return f"{name} is {shown!r}: {said}"
    return f"{name}: {said}" if name else said


def _known(section: Sequence[str]) -> list[str]:
    """Return the keys a section may have."""
    kind: Any = Config
    for name in section:
        if kind is VectorizerConfig:
            break
        kind = VectorizerConfig if kind is dict else _type_of(kind, name)
    return _keys(kind)


def _type_of(kind: Any, name: str) -> Any:
    return {
        "database": DatabaseConfig,
        "worker": WorkerOptions,
        "log": LogConfig,
        "metrics": MetricsConfig,
        "vectorizers": dict,
    }.get(name, kind)


def _keys(kind: Any) -> list[str]:
    if is_dataclass(kind):
        return [field.name for field in fields(kind)]
    if kind is dict:
        return []
    names = [field.alias or name for name, field in kind.model_fields.items()]
    return [name for name in names if kind is not VectorizerConfig or name not in _DERIVED]


_DERIVED: Final = ("model", "dimensions")
