"""Three ways to break our own code, which the stress must find.

Applied in a worker of the stress only, by replacing parts of the loaded package.
"""

from __future__ import annotations

import re
import struct
import time
from typing import Any

import vectorizer.statements
from vectorizer._async.queue import AsyncQueue
from vectorizer._async.store import AsyncStore
from vectorizer._sync.queue import Queue
from vectorizer._sync.store import Store

__all__ = ["NAMES", "apply"]

_SNAPSHOT = """
select {s_keys}, {source_hash}, timestamptz_send({time}), {metadata}, {columns}
from {source} s
"""


def apply(name: str) -> None:
    """Break this process."""
    NAMES[name]()


def _no_fence() -> None:
    """Write whether or not the lease is still there."""

    async def hold_async(_self: Any, _connection: Any, _batch: Any) -> None:
        pass

    AsyncQueue.hold = hold_async
    Queue.hold = lambda _self, _connection, _batch: None


def _ack_by_key() -> None:
    """Delete the log entries of a key when its batch is finished, not when it is claimed."""
    query = vectorizer.statements.query
    at_claim = re.compile(r"gone as \(\s*delete from \{log\}[^\n]*\n")
    at_ack = (
        "with acked as (delete from {log} r using "
        "jsonb_to_recordset((select keys from {schema}.lease where token = %(token)s)) "
        "as k({record}) where {row_matches_k}) "
    )

    def broken(name: str) -> str:
        text = query(name)
        if name == "claim_changes":
            text, replaced = at_claim.subn("gone as (select 1 from done where false\n", text)
            assert replaced == 1, "claim_changes.sql has changed: mend this mutant"
        return at_ack + text if name == "close_lease" else text

    vectorizer.statements.query = broken


def _claim_and_read() -> None:
    """Take the content of rows from a snapshot that is older than the claim.

    That is what one statement for both would do: it claims the newest log entry and returns
    the row as it was when the statement began.
    """
    claim, load = Queue.claim, Store.load

    def claim_late(self: Any, rows: int) -> Any:
        with self._database.connection() as connection:
            found = connection.execute(_snapshot(self._statements), binary=True).fetchall()
        self._statements.snapshot = {key: rest for key, *rest in found}
        time.sleep(0.02)  # the statement takes its time
        return claim(self, rows)

    def load_early(self: Any, batch: Any) -> Any:
        rows, stored = load(self, batch)
        snapshot = self._queue._statements.snapshot
        return [_as_it_was(row, snapshot) for row in rows], stored

    Queue.claim, Store.load = claim_late, load_early
    # One of the two worlds is enough; workers of the other would hide it.
    AsyncQueue.claim = AsyncStore.load = None


def _snapshot(statements: Any) -> Any:
    return vectorizer.statements.compose(_SNAPSHOT, **statements._names)


def _as_it_was(row: Any, snapshot: dict[int, list[Any]]) -> Any:
    (key,) = struct.unpack(">q", row.key[0])
    if key not in snapshot:
        return row._replace(present=False, source_hash=None, time=None, texts=())
    source_hash, moment, metadata, texts = snapshot[key]
    return row._replace(
        present=True,
        source_hash=source_hash,
        time=None if moment is None else struct.unpack(">q", moment)[0],
        metadata=metadata,
        texts=texts,
    )


NAMES = {"no_fence": _no_fence, "ack_by_key": _ack_by_key, "claim_and_read": _claim_and_read}
