"""Webhooks on their way: kept in the store until they are delivered or given up."""

import logging
import secrets
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final

import msgspec

from moodline.services.alerts.chat import Template, rendered
from moodline.services.alerts.records import DELIVERIES, DELIVERY_LOG, KEEP, RULES, decode, encode
from moodline.services.alerts.rules import Rule, Webhook
from moodline.services.alerts.webhook import Sender
from moodline.shared.clock import Clock
from moodline.shared.errors import RevisionConflictError, SealError, WebhookError
from moodline.shared.metrics import Metrics
from moodline.shared.seal import Sealer
from moodline.shared.settings import AlertsSettings
from moodline.shared.store.base import VersionedEntries, VersionedEntry

log = logging.getLogger("moodline.alerts")

_AT_ONCE: Final = 8
_LEAST_PLACES: Final = 2
_MOST_DUE: Final = 64
"""Of one owner in one round."""
_ROUND_S: Final = 5.0
"""After so long, no further delivery of a round is begun: meanwhile others have come due."""
_REMEMBER_US: Final = 3_600_000_000
"""A finished delivery is remembered for so long, so that an owner that was frozen does not start it again."""


class Delivery(msgspec.Struct, frozen=True, kw_only=True):
    """A webhook on its way.

    Attributes:
        event_id: Of its event; the idempotency id.
        rule: Id of its rule.
        webhook: Where the rule sent to when the event came; where the rule still exists, its present one counts.
        body: What is sent.
        attempts: How often it was tried.
        due_us: When it is tried next, wall clock; when it was finished, once it is.
        done: Delivered or given up.
    """

    event_id: str
    rule: str
    webhook: Webhook
    body: bytes
    attempts: int = 0
    due_us: int = 0
    done: bool = False


class DeliveryRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One attempt, as the log keeps it.

    Attributes:
        event: Id of the event.
        rule: Id of the rule.
        outcome: `delivered`, `retry` or `failed`.
        reason: Short, fixed word; "" where it was delivered.
        detail: For people; never a URL.
        attempt: Counts from 1.
        at_us: Wall clock.
    """

    event: str
    rule: str
    outcome: str
    reason: str
    detail: str
    attempt: int
    at_us: int


def secret_name(rule_id: str) -> str:
    """Return the name under which a rule's webhook is sealed. No stream has such a name."""
    return f"alert-rule:{rule_id}"


class Outbox:
    """Takes webhooks and delivers them, at least once each. Several threads may use it."""

    def __init__(
        self,
        store: VersionedEntries,
        sealer: Sealer,
        sender: Sender,
        settings: AlertsSettings,
        metrics: Metrics,
        clock: Clock,
        *,
        chance: Callable[[], float] | None = None,
    ) -> None:
        """Prepare; `chance` returns 0 to 1, for pauses that are not all alike."""
        self._store = store
        self._sealer = sealer
        self._sender = sender
        self._settings = settings
        self._metrics = metrics
        self._clock = clock
        self._chance = chance or (lambda: secrets.randbelow(1_000_000) / 1_000_000)

    def add(self, event_id: str, webhook: Webhook, rule_id: str, body: bytes) -> None:
        """Take a webhook; once only for each event."""
        delivery = Delivery(event_id=event_id, rule=rule_id, webhook=webhook, body=body, due_us=self._now_us())
        try:
            self._store.put_entry(DELIVERIES, event_id, encode(delivery), None)
        except RevisionConflictError:
            log.debug("webhook.known", extra={"alert_event": event_id})

    def deliver_due(self, may_go_on: Callable[[], bool]) -> int:
        """Try what is due, and return how much that was. Blocks on the receivers; stops early once `may_go_on` says no."""
        due, now_us = [], self._now_us()
        for found in self._store.list_entries(DELIVERIES):
            delivery = decode(found.value, Delivery)
            if delivery.done and delivery.due_us + _REMEMBER_US <= now_us:
                self._forget(found)
            elif not delivery.done and delivery.due_us <= now_us:
                due.append((delivery, found.revision))
        if not due:
            return 0
        until_s = self._clock.monotonic_s() + _ROUND_S

        def deliver(row: Sequence[tuple[Delivery, int]]) -> int:
            tried = 0
            for number, each in enumerate(row):
                if not may_go_on() or (number and self._clock.monotonic_s() >= until_s):
                    break
                tried += self._deliver(*each)
            return tried

        with ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="webhook") as pool:
            return sum(pool.map(deliver, self._rows(due)))

    def _rows(self, due: list[tuple[Delivery, int]]) -> list[list[tuple[Delivery, int]]]:
        """Divide what is due into rows that are sent one after the other, so that nobody's slow receivers take all places.

        Those who made rules share the places; where it is not known who did, those at the same receiver are one.
        """
        owners = {found.key: decode(found.value, Rule).added_by for found in self._store.list_entries(RULES)}
        of_owner: dict[str, list[tuple[Delivery, int]]] = {}
        for each in sorted(due, key=lambda each: each[0].due_us):
            owner = owners.get(each[0].rule) or each[0].webhook.url
            of_owner.setdefault(owner, []).append(each)
        places = max(_LEAST_PLACES, _AT_ONCE // len(of_owner))
        rows = [owned[:_MOST_DUE][number::places] for number in range(places) for owned in of_owner.values()]
        return [row for row in rows if row]

    def _deliver(self, delivery: Delivery, revision: int) -> bool:
        failure: WebhookError | None = None
        try:
            url, secret, body = self._open(delivery)
            self._sender.send(url, secret, body, delivery.event_id, self._clock.now_s())
        except WebhookError as error:
            failure = error
        attempts = delivery.attempts + 1
        is_over = failure is None or failure.reason in _FINAL or attempts >= self._settings.webhook_attempts
        now_us = self._now_us()
        due_us = now_us if is_over else now_us + int(self._pause_s(attempts) * 1_000_000)
        changed = msgspec.structs.replace(delivery, attempts=attempts, due_us=due_us, done=is_over)
        try:
            self._store.put_entry(DELIVERIES, delivery.event_id, encode(changed), revision)
        except RevisionConflictError:
            # Another owner tried it at the same time: what it says counts.
            return False
        self._log(changed, failure)
        return True

    def _open(self, delivery: Delivery) -> tuple[str, str, bytes]:
        """Return where to send, the secret to sign with, and what to send in the form that is wanted by now."""
        found = self._store.get_entry(RULES, delivery.rule)
        rule = None if found is None else decode(found.value, Rule)
        webhook = delivery.webhook if rule is None else rule.webhook
        if webhook is None:
            raise WebhookError("removed", "the rule has no webhook any more")
        try:
            content = self._sealer.open(secret_name(delivery.rule), webhook.sealed)
        except SealError:
            raise WebhookError("seal", "the webhook's secret cannot be opened with this process's key") from None
        if content is None or content.target is None or content.password is None:
            raise WebhookError("removed", "the rule's webhook is incomplete; give it again")
        return content.target, content.password, rendered(delivery.body, Template(webhook.template), rule)

    def _pause_s(self, attempts: int) -> float:
        """Return how long to wait: twice as long each time, less up to a half of it by chance."""
        longest = min(self._settings.webhook_backoff_max_s, self._settings.webhook_backoff_min_s * 2.0 ** min(attempts - 1, 40))
        return longest * (1 - self._chance() / 2)

    def _log(self, delivery: Delivery, failure: WebhookError | None) -> None:
        outcome = "delivered" if failure is None else "failed" if delivery.done else "retry"
        self._metrics.webhooks.labels(outcome).inc()
        record = DeliveryRecord(
            event=delivery.event_id,
            rule=delivery.rule,
            outcome=outcome,
            reason=failure.reason if failure else "",
            detail=str(failure) if failure else "",
            attempt=delivery.attempts,
            at_us=self._now_us(),
        )
        self._store.append_record(DELIVERY_LOG, encode(record), KEEP)

    def _forget(self, found: VersionedEntry) -> None:
        try:
            self._store.remove_entry(DELIVERIES, found.key, found.revision)
        except RevisionConflictError:
            log.debug("webhook.known", extra={"alert_event": found.key})

    def _now_us(self) -> int:
        return int(self._clock.now_s() * 1_000_000)


_FINAL: Final = frozenset({"gone", "removed"})
