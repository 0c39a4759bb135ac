"""Judging and delivering beside the API, in threads of their own, by one process of all that share a store."""

import logging
import threading
import uuid
from collections.abc import Callable
from types import TracebackType
from typing import Final, Self

from moodline.services.alerts.leader_lease import LeaderLease
from moodline.services.alerts.outbox import Outbox
from moodline.services.alerts.rule_evaluator import RuleEvaluator
from moodline.services.alerts.webhook import HttpSender, Sender, webhook_policy
from moodline.shared.clock import Clock
from moodline.shared.errors import MoodlineError, RevisionConflictError
from moodline.shared.metrics import Metrics
from moodline.shared.seal import open_sealer
from moodline.shared.settings import Settings
from moodline.shared.store import Store

log = logging.getLogger("moodline.alerts")

_JOIN_S: Final = 15.0


class AlertService:
    """A context manager: entering starts, leaving stops and hands the lease on. Does nothing where alerts are disabled."""

    def __init__(self, store: Store, settings: Settings, metrics: Metrics, clock: Clock, *, sender: Sender | None = None) -> None:
        """Prepare.

        Raises:
            SettingsError: the networks of webhooks are not written as such.
        """
        alerts = settings.alerts
        self._settings = alerts
        self._metrics = metrics
        self._lease = LeaderLease(store, clock, uuid.uuid4().hex)
        sender = sender or HttpSender(webhook_policy(alerts), alerts.webhook_timeout_s)
        self._outbox = Outbox(store, open_sealer(settings), sender, alerts, metrics, clock)
        self._evaluator = RuleEvaluator(store, self._outbox, metrics, clock, lambda: self._lease.is_held)
        self._stop = threading.Event()
        self._threads: list[threading.Thread] = []

    def step(self) -> bool:
        """Judge once if the lease is ours, and return whether it is. Blocks on the store.

        Raises:
            StoreError: the store fails; a later step makes up for it.
        """
        is_ours = self._lease.hold()
        self._metrics.alerts_evaluating.set(is_ours)
        if not is_ours:
            self._evaluator.forget()
            return False
        try:
            self._evaluator.step()
        except RevisionConflictError:
            # A rule was just changed, or another owner wrote: what is in memory cannot be trusted, the lease will tell.
            self._evaluator.forget()
        return True

    def deliver(self) -> int:
        """Try the webhooks that are due if the lease is ours, and return how many. Blocks on receivers."""
        return self._outbox.deliver_due(lambda: self._lease.is_held) if self._lease.is_held else 0

    def alive(self) -> dict[str, bool]:
        """Return, per thread, whether it runs."""
        return {thread.name: thread.is_alive() for thread in self._threads}

    def __enter__(self) -> Self:
        if self._settings.enabled:
            for name, work in (("alerts", self.step), ("webhooks", self.deliver)):
                thread = threading.Thread(target=self._repeat, args=(work,), name=name, daemon=True)
                self._threads.append(thread)
                thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(_JOIN_S)
        if self._threads and not any(self.alive().values()):
            self.close()

    def close(self) -> None:
        """Write what is in memory only, and hand the lease on."""
        try:
            if self._lease.is_held:
                self._evaluator.save()
            self._lease.release()
        except MoodlineError as error:
            # Nothing is lost: the next owner evaluates the last moments again, once the lease has run out.
            log.warning("alerts.not_handed_on", extra={"reason": str(error)})

    def _repeat(self, work: Callable[[], object]) -> None:
        while not self._stop.is_set():
            try:
                work()
            except MoodlineError as error:
                log.warning("alerts.interrupted", extra={"reason": str(error)})
                self._stop.wait(self._settings.interval_s)
            self._stop.wait(self._settings.interval_s)
