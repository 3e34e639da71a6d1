"""Troubles said once, and again only when they change or go on for long."""

from __future__ import annotations

import logging
import time

__all__ = ["Complaints"]

log = logging.getLogger("vectorizer.worker")

_AGAIN_SECONDS = 300.0


class Complaints:
    """Logs a trouble of a subject when it begins, changes or ends, and every five minutes."""

    def __init__(self) -> None:
        self._said: dict[str, tuple[str, float]] = {}

    def say(self, subject: str, trouble: str, level: int = logging.WARNING) -> bool:
        """Log a trouble unless it was said a short while ago; return whether it was logged."""
        now = time.monotonic()
        said, at = self._said.get(subject, ("", 0.0))
        if said == trouble and now - at <= _AGAIN_SECONDS:
            return False
        self._said[subject] = (trouble, now)
        log.log(level, "%s: %s", subject, trouble, extra={"vectorizer": subject})
        return True

    def over(self, subject: str) -> None:
        """Log that a subject is well again, if anything was said of it."""
        if self._said.pop(subject, None) is not None:
            log.info("%s: works again", subject, extra={"vectorizer": subject})

    def forget(self, subject: str) -> None:
        """Drop a subject that is gone."""
        self._said.pop(subject, None)
