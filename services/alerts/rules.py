"""Alert rules and their limits."""

import re
from enum import StrEnum
from typing import Final

import msgspec

from moodline.shared.emotions import EMOTIONS
from moodline.shared.errors import InvalidRuleError
from moodline.shared.printable import NAME_RULE, is_fit
from moodline.shared.streams import STREAM_ID_PATTERN, StreamSpec

RULE_ID_PATTERN: Final = STREAM_ID_PATTERN
LONGEST_S: Final = 86_400
LONGEST_WINDOW_S: Final = 3600
_LABEL: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]{0,62}(=[^\x00-\x1f\x7f]{0,255})?", re.ASCII)


class RuleKind(StrEnum):
    """The conditions that a rule can watch."""

    SHARE = "share"
    """The share of faces that an emotion leads."""
    CHANGE = "change"
    """The same share against the stream's own baseline."""
    NO_FACES = "no_faces"
    """Frames are looked at, and show nobody."""
    OFFLINE = "offline"
    """Nothing comes from a camera."""


class Direction(StrEnum):
    """On which side of its threshold a measure is too far."""

    OVER = "over"
    UNDER = "under"
    EITHER = "either"


class Webhook(msgspec.Struct, frozen=True):
    """The receiver of a rule's alerts.

    Attributes:
        url: For people: scheme, host and port, the rest masked, because it may be a secret.
        sealed: The whole URL and the signing secret, sealed for this rule.
        template: Form of what is sent, a word of `moodline.services.alerts.chat.Template`.
    """

    url: str
    sealed: str
    template: str = "moodline"


class Rule(msgspec.Struct, frozen=True, kw_only=True):
    """An alert rule. Every stream that it names is evaluated on its own.

    Attributes:
        rule_id: Like a stream's id.
        stream: Id of the one stream that is watched; None where `label` says which.
        label: `key=value`, or `key` for any value: all streams with this label, also later ones.
        kind: What is watched.
        emotion: Of `share` and `change`; else None.
        direction: Of `share` (`over`, `under`) and `change` (also `either`).
        threshold: `share`: 0 to 1. `change`: percentage points, 0 to 100. Not used otherwise.
        clear_threshold: A firing alert is over once the measure is back behind this one, which is not beyond `threshold`.
        for_s: How long the condition must hold, in s of event time.
        clear_for_s: How long it must be cleared.
        window_s: The measure is taken over so many seconds, the present one being the last.
        min_faces: Faces (counted in every frame) that a window needs; with fewer, nothing is known.
        baseline_s: `change`: length of the stretch that the baseline is taken from.
        baseline_min: `change`: minutes with enough faces that a baseline needs.
        no_data_s: After so long without knowledge, a pending alert is forgotten and a firing one is over.
        quiet_s: After a notification, another firing within this time is logged but not sent.
        enabled: Evaluated at all.
        note: For people.
        webhook: Where alerts are sent; None: nowhere.
        created_at_us: When the rule was made, microseconds since the Unix epoch.
        added_by: Name of the key that made it; "" where that is not known.
    """

    rule_id: str
    stream: str | None = None
    label: str | None = None
    kind: RuleKind
    emotion: str | None = None
    direction: Direction = Direction.OVER
    threshold: float = 0.0
    clear_threshold: float = 0.0
    for_s: int = 30
    clear_for_s: int = 30
    window_s: int = 10
    min_faces: int = 10
    baseline_s: int = 3600
    baseline_min: int = 10
    no_data_s: int = 120
    quiet_s: int = 300
    enabled: bool = True
    note: str = ""
    webhook: Webhook | None = None
    created_at_us: int = 0
    added_by: str = ""

    def watches(self, spec: StreamSpec) -> bool:
        """Say whether the rule is about a stream."""
        if self.label is None:
            return spec.stream_id == self.stream
        key, has_value, value = self.label.partition("=")
        return key in spec.labels and (not has_value or spec.labels[key] == value)

    @property
    def measures(self) -> bool:
        """Return whether the rule compares a measured share with a threshold, and not only presence."""
        return self.kind in (RuleKind.SHARE, RuleKind.CHANGE)

    @property
    def history_s(self) -> int:
        """Seconds before the first evaluated one that its judgement rests on."""
        if not self.measures:
            return 0
        return self.window_s + (self.baseline_s + self.for_s + 60 if self.kind is RuleKind.CHANGE else 0)

    def condition(self) -> tuple[object, ...]:
        """Return everything that decides what is evaluated; a rule with another condition begins again."""
        measured = (self.emotion, self.direction, self.threshold, self.clear_threshold, self.window_s, self.min_faces)
        return self.kind, *measured, self.for_s, self.clear_for_s, self.baseline_s, self.baseline_min, self.no_data_s


_RANGES: Final = (
    ("for_s", 1, LONGEST_S),
    ("clear_for_s", 1, LONGEST_S),
    ("window_s", 1, LONGEST_WINDOW_S),
    ("min_faces", 1, 1_000_000),
    ("baseline_s", 300, LONGEST_S),
    ("baseline_min", 2, 1440),
    ("no_data_s", 1, LONGEST_S),
    ("quiet_s", 0, 7 * LONGEST_S),
)


def checked_rule(rule: Rule) -> Rule:
    """Return the rule, or raise `InvalidRuleError` that names the field that cannot be used."""
    if not re.fullmatch(RULE_ID_PATTERN, rule.rule_id):
        raise InvalidRuleError("id", "a rule's id looks like a stream's: letters, digits, '.', '_' or '-'")
    if (rule.stream is None) == (rule.label is None):
        raise InvalidRuleError("stream", "a rule names either a stream or a label")
    if rule.stream is not None and not re.fullmatch(STREAM_ID_PATTERN, rule.stream):
        raise InvalidRuleError("stream", "this is no stream's id")
    if rule.label is not None and not _LABEL.fullmatch(rule.label):
        raise InvalidRuleError("label", "a label is written as key=value, or as key for any value")
    if not is_fit(rule.label or ""):
        raise InvalidRuleError("label", f"a label has {NAME_RULE}")
    if not is_fit(rule.note.replace("\n", "")):
        raise InvalidRuleError("note", f"a note has {NAME_RULE}; lines may end")
    for name, least, most in _RANGES:
        if not least <= getattr(rule, name) <= most:
            raise InvalidRuleError(name, f"{name} must be {least} to {most}")
    if rule.measures:
        _check_measure(rule)
    elif rule.emotion is not None:
        raise InvalidRuleError("emotion", f"a rule of kind {rule.kind} has no emotion")
    if rule.baseline_min * 60 > rule.baseline_s:
        raise InvalidRuleError("baseline_min", "baseline_min is more minutes than baseline_s holds")
    return rule


def _check_measure(rule: Rule) -> None:
    if rule.emotion not in EMOTIONS:
        raise InvalidRuleError("emotion", f"emotion is one of {', '.join(EMOTIONS)}")
    is_share = rule.kind is RuleKind.SHARE
    most, unit = (1.0, "a share") if is_share else (100.0, "percentage points")
    for name in ("threshold", "clear_threshold"):
        if not 0.0 <= getattr(rule, name) <= most:
            raise InvalidRuleError(name, f"{name} of a {rule.kind} rule is {unit}, 0 to {most:g}")
    if is_share and rule.direction is Direction.EITHER:
        raise InvalidRuleError("direction", "a share is over or under its threshold")
    is_crossed = rule.clear_threshold < rule.threshold if is_share and rule.direction is Direction.UNDER else False
    is_crossed = is_crossed or (rule.clear_threshold > rule.threshold and not (is_share and rule.direction is Direction.UNDER))
    if is_crossed:
        raise InvalidRuleError("clear_threshold", "clear_threshold lies beyond threshold: the alert would never be over")
