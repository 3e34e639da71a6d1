"""Models that turn texts into vectors, one provider a file.

`create` makes an embedder from the configuration kept in the registry, so that a worker
needs nothing but the database URL; `describe` is the way back. Other packages add providers by
an entry point of the group `vectorizer.embedders`: its name is the provider's, its object a
class or function that takes the options and returns an embedder.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from importlib.metadata import entry_points
from inspect import getattr_static
from typing import TYPE_CHECKING, Any

from vectorizer.errors import ConfigurationError
from vectorizer.types import JSON, Embedder

if TYPE_CHECKING:
    from vectorizer.embedders.fastembed import FastEmbedEmbedder
    from vectorizer.embedders.function import FunctionEmbedder
    from vectorizer.embedders.minilm import MiniLMEmbedder
    from vectorizer.embedders.openai import OpenAIEmbedder
    from vectorizer.embedders.sentence_transformers import SentenceTransformersEmbedder

__all__ = [
    "FastEmbedEmbedder",
    "FunctionEmbedder",
    "MiniLMEmbedder",
    "OpenAIEmbedder",
    "SentenceTransformersEmbedder",
    "create",
    "describe",
]

_GROUP = "vectorizer.embedders"

_PROVIDERS = {
    "minilm": "vectorizer.embedders.minilm:MiniLMEmbedder",
    "openai": "vectorizer.embedders.openai:OpenAIEmbedder",
    "sentence-transformers": (
        "vectorizer.embedders.sentence_transformers:SentenceTransformersEmbedder"
    ),
    "fastembed": "vectorizer.embedders.fastembed:FastEmbedEmbedder",
    "fake": "vectorizer.testing:FakeEmbedder",
}
_FUNCTION = "vectorizer.embedders.function:FunctionEmbedder"


def __getattr__(name: str) -> object:
    # A provider's client is imported when it is used: `import vectorizer` stays fast.
    for target in (*_PROVIDERS.values(), _FUNCTION):
        module, _, attribute = target.partition(":")
        if attribute == name and name in __all__:
            return getattr(import_module(module), attribute)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def create(config: Mapping[str, JSON], *, sends: bool = True) -> Embedder:
    """Make the embedder that `config` describes.

    `config["provider"]` names a provider of this package (`minilm`, `openai`,
    `sentence-transformers`, `fastembed`) or of an installed one, or it is `module:name` of

    - a class, which all other items are passed to as keyword arguments;
    - a function of texts, plain or async: they are the options of `FunctionEmbedder`, of which
      `model` is required;
    - an embedder, ready made: there are no other items.

    sends: whether it is going to be asked; one that only counts and describes needs no API key.

    Raises ConfigurationError if there is no such provider or it refuses an option.
    """
    options = dict(config)
    provider = options.pop("provider", None)
    if not isinstance(provider, str):
        raise ConfigurationError(
            f"the embedder's configuration names no provider; choose {_choice()}"
        )
    factory = _factory(provider)
    if provider == "openai" and not sends:
        options["api_key"] = "not-needed"
    try:
        made: Embedder = factory(**options)
    except TypeError as error:
        raise ConfigurationError(f"embedder {provider!r} {_complaint(error)}") from error
    if not _is_embedder(made):
        raise ConfigurationError(
            f"embedder {provider!r} lacks model, dimensions or embed: see vectorizer.Embedder"
        )
    return made


def _complaint(error: TypeError) -> str:
    # Python words it as "Class.__init__() got an unexpected keyword argument 'x'".
    # or "Class.__init__() missing 1 required positional argument: 'x'".
    _, unexpected, name = str(error).rpartition("unexpected keyword argument ")
    if unexpected:
        return f"takes no option {name}"
    start, missing, names = str(error).partition(" argument: ")
    if missing and " missing " in start:
        return f"needs the option {names}"
    return f"refuses its options: {error}"


def describe(embedder: Embedder) -> dict[str, JSON]:
    """Return the configuration from which `create` makes this embedder again.

    An embedder without a `config` of its own is described by its class alone.
    """
    kind = type(embedder)
    target = f"{kind.__module__}:{kind.__qualname__}"
    config = dict(getattr(embedder, "config", {}))
    # A subclass inherits the config of its parent, but is not what that makes.
    if _PROVIDERS.get(config.get("provider", ""), target) != target:
        config["provider"] = target
    return {"provider": target, **config}


def _factory(provider: str) -> Callable[..., Any]:
    """Return what makes an embedder of a provider from options."""
    if provider in _PROVIDERS:
        found: Callable[..., Any] = _load(provider, _PROVIDERS[provider])
        return found
    for entry in entry_points(group=_GROUP, name=provider):
        try:
            found = entry.load()
        except (ImportError, AttributeError) as error:
            raise ConfigurationError(f"cannot load embedder {provider!r}: {error}") from error
        return found
    if ":" not in provider:
        raise ConfigurationError(f"unknown embedder {provider!r}; choose {_choice()}")
    return _own(provider, _load(provider, provider))


def _own(provider: str, target: Any) -> Callable[..., Any]:
    """Return a factory for what somebody named as module:name."""
    if isinstance(target, type):
        return target
    if _is_embedder(target):
        return lambda: target
    if not callable(target):
        raise ConfigurationError(f"embedder {provider!r} is no class, function or embedder")
    from vectorizer.embedders.function import FunctionEmbedder  # noqa: PLC0415 - seldom needed

    return lambda **options: FunctionEmbedder(target, **options)


def _is_embedder(thing: object) -> bool:
    # isinstance would ask for `dimensions`, for which some have to load their model.
    return all(getattr_static(thing, name, None) for name in ("model", "dimensions", "embed"))


def _choice() -> str:
    installed = {entry.name for entry in entry_points(group=_GROUP)}
    return (
        f"one of {', '.join(sorted(installed.union(_PROVIDERS) - {'fake'}))}, "
        f"or a class or function as module:name"
    )


def _load(provider: str, target: str) -> Any:
    module, _, path = target.partition(":")
    try:
        found: Any = import_module(module)
        for name in path.split("."):
            found = getattr(found, name)
    except (ImportError, AttributeError) as error:
        raise ConfigurationError(
            f"cannot load embedder {provider!r}: {error}; its module has to be installed, or in "
            f"the working folder or on PYTHONPATH, and the name at the top of it"
        ) from error
    return found
