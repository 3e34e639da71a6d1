"""Every exception this package raises on purpose.

::

    VectorizerError
    ├── ConfigurationError          the definition cannot work as written
    │   ├── InvalidArgument         an argument of the client; a ValueError, too
    │   ├── SourceError             the source table is missing or unsuitable
    │   ├── TemplateError           a template names what the source does not have
    │   └── DimensionMismatch       embedder and destination differ in dimension
    ├── DatabaseError               the database cannot be used as it is
    │   ├── DatabaseUnavailable     unreachable, refused, or connection lost
    │   ├── ExtensionMissing        the `vector` extension is not there
    │   └── SchemaVersionError      our schema is newer or older than this program
    ├── NotInstalled                no vectorizer of that name
    ├── AlreadyInstalled            the name is taken by another definition
    ├── VectorizerPaused            someone, or a fault outside the data, paused it
    ├── SyncFailed                  what was waited for cannot come: dead letter or pause
    ├── SyncTimeout                 ... or did not come in time
    ├── NotCaughtUp                 a generation was to serve before it had everything
    ├── BudgetExhausted             what a run may send to the model is sent; the rest waits
    ├── LeaseLost                   another worker took the batch; nothing was written
    └── EmbedderError
        ├── EmbedderUnavailable     429, 5xx, timeout, connection: try again later
        ├── EmbedderRefused         wrong key, unknown model: somebody must act
        ├── InputRejected           the provider refused these texts
        │   └── InputTooLong        ... because they are too long, or too many at once
        └── InvalidEmbeddings       the answer has a wrong count, shape or value

`CollectionWarning` is a warning: a collection works, but slower or other than one may think.

`ConfigurationError`, `DatabaseError`, `NotInstalled`, `AlreadyInstalled` and
`EmbedderRefused` are the user's to mend: the CLI prints them in one line and exits with 2.
"""

from __future__ import annotations

__all__ = [
    "AlreadyInstalled",
    "BudgetExhausted",
    "CollectionWarning",
    "ConfigurationError",
    "DatabaseError",
    "DatabaseUnavailable",
    "DimensionMismatch",
    "EmbedderError",
    "EmbedderRefused",
    "EmbedderUnavailable",
    "ExtensionMissing",
    "InputRejected",
    "InputTooLong",
    "InvalidArgument",
    "InvalidEmbeddings",
    "LeaseLost",
    "NotCaughtUp",
    "NotInstalled",
    "SchemaVersionError",
    "SourceError",
    "SyncFailed",
    "SyncTimeout",
    "TemplateError",
    "VectorizerError",
    "VectorizerPaused",
]


class VectorizerError(Exception):
    """Base of all errors of this package."""


class ConfigurationError(VectorizerError):
    """The definition of a vectorizer, or an option of it, cannot work as written."""


class InvalidArgument(ConfigurationError, ValueError):
    """An argument given to a collection cannot work; also a ValueError, as in timescale_vector."""


class SourceError(ConfigurationError):
    """The source table does not exist, has no usable key, or lacks a named column."""


class TemplateError(ConfigurationError):
    """A template is malformed or names something the source does not have."""


class DimensionMismatch(ConfigurationError):
    """The embedder makes vectors of another dimension than the destination holds."""


class DatabaseError(VectorizerError):
    """The database answered, but cannot be used as it is."""


class DatabaseUnavailable(DatabaseError):
    """The database cannot be reached, refuses us, or the connection was lost."""


class ExtensionMissing(DatabaseError):
    """The `vector` extension is not installed in this database."""


class SchemaVersionError(DatabaseError):
    """Our schema in the database is newer or older than this program."""


class NotInstalled(VectorizerError):
    """There is no vectorizer of that name in this database."""


class AlreadyInstalled(VectorizerError):
    """A vectorizer of that name is installed with another definition."""


class VectorizerPaused(VectorizerError):
    """The vectorizer is paused; the message holds the reason."""


class SyncFailed(VectorizerError):
    """A change that was waited for became a dead letter, or the vectorizer is paused."""


class SyncTimeout(VectorizerError):
    """The vectorizer did not catch up in the time it was given."""


class NotCaughtUp(VectorizerError):
    """A new generation was to serve before it had all that the serving one has."""


class LeaseLost(VectorizerError):
    """The lease of a batch expired or was taken away; nothing of it was written."""


class EmbedderError(VectorizerError):
    """A model could not turn texts into vectors."""


class EmbedderUnavailable(EmbedderError):
    """The provider cannot answer now; the cause lies outside the data.

    `retry_after` is the number of seconds the provider asked us to wait, or None.
    """

    def __init__(self, message: str, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class EmbedderRefused(EmbedderError):
    """The provider will not serve us until somebody acts: bad key, unknown model."""


class BudgetExhausted(VectorizerError):
    """What may be spent in this run is spent; what is left waits."""


class InputRejected(EmbedderError):
    """The provider refused the texts themselves: too long, too many, not allowed."""


class InputTooLong(InputRejected):
    """The provider refused the texts as too long or too many; fewer or shorter ones may pass."""


class InvalidEmbeddings(EmbedderError):
    """The answer has the wrong number of vectors, the wrong dimension, or NaN in it."""


class CollectionWarning(UserWarning):
    """A collection works, but slower or other than its user may think."""
