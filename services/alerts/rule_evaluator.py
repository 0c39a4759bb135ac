"""Judges all rules on all streams that they watch, and keeps where each stands in the store.

A step's events are written together with the state that they lead to, in one compare-and-set, before anybody is told of them;
then they go to the log and the outbox, and then they are struck off. A process that ends anywhere in between leaves nothing
out: the next one finds them with the state. One that was frozen and goes on fails at its next compare-and-set. A state without
events is written now and then: what is evaluated again from an older one comes out the same.
"""

import json
import logging
from collections import defaultdict
from collections.abc import Callable
from hashlib import sha256
from typing import Final, NamedTuple

import msgspec

from moodline.services.alerts.evaluator import AlertEvent, AlertState, Reason, evaluate, first_state, withdraw
from moodline.services.alerts.feed import closed_to_s, seconds
from moodline.services.alerts.outbox import Outbox
from moodline.services.alerts.purge import purge_stream
from moodline.services.alerts.records import ALERTS_LOG, KEEP, STATES, RuleBook, Saved, decode, encode, event_json, state_key
from moodline.services.alerts.rules import Rule
from moodline.shared.clock import Clock
from moodline.shared.errors import RevisionConflictError, StoreError, StoreUnavailableError
from moodline.shared.messages import StreamClass
from moodline.shared.metrics import Metrics
from moodline.shared.store import Standing, Store
from moodline.shared.store.registry_view import RegistryView
from moodline.shared.streams import StreamSpec, StreamStatus
from moodline.shared.timeline.bucket import SECOND_US

log = logging.getLogger("moodline.alerts")

STEP_S: Final = 3600
"""Most seconds of a stream that one step evaluates."""

_SAVE_S: Final = 30.0
_LOOKBACK: Final = 500


class _Kept(NamedTuple):
    """State of one rule on one stream: as stored, as of now, and the time of the last write."""

    revision: int | None
    stored: Saved
    state: AlertState
    saved_s: float


class _Watched(NamedTuple):
    spec: StreamSpec
    status: StreamStatus
    progress: Standing


class RuleEvaluator:
    """One per process; only the holder of the lease steps. Used by one thread."""

    def __init__(self, store: Store, outbox: Outbox, metrics: Metrics, clock: Clock, is_owner: Callable[[], bool]) -> None:
        self._store = store
        self._rules = RuleBook(store)
        self._registry = RegistryView(store)
        self._outbox = outbox
        self._metrics = metrics
        self._clock = clock
        self._is_owner = is_owner
        self._kept: dict[str, _Kept] | None = None

    def forget(self) -> None:
        """Forget what is in memory; the next step reads it again."""
        self._kept = None

    def step(self) -> None:
        """Judge what has come in. Blocks on the store.

        Raises:
            RevisionConflictError: somebody else evaluates too; nothing was written. Forget, and do not go on without the lease.
            StoreError: the store fails; what was not written is evaluated again.
        """
        if self._kept is None:
            self._kept = self._load()
        rules = [stored.rule for stored in self._rules.rules() if stored.rule.enabled]
        streams = self._streams() if rules else []
        watching = {spec.stream_id: found for spec in streams if (found := [rule for rule in rules if rule.watches(spec)])}
        for watched in self._watched([spec for spec in streams if spec.stream_id in watching]):
            try:
                self._evaluate_rules(watched, watching[watched.spec.stream_id])
            except (RevisionConflictError, StoreUnavailableError):
                raise
            except StoreError as error:
                # A damaged value of one stream must not silence the others.
                log.warning("alerts.stream_left_out", extra={"stream_id": watched.spec.stream_id, "reason": str(error)})
        wanted = {state_key(rule.rule_id, stream) for stream, found in watching.items() for rule in found}
        for key in self._kept.keys() - wanted:
            self._withdraw(key)

    def save(self) -> None:
        """Write every state that is not in the store yet, so that the next owner need not evaluate twice. Raises as `step`."""
        for key, kept in (self._kept or {}).items():
            if kept.state != kept.stored.state:
                self._put(key, kept, kept.state, ())

    def _load(self) -> dict[str, _Kept]:
        kept, now_s = {}, self._clock.monotonic_s()
        for found in self._store.list_entries(STATES):
            saved = decode(found.value, Saved)
            kept[found.key] = _Kept(found.revision, saved, saved.state, now_s)
        return kept

    def _streams(self) -> list[StreamSpec]:
        self._registry.refresh(self._clock.monotonic_s())
        return list(self._registry.specs.values())

    def _watched(self, specs: list[StreamSpec]) -> list[_Watched]:
        ids = [spec.stream_id for spec in specs]
        found = zip(specs, self._store.statuses(ids), self._store.standings(ids), strict=True)
        return [_Watched(spec, status, progress) for spec, status, progress in found if progress is not None]

    def _evaluate_rules(self, watched: _Watched, rules: list[Rule]) -> None:
        spec = watched.spec
        until_s = closed_to_s(spec, watched.status, watched.progress, self._clock.now_s())
        by_start: dict[int, list[Rule]] = defaultdict(list)
        for rule in rules:
            state = self._standing(rule, watched, until_s).state
            by_start[state.at_s].append(rule)
        for start_s, group in by_start.items():
            # History before the first evaluated second comes in the same step, however long it is.
            least_s = max(self._known(rule, spec).state.judged_from_s for rule in group)
            stop_s = min(until_s, max(least_s, start_s + STEP_S))
            if start_s >= stop_s:
                continue
            points = list(seconds(self._store, spec, start_s, stop_s))
            for rule in group:
                key = state_key(rule.rule_id, spec.stream_id)
                kept = self._known(rule, spec)
                state, events = evaluate(rule, points, kept.state)
                if watched.progress.final and state.at_s >= until_s:
                    # Nothing will come any more that could clear it.
                    events += withdraw(rule.rule_id, state, Reason.NO_DATA)
                    state = msgspec.structs.replace(state, firing=None)
                self._keep(key, kept, state, events, rule)

    def _known(self, rule: Rule, spec: StreamSpec) -> _Kept:
        assert self._kept is not None
        return self._kept[state_key(rule.rule_id, spec.stream_id)]

    def _standing(self, rule: Rule, watched: _Watched, until_s: int) -> _Kept:
        """Return where a rule stands on a stream; again for a new rule, another condition or another stream of this name."""
        assert self._kept is not None
        spec, condition = watched.spec, _fingerprint(rule)
        key = state_key(rule.rule_id, spec.stream_id)
        known = self._kept.get(key)
        if known is not None and known.stored.pending:
            known = self._publish(key, known, rule)
        same_stream = known is not None and known.state.born_us == spec.created_at_us
        if known is not None and same_stream and known.stored.condition == condition:
            return known
        # What was before a camera was registered is no absence.
        from_s = max(until_s, spec.created_at_us // SECOND_US) if spec.lane is StreamClass.LIVE else until_s
        if spec.lane is StreamClass.FILE and watched.progress.last_event_time_us is None:
            from_s = spec.recorded_at_us // SECOND_US
        if known is not None and same_stream:
            from_s = known.state.at_s
        fresh = first_state(rule, spec.stream_id, from_s, spec.created_at_us)
        if known is not None:
            fresh = msgspec.structs.replace(fresh, notified_s=known.state.notified_s if same_stream else None)
            events = withdraw(rule.rule_id, known.state)
            return self._put(key, known, fresh, tuple(events), rule, condition)
        nothing = Saved(rule.rule_id, condition, fresh)
        return self._put(key, _Kept(None, nothing, fresh, 0.0), fresh, ())

    def _keep(self, key: str, kept: _Kept, state: AlertState, events: list[AlertEvent], rule: Rule) -> None:
        assert self._kept is not None
        if events or self._clock.monotonic_s() - kept.saved_s >= _SAVE_S:
            self._put(key, kept, state, tuple(events), rule)
        else:
            self._kept[key] = kept._replace(state=state)

    def _put(
        self,
        key: str,
        kept: _Kept,
        state: AlertState,
        events: tuple[AlertEvent, ...],
        rule: Rule | None = None,
        condition: str | None = None,
    ) -> _Kept:
        """Write a state with what it says, then tell of it."""
        assert self._kept is not None
        saved = Saved(kept.stored.rule, kept.stored.condition if condition is None else condition, state, events)
        revision = self._store.put_entry(STATES, key, encode(saved), kept.revision)
        changed = self._kept[key] = _Kept(revision, saved, state, self._clock.monotonic_s())
        for event in events:
            self._metrics.alerts.labels(event.kind.value, event.reason.value).inc()
        return self._publish(key, changed, rule) if events else changed

    def _publish(self, key: str, kept: _Kept, rule: Rule | None) -> _Kept:
        """Put the events of a written state into log and outbox, unless they are there, and strike them off."""
        known = self._logged_ids()
        for event in kept.stored.pending:
            if not self._is_owner():
                raise RevisionConflictError("another process judges alerts by now")
            body = event_json(event, int(self._clock.now_s() * 1_000_000))
            if event.notify and rule is not None and rule.webhook is not None:
                self._outbox.add(event.event_id, rule.webhook, rule.rule_id, body)
            if event.event_id not in known:
                self._store.append_record(ALERTS_LOG, body, KEEP)
                log.info("alert", extra={"rule": event.rule, "stream_id": event.stream, "kind": event.kind.value})
        assert self._kept is not None
        saved = msgspec.structs.replace(kept.stored, pending=())
        revision = self._store.put_entry(STATES, key, encode(saved), kept.revision)
        changed = self._kept[key] = _Kept(revision, saved, kept.state, self._clock.monotonic_s())
        return changed

    def _logged_ids(self) -> set[str]:
        newest = self._store.records(ALERTS_LOG, limit=_LOOKBACK, newest_first=True)
        return {json.loads(value)["id"] for _, value in newest}

    def _withdraw(self, key: str) -> None:
        assert self._kept is not None
        kept = self._kept[key]
        if kept.state.stream not in self._registry.specs and self._is_gone(kept.state.stream):
            # Deleted with everything that is kept of it: nothing is told of it any more.
            purge_stream(self._store, kept.state.stream)
            del self._kept[key]
            return
        rule = self._rule(kept.stored.rule)
        if kept.stored.pending:
            kept = self._publish(key, kept, rule)
        events = withdraw(kept.stored.rule, kept.state)
        if events:
            kept = self._put(key, kept, msgspec.structs.replace(kept.state, firing=None), tuple(events), rule)
        self._store.remove_entry(STATES, key, kept.revision)
        del self._kept[key]

    def _is_gone(self, stream_id: str) -> bool:
        return self._store.get_many([stream_id])[0] is None

    def _rule(self, rule_id: str) -> Rule | None:
        return next((stored.rule for stored in self._rules.rules() if stored.rule.rule_id == rule_id), None)


def _fingerprint(rule: Rule) -> str:
    """Return a short word for what a rule evaluates; a rule made again under an old id is another one."""
    return sha256(msgspec.msgpack.encode((rule.created_at_us, rule.condition()))).hexdigest()[:16]
