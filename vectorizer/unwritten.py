"""Vectors that are paid for and not written yet."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping

__all__ = ["UnwrittenVectors"]

_MEGABYTES = 32


class UnwrittenVectors:
    """A bounded memory of vectors by the hash of their text, the longest unused dropped first.

    A batch may end without all its rows written: an outage came in between, a row's other chunk
    was refused, the lease was lost. When its rows come again their texts need no second call.
    The worker that embedded them has to be the one that gets them; others pay again.
    """

    def __init__(self, most_bytes: int = _MEGABYTES * 1024 * 1024) -> None:
        self._most = most_bytes
        self._bytes = 0
        self._vectors: OrderedDict[bytes, bytes] = OrderedDict()

    def get(self, content_hash: bytes) -> bytes | None:
        """Return the vector of a text, if it is still known."""
        vector = self._vectors.get(content_hash)
        if vector is not None:
            self._vectors.move_to_end(content_hash)
        return vector

    def add(self, vectors: Mapping[bytes, bytes]) -> None:
        """Take in vectors by the hash of their text."""
        for content_hash, vector in vectors.items():
            self._bytes += len(vector) - len(self._vectors.pop(content_hash, b""))
            self._vectors[content_hash] = vector
        while self._bytes > self._most:
            _, dropped = self._vectors.popitem(last=False)
            self._bytes -= len(dropped)

    def forget(self, content_hashes: Iterable[bytes]) -> None:
        """Drop the vectors of texts that are written now."""
        for content_hash in content_hashes:
            self._bytes -= len(self._vectors.pop(content_hash, b""))
