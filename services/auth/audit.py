"""The audit log: who changed what, and when. Never what a body held: it may be a secret."""

from typing import Final

import msgspec

from moodline.services.auth.callers import Role
from moodline.shared.errors import StoreError
from moodline.shared.store.base import Documents

AUDIT_LOG: Final = "audit"
AUDIT_KEEP: Final = 10_000
"""Changes that are kept; of more, the newest."""


class Change(msgspec.Struct, frozen=True):
    """One change.

    Attributes:
        at_us: When, microseconds since the Unix epoch, UTC.
        who: Name of the caller's key; `local` where no key is asked for, `command line` for the command on the machine itself.
        role: The caller's role.
        what: The route, e.g. `DELETE /streams/{stream_id}`.
        ids: What was changed: names in the route, and names that the body gave.
    """

    at_us: int
    who: str
    role: Role
    what: str
    ids: dict[str, str]


_changes = msgspec.json.Decoder(Change)


def append_change(store: Documents, change: Change) -> int:
    """Write a change to the log and return its number."""
    return store.append_record(AUDIT_LOG, msgspec.json.encode(change), AUDIT_KEEP)


def read_changes(store: Documents, limit: int, before: int | None = None) -> list[tuple[int, Change]]:
    """Return numbers and changes, newest first, below the number `before` where it is given."""
    return [(number, _decode(value)) for number, value in store.records(AUDIT_LOG, 0, limit, before=before, newest_first=True)]


def _decode(value: bytes) -> Change:
    try:
        return _changes.decode(value)
    except msgspec.MsgspecError as error:
        raise StoreError(f"a stored change cannot be read by this version: {error}") from error
