"""The leader lease: of all processes that share a store, one evaluates alert rules."""

from contextlib import suppress
from typing import Final

import msgspec

from moodline.services.alerts.records import LEASES, decode, encode
from moodline.shared.clock import Clock
from moodline.shared.errors import RevisionConflictError
from moodline.shared.store.base import VersionedEntries

TERM_S: Final = 15.0
_RENEW_S: Final = TERM_S / 3
_TRUST_S: Final = TERM_S * 2 / 3
_KEY: Final = "judge"


class _Held(msgspec.Struct, frozen=True):
    owner: str


class LeaderLease:
    """Held by at most one owner at a time, as far as each can tell from its own monotonic clock.

    The holder renews the entry; others take it over once it has not changed for `TERM_S` of their own time. So clocks need
    not agree. A holder that was frozen may still believe in its lease for a moment: everything it writes is therefore also
    a compare-and-set, which fails.
    """

    def __init__(self, store: VersionedEntries, clock: Clock, owner: str, key: str = _KEY) -> None:
        """Prepare; `owner` is another word for each process, `key` what is leased."""
        self._key = key
        self._store = store
        self._clock = clock
        self._owner = owner
        self._revision: int | None = None
        self._renewed_s = 0.0
        self._seen: tuple[int, float] | None = None

    @property
    def is_held(self) -> bool:
        """Return whether the lease is held, without asking the store."""
        return self._revision is not None and self._clock.monotonic_s() - self._renewed_s < _TRUST_S

    def hold(self) -> bool:
        """Take, keep or look out for the lease, and return whether it is held. Blocks on the store."""
        now_s = self._clock.monotonic_s()
        if self._revision is not None and now_s - self._renewed_s < _RENEW_S:
            return True
        expected = self._revision if self._revision is not None else self._free_revision(now_s)
        if expected == _TAKEN:
            return False
        try:
            value = encode(_Held(self._owner))
            self._revision = self._store.put_entry(LEASES, self._key, value, None if expected == _NONE else expected)
        except RevisionConflictError:
            self.forget()
            return False
        self._renewed_s = now_s
        return True

    def forget(self) -> None:
        """Take the lease as lost."""
        self._revision = self._seen = None

    def release(self) -> None:
        """Give it back, so that another need not wait. Blocks on the store."""
        if self._revision is not None:
            with suppress(RevisionConflictError):
                self._store.remove_entry(LEASES, self._key, self._revision)
            self.forget()

    def _free_revision(self, now_s: float) -> int:
        """Return the revision to replace, `_NONE` where there is no entry, or `_TAKEN`."""
        found = self._store.get_entry(LEASES, self._key)
        if found is None:
            return _NONE
        if decode(found.value, _Held).owner == self._owner:
            # Our own, from before the store was unavailable.
            return found.revision
        if self._seen is None or self._seen[0] != found.revision:
            self._seen = found.revision, now_s
        return found.revision if now_s - self._seen[1] >= TERM_S else _TAKEN


_NONE: Final = -1
_TAKEN: Final = -2
