"""Logs of the command line: lines to read, or JSON to collect."""

from __future__ import annotations

import json
import logging
import sys
from datetime import datetime, timezone
from enum import Enum

from vectorizer.events import current_batch

__all__ = ["LogFormat", "LogLevel", "configure"]


class LogFormat(str, Enum):
    """How a line of the log looks."""

    console = "console"
    json = "json"


class LogLevel(str, Enum):
    """What is worth a line."""

    debug = "debug"
    info = "info"
    warning = "warning"
    error = "error"


_FIELDS = ("vectorizer", "batch", "keys")


def configure(form: str, level: str) -> None:
    """Send the logs of this process to standard error."""
    handler = logging.StreamHandler(sys.stderr)
    handler.addFilter(_add_batch)
    handler.setFormatter(_Json() if form == "json" else _Console())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    # They tell of every job and every request at levels that are ours to use.
    for name in ("apscheduler", "httpx", "httpcore", "openai"):
        logging.getLogger(name).setLevel(max(logging.WARNING, root.level))


def _add_batch(record: logging.LogRecord) -> bool:
    for name, value in current_batch().items():
        if not hasattr(record, name):
            setattr(record, name, value)
    return True


class _Console(logging.Formatter):
    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)-7s %(message)s")


class _Json(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        at = datetime.fromtimestamp(record.created, timezone.utc)
        line = {
            "time": at.isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        line |= {name: getattr(record, name) for name in _FIELDS if hasattr(record, name)}
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False, default=str)
