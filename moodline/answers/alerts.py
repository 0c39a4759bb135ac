"""Alerts: rules, what they said, and who was told."""

from datetime import datetime
from typing import Any

from moodline.answers.base import Answer


class Alert(Answer, frozen=True, kw_only=True):
    """Something that happened to an alert.

    Attributes:
        id: The same for the same event, however often it comes.
        rule: Id of the rule.
        stream: Id of the stream.
        kind: `firing` or `resolved`.
        reason: `condition`, `cleared`, `no_data` or `withdrawn`.
        at: Event time of the decision.
        since: When the condition began to hold.
        value: The measure: a share, or percentage points from the baseline; None where nothing is measured.
        baseline: Of `change` rules: the usual share.
        faces: Faces in the window of the measure.
        notify: Whether others are told.
        written: When it was logged.
    """

    id: str
    rule: str
    stream: str
    kind: str
    reason: str
    at: datetime
    since: datetime
    value: float | None = None
    baseline: float | None = None
    faces: int = 0
    notify: bool = True
    written: datetime | None = None


class AlertPage(Answer, frozen=True, kw_only=True):
    """Some of the log of alerts, newest first; `next_cursor` leads to older ones."""

    events: list[Alert]
    next_cursor: str | None = None


class Rule(Answer, frozen=True, kw_only=True):
    """An alert rule; its terms are explained at `RuleOptions`.

    Attributes:
        id: Its name.
        stream: Id of the stream that is watched, or None.
        label: Label whose streams are watched, or None.
        kind: `share`, `change`, `no_faces` or `offline`.
        webhook: Where alerts are sent; what may be secret of it is masked.
        webhook_template: Form of what is sent: `moodline`, `slack`, `teams` or `discord`; None without a webhook.
        webhook_secret: What webhooks are signed with; only in the answer to the request that made it. Not part of `repr`.
        created_at: When it was made.
        revision: Another one after every change.
    """

    id: str
    stream: str | None = None
    label: str | None = None
    kind: str
    emotion: str | None = None
    direction: str
    threshold: float
    clear_threshold: float
    for_s: int
    clear_for_s: int
    window_s: int
    min_faces: int
    baseline_s: int
    baseline_min: int
    no_data_s: int
    quiet_s: int
    enabled: bool
    note: str
    webhook: str | None = None
    webhook_template: str | None = None
    webhook_secret: str | None = None
    created_at: datetime
    revision: int

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        """Return all fields but the secret."""
        return [(name, getattr(self, name)) for name in self.__struct_fields__ if name != "webhook_secret"]

    def __repr__(self) -> str:
        return f"Rule({', '.join(f'{name}={value!r}' for name, value in self.__rich_repr__())})"


class RulePage(Answer, frozen=True, kw_only=True):
    """All alert rules, ordered by id."""

    rules: list[Rule]


class Firing(Answer, frozen=True, kw_only=True):
    """An alert that is on; fields as in `Alert`."""

    rule: str
    stream: str
    at: datetime
    since: datetime
    value: float | None = None
    baseline: float | None = None
    faces: int
    notify: bool


class FiringPage(Answer, frozen=True, kw_only=True):
    """The alerts that are on, the newest first."""

    firing: list[Firing]


class Delivery(Answer, frozen=True, kw_only=True):
    """One attempt to deliver a webhook.

    Attributes:
        event: Id of the alert.
        rule: Id of the rule.
        outcome: `delivered`, `retry` or `failed`.
        reason: A fixed word; empty where it was delivered.
        detail: For people.
        attempt: Counts from 1.
        at: When.
    """

    event: str
    rule: str
    outcome: str
    reason: str
    detail: str
    attempt: int
    at: datetime


class DeliveryPage(Answer, frozen=True, kw_only=True):
    """Some attempts to deliver, newest first; `next_cursor` leads to older ones."""

    deliveries: list[Delivery]
    next_cursor: str | None = None


class DryRun(Answer, frozen=True, kw_only=True):
    """The alerts that a rule would have raised.

    Attributes:
        streams: Ids of the streams that were evaluated.
        events: In order of time.
        fired: How many alerts began.
        told: Of these, how many others would have been told of.
    """

    streams: list[str]
    events: list[Alert]
    fired: int
    told: int
