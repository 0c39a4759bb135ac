"""API keys and sessions, as the store keeps them: never the key itself, only its SHA-256.

A key is 32 random bytes. Slow hashes protect what people choose and others can guess; nobody guesses 256 random bits, so one
round of SHA-256 is as safe, and checking it costs a request nothing. Digests are compared in constant time.
"""

import hashlib
import hmac
import re
import secrets
import threading
from collections.abc import Sequence
from contextlib import suppress
from typing import Final, NamedTuple

import msgspec

from moodline.services.auth.callers import Caller, Role
from moodline.shared.clock import Clock
from moodline.shared.errors import (
    InvalidKeyError,
    InvalidStreamError,
    KeyExistsError,
    KeyNotFoundError,
    RevisionConflictError,
    StoreError,
)
from moodline.shared.store.base import VersionedEntries
from moodline.shared.streams import check_stream_id

_KEYS: Final = "keys"
_USES: Final = "key-uses"
_SESSIONS: Final = "sessions"
_HISTORY: Final = "access"
_WERE_MADE: Final = "keys-were-made"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,62}", re.ASCII)
_KEY = re.compile(r"mdl_(?P<id>[0-9a-f]{12})_[A-Za-z0-9_-]{43}", re.ASCII)
_SESSION = re.compile(r"mds_[A-Za-z0-9_-]{43}", re.ASCII)
_SECRET_BYTES: Final = 32
_USE_RECORDED_US: Final = 60_000_000
"""The time of last use is written at most this often per key."""
_RESERVED: Final = frozenset({"local", "anonymous", "system"})
"""Names that the audit log and answers give to those who have no key."""
_SCOPE_LIMIT: Final = 200
_LABEL_LIMIT: Final = 320


class KeyRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A key as it is kept. Times are microseconds since the Unix epoch, UTC.

    Attributes:
        name: Who uses it; unique.
        role: What its holder may do.
        digest: SHA-256 of the key, in hexadecimal digits.
        streams: Ids of streams that it is limited to, or None.
        labels: Labels of streams that it is limited to, as `key=value` or `key`, or None.
        created_at_us: When it was made.
        expires_at_us: From when on it is worth nothing, or None.
    """

    name: str
    role: Role
    digest: str
    streams: tuple[str, ...] | None = None
    labels: tuple[str, ...] | None = None
    created_at_us: int = 0
    expires_at_us: int | None = None

    @property
    def key_id(self) -> str:
        """The part of the key that is no secret; made of the name, so that two keys cannot have the same."""
        return _id_of(self.name)

    @property
    def prefix(self) -> str:
        """Return the beginning of the key, by which people tell keys apart."""
        return f"mdl_{self.key_id}"

    def caller(self) -> Caller:
        """Return who holds the key."""
        return Caller(self.name, self.role, None if self.streams is None else frozenset(self.streams), self.labels)


class KeyInfo(NamedTuple):
    """A key and when it was last used, to the minute; None where it never was."""

    record: KeyRecord
    last_used_us: int | None


class _Session(msgspec.Struct, frozen=True):
    key_id: str
    key_digest: str
    expires_at_us: int


_records = msgspec.json.Decoder(KeyRecord)
_sessions = msgspec.json.Decoder(_Session)


class Keyring:
    """Makes, lists, removes and checks keys and sessions. Thread-safe; every method asks the store."""

    def __init__(self, store: VersionedEntries, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._opening = threading.Lock()

    def add(self, record: KeyRecord) -> tuple[KeyRecord, str]:
        """Make a key. `digest` and `created_at_us` of what is given are replaced. Return what is kept, and the key itself.

        Raises:
            InvalidKeyError: name, scope or expiry cannot be used.
            KeyExistsError: there is a key of this name.
        """
        _check(record, self._now_us())
        key = f"{record.prefix}_{secrets.token_urlsafe(_SECRET_BYTES)}"
        kept = msgspec.structs.replace(record, digest=_digest(key), created_at_us=self._now_us())
        self._remember_keys()
        try:
            self._store.put_entry(_KEYS, kept.key_id, msgspec.json.encode(kept), None)
        except RevisionConflictError:
            raise KeyExistsError(f"there is a key {record.name!r} already; remove it first, or choose another name") from None
        return kept, key

    def list_keys(self) -> list[KeyInfo]:
        """Return all keys, ordered by name."""
        uses = {entry.key: int(entry.value) for entry in self._store.list_entries(_USES)}
        records = [_decode(entry.value) for entry in self._store.list_entries(_KEYS)]
        return [KeyInfo(record, uses.get(record.key_id)) for record in sorted(records, key=lambda record: record.name)]

    def exist(self) -> bool:
        """Return whether there is any key, expired ones included."""
        return bool(self._store.list_entries(_KEYS))

    def were_made(self) -> bool:
        """Return whether there ever was a key: whoever removes the last one does not mean to let everybody in."""
        return self.exist() or self._store.get_entry(_HISTORY, _WERE_MADE) is not None

    def remove(self, name: str) -> None:
        """Remove a key, and with it the sessions that it opened. Raises `KeyNotFoundError`."""
        key_id = _id_of(name)
        if self._store.get_entry(_KEYS, key_id) is not None:
            self._remember_keys()
        if not self._store.remove_entry(_KEYS, key_id):
            raise KeyNotFoundError(f"there is no key {name!r}")
        self._store.remove_entry(_USES, key_id)
        self._drop_sessions(key_id)

    def holder(self, key: str) -> KeyRecord | None:
        """Return the record of a key; None when it is unknown, removed or expired."""
        match = _KEY.fullmatch(key)
        record = self._record(match["id"]) if match else None
        if record is None or not hmac.compare_digest(record.digest, _digest(key)):
            return None
        return record

    def session_holder(self, session: str) -> KeyRecord | None:
        """Return the record of the key that opened a session; None when either is unknown, over or expired."""
        stored = self._store.get_entry(_SESSIONS, _digest(session)) if _SESSION.fullmatch(session) else None
        if stored is None:
            return None
        opened = _sessions.decode(stored.value)
        record = self._record(opened.key_id) if opened.expires_at_us > self._now_us() else None
        # A later key of the same name is another key.
        return record if record is not None and hmac.compare_digest(record.digest, opened.key_digest) else None

    def open_session(self, record: KeyRecord, lifetime_s: float, limit: int) -> str:
        """Open a session for the holder of a key, and return its secret. Of more than `limit`, the first to end are closed."""
        session = f"mds_{secrets.token_urlsafe(_SECRET_BYTES)}"
        opened = _Session(record.key_id, record.digest, self._now_us() + int(lifetime_s * 1e6))
        with self._opening:
            self._drop_sessions(None)
            self._make_room(record.key_id, limit)
            self._store.put_entry(_SESSIONS, _digest(session), msgspec.json.encode(opened), None)
        return session

    def close_session(self, session: str) -> KeyRecord | None:
        """End a session; return the record of its key, or None where there was no such session."""
        record = self.session_holder(session)
        if record is not None:
            self._store.remove_entry(_SESSIONS, _digest(session))
        return record

    def record_use(self, record: KeyRecord) -> None:
        """Remember that a key was used now; writes at most once a minute."""
        stored = self._store.get_entry(_USES, record.key_id)
        now_us = self._now_us()
        if stored is not None and now_us - int(stored.value) < _USE_RECORDED_US:
            return
        try:
            self._store.put_entry(_USES, record.key_id, b"%d" % now_us, None if stored is None else stored.revision)
        except RevisionConflictError:
            return  # another process noted the same at this moment

    def _remember_keys(self) -> None:
        if self._store.get_entry(_HISTORY, _WERE_MADE) is None:
            with suppress(RevisionConflictError):
                self._store.put_entry(_HISTORY, _WERE_MADE, b"1", None)

    def _record(self, key_id: str) -> KeyRecord | None:
        stored = self._store.get_entry(_KEYS, key_id)
        record = None if stored is None else _decode(stored.value)
        if record is None or (record.expires_at_us is not None and record.expires_at_us <= self._now_us()):
            return None
        return record

    def _drop_sessions(self, key_id: str | None) -> None:
        """Remove the sessions of a key, and all that are over."""
        for entry in self._store.list_entries(_SESSIONS):
            opened = _sessions.decode(entry.value)
            if opened.key_id == key_id or opened.expires_at_us <= self._now_us():
                self._store.remove_entry(_SESSIONS, entry.key)

    def _make_room(self, key_id: str, limit: int) -> None:
        opened = [(_sessions.decode(entry.value), entry.key) for entry in self._store.list_entries(_SESSIONS)]
        mine = sorted((session.expires_at_us, key) for session, key in opened if session.key_id == key_id)
        for _, key in mine[: max(0, len(mine) - limit + 1)]:
            self._store.remove_entry(_SESSIONS, key)

    def _now_us(self) -> int:
        return int(self._clock.now_s() * 1_000_000)


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


def _id_of(name: str) -> str:
    return _digest(name)[:12]


def _decode(value: bytes) -> KeyRecord:
    try:
        return _records.decode(value)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise StoreError(f"a stored key cannot be read by this version: {error}") from error


def _check(record: KeyRecord, now_us: int) -> None:
    if record.name.lower() in _RESERVED:
        raise InvalidKeyError("name", f"the audit log uses the name {record.name.lower()!r} for others; choose another")
    if not _NAME.fullmatch(record.name):
        raise InvalidKeyError(
            "name", "a key's name has 1 to 63 letters, digits, '.', '_', '@' or '-', and starts with a letter or digit"
        )
    _check_scope(record.streams, record.labels)
    if record.role is Role.ADMIN and (record.streams is not None or record.labels is not None):
        raise InvalidKeyError(
            "role", "an admin's key cannot be limited to streams or labels; make it an operator's or a viewer's"
        )
    if record.expires_at_us is not None and record.expires_at_us <= now_us:
        raise InvalidKeyError("expires_at", "the key would have expired already")


def _check_scope(streams: Sequence[str] | None, labels: Sequence[str] | None) -> None:
    for field, values in (("streams", streams), ("labels", labels)):
        if values is not None and not 0 < len(values) <= _SCOPE_LIMIT:
            raise InvalidKeyError(field, f"name 1 to {_SCOPE_LIMIT}, or leave it out")
    for stream_id in streams or ():
        try:
            check_stream_id(stream_id)
        except InvalidStreamError as error:
            raise InvalidKeyError("streams", str(error)) from None
    for label in labels or ():
        if not label.partition("=")[0] or len(label) > _LABEL_LIMIT:
            raise InvalidKeyError("labels", "a label is written key=value, or key for any value")
