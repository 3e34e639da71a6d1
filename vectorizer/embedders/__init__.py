"""Models that turn texts into vectors, one provider a file.

`create` makes an embedder from the configuration kept in the registry, so that a worker
needs nothing but the database URL; `describe` is the way back.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import TYPE_CHECKING, cast

from vectorizer.errors import ConfigurationError
from vectorizer.types import JSON, Embedder

if TYPE_CHECKING:
    from vectorizer.embedders.minilm import MiniLMEmbedder
    from vectorizer.embedders.openai import OpenAIEmbedder

__all__ = ["MiniLMEmbedder", "OpenAIEmbedder", "create", "describe"]

_PROVIDERS = {
    "minilm": "vectorizer.embedders.minilm:MiniLMEmbedder",
    "openai": "vectorizer.embedders.openai:OpenAIEmbedder",
    "fake": "vectorizer.testing:FakeEmbedder",
}


def __getattr__(name: str) -> object:
    # A provider's client is imported when it is used: `import vectorizer` stays fast.
    for target in _PROVIDERS.values():
        module, _, attribute = target.partition(":")
        if attribute == name and name in __all__:
            return getattr(import_module(module), attribute)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def create(config: Mapping[str, JSON]) -> Embedder:
    """Make the embedder that `config` describes.

    `config["provider"]` names a provider of this package (`minilm`, `openai`) or a
    class as `module:name`; all other items are passed to it as keyword arguments.

    Raises ConfigurationError if there is no such provider or it refuses an option.
    """
    options = dict(config)
    provider = options.pop("provider", None)
    if not isinstance(provider, str):
        raise ConfigurationError(
            f"the embedder's configuration names no provider; choose one of "
            f"{', '.join(sorted(_PROVIDERS))} or a class as module:name"
        )
    factory = _load(provider)
    try:
        return factory(**options)
    except TypeError as error:
        # Python words it as "Class.__init__() got an unexpected keyword argument 'x'".
        unknown = str(error).rpartition("unexpected keyword argument ")[2]
        raise ConfigurationError(f"embedder {provider!r} takes no option {unknown}") from error


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


def _load(provider: str) -> Callable[..., Embedder]:
    target = _PROVIDERS.get(provider, provider)
    module, colon, attribute = target.partition(":")
    if not colon:
        raise ConfigurationError(
            f"unknown embedder {provider!r}; choose one of {', '.join(sorted(_PROVIDERS))} "
            f"or a class as module:name"
        )
    try:
        return cast("Callable[..., Embedder]", getattr(import_module(module), attribute))
    except (ImportError, AttributeError) as error:
        raise ConfigurationError(f"cannot load embedder {provider!r}: {error}") from error
