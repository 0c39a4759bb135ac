"""Judges a rule, second by second of event time. Pure: no clock, no store; the same seconds always give the same events.

However the seconds are split into calls, and wherever a state is saved and loaded between them, the events are the same.

A second answers a rule with a value, or with nothing: nobody was there, nobody looked, too few faces. Nothing is neither yes
nor no; only after `no_data_s` of it is a pending alert forgotten and a firing one over (reason `no_data`). An alert fires when
the value has been beyond the threshold for `for_s`, and is over when it has been behind the clear threshold for `clear_for_s`;
what lies between the two changes nothing about a firing alert and ends a pending one.

The baseline of a `change` rule is the trimmed mean (a fifth cut off at each end) of the shares of whole minutes with enough
faces, over `baseline_s` that end before the time in which the change itself must show (`window_s` and `for_s`). While an alert
fires its baseline stands still, for at most `baseline_s`; then the new level is the usual one.
"""

from collections import deque
from collections.abc import Iterable
from enum import StrEnum
from hashlib import sha256
from typing import Final, NamedTuple

import msgspec

from moodline.services.alerts.rules import Direction, Rule, RuleKind
from moodline.shared.emotions import EMOTIONS
from moodline.shared.timeline.bucket import NO_SEVEN, Seven

MINUTE_S: Final = 60
_TRIM: Final = 5


class Second(NamedTuple):
    """The content of one second of event time.

    Attributes:
        second: Seconds since the Unix epoch.
        sampled: Frames sampled.
        classified: Of these, frames that were looked at.
        faces: Faces over all frames.
        leading: Faces by their leading emotion.
        observed: False where nothing should have come, such as in a pause.
        unreadable: Faces over all frames from which no expression can be read; none of them is in `faces`.
    """

    second: int
    sampled: int = 0
    classified: int = 0
    faces: int = 0
    leading: Seven = NO_SEVEN
    observed: bool = True
    unreadable: int = 0


class Count(NamedTuple):
    """Faces, and how many of them the rule's emotion leads, in a second or minute that is `at` in its own unit."""

    at: int
    faces: int
    hits: int


class Firing(msgspec.Struct, frozen=True, array_like=True):
    """An alert that is on.

    Attributes:
        since_s: First second in which the condition held.
        at_s: Second in which it had held long enough.
        value, baseline, faces: As in `AlertEvent`.
        notified: Others were told.
    """

    since_s: int
    at_s: int
    value: float | None
    baseline: float | None
    faces: int
    notified: bool


class AlertState(msgspec.Struct, frozen=True, array_like=True):
    """The state of one rule on one stream. It is small, and all that is needed to go on.

    Attributes:
        stream: The stream's id.
        at_s: The next second to be evaluated.
        judged_from_s: Seconds before this one only build up window and baseline.
        born_us: When the stream was registered: another one of the same name has other events.
        window: Seconds with faces within the window.
        minutes: Minutes with faces that a baseline may rest on.
        pending_since_s: The condition holds since; None where it does not.
        clear_since_s: A firing alert is cleared since.
        known_s: Last second that gave a value.
        firing: The alert that is on.
        notified_s: When others were last told of a firing.
    """

    stream: str
    at_s: int
    judged_from_s: int
    born_us: int = 0
    window: tuple[Count, ...] = ()
    minutes: tuple[Count, ...] = ()
    pending_since_s: int | None = None
    clear_since_s: int | None = None
    known_s: int | None = None
    firing: Firing | None = None
    notified_s: int | None = None


class EventKind(StrEnum):
    """The kinds of events of an alert."""

    FIRING = "firing"
    RESOLVED = "resolved"


class Reason(StrEnum):
    """The reasons for which an alert begins or ends."""

    CONDITION = "condition"
    """The condition held long enough."""
    CLEARED = "cleared"
    """The condition was cleared long enough."""
    NO_DATA = "no_data"
    """Nothing was known for too long."""
    WITHDRAWN = "withdrawn"
    """The rule was changed, disabled or removed, or does not watch the stream any more."""


class AlertEvent(msgspec.Struct, frozen=True, kw_only=True):
    """An alert began or ended.

    Attributes:
        event_id: The same for the same event, however often it is computed; for idempotency.
        rule: The rule's id.
        stream: The stream's id.
        kind: Began or ended.
        reason: Why.
        at_s: Event time of the decision: end of the second that decided, seconds since the Unix epoch.
        since_s: When the condition began to hold.
        value: The measure: a share, or percentage points from the baseline; None where nothing is measured.
        baseline: Of `change`: the usual share.
        faces: Faces in the window of the measure.
        notify: Others are to be told.
    """

    event_id: str
    rule: str
    stream: str
    kind: EventKind
    reason: Reason
    at_s: int
    since_s: int
    value: float | None = None
    baseline: float | None = None
    faces: int = 0
    notify: bool = True


def first_state(rule: Rule, stream: str, from_s: int, born_us: int = 0) -> AlertState:
    """Return the state of a rule that evaluates from a second on; it first wants the history before that."""
    return AlertState(stream, from_s - rule.history_s, from_s, born_us)


def evaluate(rule: Rule, points: Iterable[Second], state: AlertState) -> tuple[AlertState, list[AlertEvent]]:
    """Judge the seconds that come next.

    Args:
        rule: The rule; with another condition than before, begin with a `first_state`.
        points: In order of time. Seconds that the state has passed already are left out; missing ones count as empty.
        state: As returned before, or `first_state`.

    Returns:
        The state after the last second, and what happened, in order.
    """
    run = _Run(rule, state)
    for point in points:
        while run.at_s < point.second:
            run.take(Second(run.at_s))
        if point.second == run.at_s:
            run.take(point)
    return run.state(), run.events


def withdraw(rule_id: str, state: AlertState, reason: Reason = Reason.WITHDRAWN) -> list[AlertEvent]:
    """Return the end of a firing alert that will not be evaluated any more; nothing where none fires."""
    return [_resolved(rule_id, state, state.firing, state.at_s, reason)] if state.firing else []


class _Run:
    """The state while seconds are taken."""

    def __init__(self, rule: Rule, state: AlertState) -> None:
        self.at_s = state.at_s
        self.events: list[AlertEvent] = []
        self._rule = rule
        self._state = state
        self._emotion = EMOTIONS.index(rule.emotion) if rule.emotion else 0
        self._window = deque(state.window)
        self._faces = sum(count.faces for count in state.window)
        self._hits = sum(count.hits for count in state.window)
        self._minutes = deque(state.minutes)
        self._known_baseline: tuple[int, float | None] | None = None
        self._pending_since_s, self._clear_since_s = state.pending_since_s, state.clear_since_s
        self._known_s, self._firing, self._notified_s = state.known_s, state.firing, state.notified_s

    def state(self) -> AlertState:
        return AlertState(
            self._state.stream,
            self.at_s,
            self._state.judged_from_s,
            self._state.born_us,
            tuple(self._window),
            tuple(self._minutes),
            self._pending_since_s,
            self._clear_since_s,
            self._known_s,
            self._firing,
            self._notified_s,
        )

    def take(self, point: Second) -> None:
        now_s = point.second
        if self._rule.measures:
            self._count(point)
        if now_s >= self._state.judged_from_s:
            baseline = self._baseline(now_s)
            value = self._value(point, baseline)
            if value is None:
                self._know_nothing(now_s)
            elif self._firing is None:
                self._watch(now_s, value, baseline)
            else:
                self._wait_for_the_end(now_s, value)
        self.at_s = now_s + 1

    def _count(self, point: Second) -> None:
        oldest_s = point.second - self._rule.window_s
        while self._window and self._window[0].at <= oldest_s:
            gone = self._window.popleft()
            self._faces -= gone.faces
            self._hits -= gone.hits
        if not point.faces:
            return
        hits = point.leading[self._emotion]
        self._window.append(Count(point.second, point.faces, hits))
        self._faces += point.faces
        self._hits += hits
        if self._rule.kind is RuleKind.CHANGE:
            minute = point.second // MINUTE_S
            faces = point.faces
            if self._minutes and self._minutes[-1].at == minute:
                last = self._minutes.pop()
                faces, hits = faces + last.faces, hits + last.hits
            self._minutes.append(Count(minute, faces, hits))

    def _value(self, point: Second, baseline: float | None) -> float | None:
        """Return the measure; of kinds that measure nothing, 1 where the condition holds, else 0; None where unknown."""
        if not point.observed:
            return None
        if self._rule.kind is RuleKind.OFFLINE:
            return 0.0 if point.sampled else 1.0
        if self._rule.kind is RuleKind.NO_FACES:
            return None if not point.classified else 0.0 if point.faces or point.unreadable else 1.0
        if self._faces < self._rule.min_faces:
            return None
        share = self._hits / self._faces
        if self._rule.kind is RuleKind.SHARE:
            return share
        return None if baseline is None else 100 * (share - baseline)

    def _baseline(self, now_s: int) -> float | None:
        rule = self._rule
        if rule.kind is not RuleKind.CHANGE:
            return None
        if self._firing is not None and now_s - self._firing.at_s < rule.baseline_s:
            return self._firing.baseline
        end = (now_s - rule.window_s - rule.for_s) // MINUTE_S
        start = end - rule.baseline_s // MINUTE_S
        while self._minutes and self._minutes[0].at < start:
            self._minutes.popleft()
        if self._known_baseline is None or self._known_baseline[0] != end:
            usable = [each for each in self._minutes if start <= each.at < end and each.faces >= rule.min_faces]
            enough = len(usable) >= rule.baseline_min
            self._known_baseline = end, trimmed_mean([each.hits / each.faces for each in usable]) if enough else None
        return self._known_baseline[1]

    def _know_nothing(self, now_s: int) -> None:
        if self._known_s is not None and now_s - self._known_s < self._rule.no_data_s:
            return
        self._pending_since_s = self._clear_since_s = None
        if self._firing is not None:
            self._end(now_s, Reason.NO_DATA)

    def _watch(self, now_s: int, value: float, baseline: float | None) -> None:
        self._known_s = now_s
        if not is_beyond(self._rule, value):
            self._pending_since_s = None
            return
        since_s = self._pending_since_s = now_s if self._pending_since_s is None else self._pending_since_s
        if now_s + 1 - since_s >= self._rule.for_s:
            self._begin(now_s, since_s, value, baseline)

    def _wait_for_the_end(self, now_s: int, value: float) -> None:
        self._known_s = now_s
        if not is_clear(self._rule, value):
            self._clear_since_s = None
            return
        self._clear_since_s = now_s if self._clear_since_s is None else self._clear_since_s
        if now_s + 1 - self._clear_since_s >= self._rule.clear_for_s:
            self._end(now_s, Reason.CLEARED, value)

    def _begin(self, now_s: int, since_s: int, value: float, baseline: float | None) -> None:
        is_quiet = self._notified_s is not None and now_s - self._notified_s < self._rule.quiet_s
        shown = value if self._rule.measures else None
        self._firing = Firing(since_s, now_s, shown, baseline, self._faces, not is_quiet)
        self._notified_s = self._notified_s if is_quiet else now_s
        self._pending_since_s = self._clear_since_s = None
        self.events.append(
            AlertEvent(
                event_id=_event_id(self._rule.rule_id, self._state, EventKind.FIRING, now_s),
                rule=self._rule.rule_id,
                stream=self._state.stream,
                kind=EventKind.FIRING,
                reason=Reason.CONDITION,
                at_s=now_s + 1,
                since_s=since_s,
                value=shown,
                baseline=baseline,
                faces=self._faces,
                notify=not is_quiet,
            )
        )

    def _end(self, now_s: int, reason: Reason, value: float | None = None) -> None:
        assert self._firing is not None
        event = _resolved(self._rule.rule_id, self._state, self._firing, now_s + 1, reason)
        if self._rule.measures:
            event = msgspec.structs.replace(event, value=value, faces=self._faces)
        self.events.append(event)
        self._firing = self._pending_since_s = self._clear_since_s = None


def is_beyond(rule: Rule, value: float) -> bool:
    """Say whether a value is on the bad side of the threshold."""
    if not rule.measures:
        return value > 0
    return _excess(rule, value, rule.threshold) > 0


def is_clear(rule: Rule, value: float) -> bool:
    """Say whether a value is back behind the clear threshold."""
    if not rule.measures:
        return value <= 0
    return _excess(rule, value, rule.clear_threshold) <= 0


def _excess(rule: Rule, value: float, threshold: float) -> float:
    if rule.direction is Direction.EITHER:
        return abs(value) - threshold
    if rule.direction is Direction.OVER:
        return value - threshold
    # A change under its threshold is a fall by more than that.
    return -value - threshold if rule.kind is RuleKind.CHANGE else threshold - value


def trimmed_mean(values: list[float]) -> float:
    """Return the mean without the smallest and the largest fifth; of at least one value."""
    cut = len(values) // _TRIM
    kept = sorted(values)[cut : len(values) - cut]
    return sum(kept) / len(kept)


def _resolved(rule_id: str, state: AlertState, firing: Firing, at_s: int, reason: Reason) -> AlertEvent:
    return AlertEvent(
        event_id=_event_id(rule_id, state, EventKind.RESOLVED, firing.at_s),
        rule=rule_id,
        stream=state.stream,
        kind=EventKind.RESOLVED,
        reason=reason,
        at_s=at_s,
        since_s=firing.since_s,
        baseline=firing.baseline,
        notify=firing.notified,
    )


def _event_id(rule_id: str, state: AlertState, kind: EventKind, second: int) -> str:
    return sha256(f"{rule_id}\n{state.stream}\n{state.born_us}\n{kind}\n{second}".encode()).hexdigest()[:32]
