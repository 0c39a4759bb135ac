"""Records of alerts in the store: rules, states, the lease, deliveries, and two logs."""

import json
from typing import Final, NamedTuple, TypeVar

import msgspec

from moodline.services.alerts.evaluator import AlertEvent, AlertState
from moodline.services.alerts.rules import Rule
from moodline.services.report.moments import iso, to_datetime
from moodline.shared.errors import RevisionConflictError, RuleExistsError, RuleNotFoundError, StoreError
from moodline.shared.store.base import VersionedEntries, VersionedEntry

RULES: Final = "alert-rules"
STATES: Final = "alert-state"
LEASES: Final = "alert-lease"
DELIVERIES: Final = "alert-deliveries"

ALERTS_LOG: Final = "alerts"
"""Alert events as JSON; also what live answers read."""
DELIVERY_LOG: Final = "alert-deliveries"
KEEP: Final = 10_000
"""Records that each of the two logs keeps."""

_Record = TypeVar("_Record")


class Saved(msgspec.Struct, frozen=True, array_like=True):
    """One rule and one stream, as stored.

    Attributes:
        rule: The rule's id.
        condition: Fingerprint of what the rule evaluated.
        state: Where it stands.
        pending: Events of the last step that are not in the log yet, oldest first.
    """

    rule: str
    condition: str
    state: AlertState
    pending: tuple[AlertEvent, ...] = ()


class StoredRule(NamedTuple):
    """A rule and its revision."""

    revision: int
    rule: Rule


def encode(record: msgspec.Struct) -> bytes:
    """Return the stored form of a record."""
    return msgspec.msgpack.encode(record)


def decode(value: bytes, kind: type[_Record]) -> _Record:
    """Return the record of a stored form. Raises `StoreError` when it is damaged or of another version."""
    try:
        return msgspec.msgpack.decode(value, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise StoreError(f"a stored record of alerts cannot be read: {error}") from None


def state_key(rule_id: str, stream_id: str) -> str:
    """Return the key of a rule's state for a stream."""
    return f"{rule_id}/{stream_id}"


class RuleBook:
    """The rules in the store."""

    def __init__(self, store: VersionedEntries) -> None:
        self._store = store

    def rules(self) -> list[StoredRule]:
        """Return all rules, ordered by id."""
        return [_stored(found) for found in self._store.list_entries(RULES)]

    def get(self, rule_id: str) -> StoredRule:
        """Return a rule. Raises `RuleNotFoundError`."""
        found = self._store.get_entry(RULES, rule_id)
        if found is None:
            raise RuleNotFoundError(f"there is no alert rule {rule_id!r}")
        return _stored(found)

    def add(self, rule: Rule) -> StoredRule:
        """Store a new rule. Raises `RuleExistsError`."""
        try:
            return StoredRule(self._store.put_entry(RULES, rule.rule_id, encode(rule), None), rule)
        except RevisionConflictError:
            raise RuleExistsError(f"there is an alert rule {rule.rule_id!r} already") from None

    def replace(self, rule: Rule, revision: int) -> StoredRule:
        """Store a changed rule. Raises `RevisionConflictError` unless the stored one has this revision."""
        try:
            return StoredRule(self._store.put_entry(RULES, rule.rule_id, encode(rule), revision), rule)
        except RevisionConflictError:
            raise _changed(rule.rule_id) from None

    def remove(self, rule_id: str, revision: int | None = None) -> None:
        """Remove a rule. Raises `RuleNotFoundError`, and `RevisionConflictError` unless it has the revision, if one is given."""
        try:
            was_there = self._store.remove_entry(RULES, rule_id, revision)
        except RevisionConflictError:
            raise _changed(rule_id) from None
        if not was_there:
            raise RuleNotFoundError(f"there is no alert rule {rule_id!r}")


def event_json(event: AlertEvent, written_us: int) -> bytes:
    """Return an event as the log, live answers and webhooks write it: one JSON object, times in ISO 8601."""
    payload = {
        "id": event.event_id,
        "rule": event.rule,
        "stream": event.stream,
        "kind": event.kind.value,
        "reason": event.reason.value,
        "at": _iso(event.at_s * 1_000_000),
        "since": _iso(event.since_s * 1_000_000),
        "value": _rounded(event.value),
        "baseline": _rounded(event.baseline),
        "faces": event.faces,
        "notify": event.notify,
        "written": _iso(written_us),
    }
    return json.dumps(payload, separators=(",", ":")).encode()


def _stored(found: VersionedEntry) -> StoredRule:
    return StoredRule(found.revision, decode(found.value, Rule))


def _changed(rule_id: str) -> RevisionConflictError:
    return RevisionConflictError(f"alert rule {rule_id!r} was changed by somebody else; read it again and repeat the change")


def _iso(us: int) -> str:
    return iso(to_datetime(us))


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 6)
