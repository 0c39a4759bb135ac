"""The audit log: who changed what, and when. Never what a body held: it may be a secret.

Every entry is also a line of the process's log, which other machines can keep where it cannot be changed by whoever holds a key
here.
"""

import logging
import threading
from collections import Counter, OrderedDict
from typing import Final

import msgspec

from moodline.services.auth.callers import Caller, Role
from moodline.services.auth.limits import Buckets
from moodline.shared.clock import Clock
from moodline.shared.errors import StoreError
from moodline.shared.store.base import VersionedEntries

log = logging.getLogger("moodline.audit")

AUDIT_LOG: Final = "audit"
AUDIT_KEEP: Final = 100_000
"""Entries that are kept at most, whatever their age; of more, the newest."""
ANONYMOUS: Final = "anonymous"
"""Who asked, where nobody showed a good key."""

_QUIET_S: Final = 60.0
_REMEMBERED: Final = 4096
_ANONYMOUS_PER_S: Final = 1 / 60
_ANONYMOUS_BURST: Final = 100
"""Entries on refused keys, of all addresses together: whoever has no key must not fill the log."""
_CHANGES_PER_S: Final = 0.1
_CHANGES_BURST: Final = 10_000
"""Entries of one key."""
_TRIM_EVERY: Final = 256


class Change(msgspec.Struct, frozen=True):
    """One change.

    Attributes:
        at_us: When, microseconds since the Unix epoch, UTC.
        who: Name of the caller's key; `local` where no key is asked for, `anonymous` where none was good, `command line` for the
            command on the machine itself.
        role: The caller's role; None for `anonymous`.
        what: The route, e.g. `DELETE /streams/{stream_id}`, or `key refused`.
        ids: What was changed: names in the route, and names that the body gave. Of sign-ins and refused keys the address.
    """

    at_us: int
    who: str
    role: Role | None
    what: str
    ids: dict[str, str]


_changes = msgspec.json.Decoder(Change)


def append_change(store: VersionedEntries, change: Change) -> int:
    """Write a change to the audit log and the process's log, and return its number."""
    _to_log(change)
    return store.append_record(AUDIT_LOG, msgspec.json.encode(change), AUDIT_KEEP)


def read_changes(store: VersionedEntries, limit: int, before: int | None = None) -> list[tuple[int, Change]]:
    """Return numbers and changes, newest first, below the number `before` where it is given."""
    return [(number, _decode(value)) for number, value in store.records(AUDIT_LOG, 0, limit, before=before, newest_first=True)]


class AuditWriter:
    """Writes the log of one application. Thread-safe.

    Changes are written one by one. Of a key that makes very many, further ones are in the process's log alone until some time has
    passed, and its next entry says how many: one key cannot push what others did out of the log. Sign-ins and refused keys are
    written once a minute for each key and address.
    """

    def __init__(self, store: VersionedEntries, clock: Clock, keep_s: float) -> None:
        """Prepare; entries older than `keep_s` are removed."""
        self._store = store
        self._clock = clock
        self._keep_s = keep_s
        self._lock = threading.Lock()
        self._since: OrderedDict[tuple[str, str, str], tuple[float, int]] = OrderedDict()
        self._anonymous = Buckets(_ANONYMOUS_PER_S, _ANONYMOUS_BURST, clock)
        self._changes = Buckets(_CHANGES_PER_S, _CHANGES_BURST, clock)
        self._left_out: Counter[str] = Counter()

    def change(self, caller: Caller, what: str, ids: dict[str, str]) -> None:
        """Record a change. Raises `StoreUnavailableError`."""
        change = Change(self._now_us(), caller.name, caller.role, what, ids)
        with self._lock:
            is_too_many = bool(self._changes.take(caller.name))
            if is_too_many:
                self._left_out[caller.name] += 1
            else:
                left_out = self._left_out.pop(caller.name, 0)
        if is_too_many:
            _to_log(change)
            return
        if left_out:
            change = msgspec.structs.replace(change, ids={**ids, "left_out_before": str(left_out)})
        self._append(change)

    def signed(self, caller: Caller, what: str, address: str) -> None:
        """Record that somebody signed in or out with a key."""
        self._access(caller.name, caller.role, what, address)

    def refused(self, address: str) -> None:
        """Record that an unknown key came from an address."""
        self._access(ANONYMOUS, None, "key refused", address)

    def _access(self, who: str, role: Role | None, what: str, address: str) -> None:
        with self._lock:
            times = self._times(who, what, address)
            # What anybody can cause is bounded in all; what needs a good key is bounded by the number of keys.
            is_too_many = times > 0 and role is None and bool(self._anonymous.take("all"))
        if not times:
            return
        ids = {"address": address.removeprefix("address "), "times": str(times)}
        # Of too many, nothing is written anywhere: `moodline_keys_refused_total` has their number.
        if not is_too_many:
            self._append(Change(self._now_us(), who, role, what, ids))

    def _times(self, who: str, what: str, address: str) -> int:
        """Return how often it was since the last entry, or 0 where it is too early for another."""
        name, now_s = (who, what, address), self._clock.monotonic_s()
        known = self._since.get(name)
        is_due = known is None or now_s - known[0] >= _QUIET_S
        times = 1 + (known[1] if known else 0)
        self._since[name] = (now_s, 0) if is_due or known is None else (known[0], times)
        self._since.move_to_end(name)
        if len(self._since) > _REMEMBERED:
            self._since.popitem(last=False)
        return times if is_due else 0

    def _append(self, change: Change) -> None:
        if append_change(self._store, change) % _TRIM_EVERY == 0:
            self._trim()

    def _trim(self) -> None:
        oldest_us = self._now_us() - int(self._keep_s * 1_000_000)
        old = [number for number, value in self._store.records(AUDIT_LOG, 0, 2 * _TRIM_EVERY) if _decode(value).at_us < oldest_us]
        self._store.remove_records(AUDIT_LOG, old)

    def _now_us(self) -> int:
        return int(self._clock.now_s() * 1_000_000)


def _to_log(change: Change) -> None:
    log.info("audit.entry", extra={"who": change.who, "role": change.role, "what": change.what, "ids": change.ids})


def _decode(value: bytes) -> Change:
    try:
        return _changes.decode(value)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise StoreError(f"a stored change cannot be read by this version: {error}") from error
