"""Versioned entries and logs in Redis. All of a kind, or of a log, is on one node of a cluster."""

import secrets
from collections.abc import Sequence
from typing import Any, Final

from moodline.shared.store.base import VersionedEntry
from moodline.shared.store.records import entry_conflict
from moodline.shared.store.redis_layout import entry_keys, log_keys
from moodline.shared.store.redis_link import Argument, RedisLink, Script

_REMEMBERED_S: Final = 60
"""Time for which a record's change is remembered; a call is repeated for some seconds at most."""

_REMOVED_AT_ONCE: Final = 500

_script = Script("documents")


class RedisEntries:
    """The `VersionedEntries` protocol.

    Every step carries a random token, so that repeating one whose answer was lost changes nothing.
    """

    def __init__(self, link: RedisLink) -> None:
        self._link = link

    def put_entry(self, kind: str, key: str, value: bytes, expected: int | None) -> int:
        base = "" if expected is None else expected
        answer = self._run(entry_keys(kind), "put", key, secrets.token_hex(8), base, value)
        if answer == b"conflict":
            raise entry_conflict(kind, key)
        return int(answer)

    def get_entry(self, kind: str, key: str) -> VersionedEntry | None:
        stored = self._link.run([("HGET", entry_keys(kind)[0], key)])[0]
        return None if stored is None else _entry(key.encode(), stored)

    def list_entries(self, kind: str) -> list[VersionedEntry]:
        stored: dict[bytes, bytes] = self._link.run([("HGETALL", entry_keys(kind)[0])])[0]
        return [_entry(key, stored[key]) for key in sorted(stored)]

    def remove_entry(self, kind: str, key: str, expected: int | None = None) -> bool:
        call = _script.call(entry_keys(kind), ("remove", key, "" if expected is None else expected))
        replies = self._link.run([call])
        if replies[0] == b"conflict":
            raise entry_conflict(kind, key)
        # When the answer to an earlier attempt was lost, that attempt may have removed it.
        return bool(replies[0]) or replies.repeated

    def append_record(self, log: str, value: bytes, keep: int) -> int:
        return int(self._run(log_keys(log, secrets.token_hex(8)), "append", value, keep, _REMEMBERED_S))

    def records(
        self, log: str, after: int = 0, limit: int = 100, *, before: int | None = None, newest_first: bool = False
    ) -> list[tuple[int, bytes]]:
        low, high = f"{after + 1}-0", "+" if before is None else f"{max(0, before - 1)}-0"
        ends = ("XREVRANGE", log_keys(log)[0], high, low) if newest_first else ("XRANGE", log_keys(log)[0], low, high)
        found = self._link.run([(*ends, "COUNT", limit)])[0]
        return [(int(number.partition(b"-")[0]), fields[b"v"]) for number, fields in found]

    def remove_records(self, log: str, numbers: Sequence[int]) -> None:
        for start in range(0, len(numbers), _REMOVED_AT_ONCE):
            chunk = numbers[start : start + _REMOVED_AT_ONCE]
            self._link.run([("XDEL", log_keys(log)[0], *(f"{number}-0" for number in chunk))])

    def _run(self, keys: tuple[str, str], operation: str, *arguments: Argument) -> Any:
        return self._link.run([_script.call(keys, (operation, *arguments))])[0]


def _entry(key: bytes, stored: bytes) -> VersionedEntry:
    revision, _, value = stored.split(b" ", 2)
    return VersionedEntry(key.decode(), int(revision), value)
