"""Request and answer bodies about alerts."""

from typing import Annotated, Any, Final

from pydantic import BaseModel, ConfigDict, Field, SecretStr

from moodline.services.alerts.chat import Template
from moodline.services.alerts.evaluator import EventKind, Reason
from moodline.services.alerts.rules import RULE_ID_PATTERN, Direction, RuleKind
from moodline.services.alerts.webhook import URL_LIMIT
from moodline.services.report.moments import Time

_RULE: Final[dict[str, Any]] = {
    "id": "angry-hall",
    "stream": None,
    "label": "site=berlin",
    "kind": "share",
    "emotion": "angry",
    "direction": "over",
    "threshold": 0.4,
    "clear_threshold": 0.3,
    "for_s": 30,
    "clear_for_s": 30,
    "window_s": 10,
    "min_faces": 10,
    "baseline_s": 3600,
    "baseline_min": 10,
    "no_data_s": 120,
    "quiet_s": 300,
    "enabled": True,
    "note": "Call the desk.",
}
_NEW: Final[dict[str, Any]] = {"id": "angry-hall", "label": "site=berlin", "kind": "share", "emotion": "angry", "threshold": 0.4}
_STORED: Final[dict[str, Any]] = {
    **_RULE,
    "webhook": "https://example.org/***",
    "webhook_template": "moodline",
    "webhook_secret": None,
    "created_at": "2026-05-01T12:00:00Z",
    "revision": 3,
}
_EVENT: Final[dict[str, Any]] = {
    "id": "0f3c0a9be61f4f0c8a7d0a51b2e0c6d1",
    "rule": "angry-hall",
    "stream": "hall",
    "kind": "firing",
    "reason": "condition",
    "at": "2026-05-01T12:00:30Z",
    "since": "2026-05-01T12:00:00Z",
    "value": 0.52,
    "baseline": None,
    "faces": 48,
    "notify": True,
    "written": "2026-05-01T12:00:31.250000Z",
}
_FIRING: Final[dict[str, Any]] = {
    name: _EVENT[name] for name in ("rule", "stream", "at", "since", "value", "baseline", "faces", "notify")
}
_DELIVERY: Final[dict[str, Any]] = {
    "event": _EVENT["id"],
    "rule": "angry-hall",
    "outcome": "retry",
    "reason": "status",
    "detail": "the receiver answered with status 503; redirects are not followed",
    "attempt": 1,
    "at": "2026-05-01T12:00:32Z",
}

_Url = Annotated[SecretStr, Field(max_length=URL_LIMIT)]
_CURSOR: Final = "Give it as `cursor` to get older ones; null on the last page."


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid")


class _Terms(_Body):
    """Options of a rule, for a new one and for a change; null takes the default, or leaves the option as it is."""

    emotion: str | None = Field(None, max_length=16, description="Of `share` and `change`.")
    direction: Direction | None = Field(None, description="`over` or `under` the threshold; of `change` also `either`.")
    threshold: float | None = Field(
        None, description="Of `share`: a share of the faces, 0 to 1. Of `change`: percentage points from the baseline, 0 to 100."
    )
    clear_threshold: float | None = Field(
        None,
        description="The alert is over once the measure is back behind this one. Default: the threshold; of `change` half of it.",
    )
    for_s: int | None = Field(None, description="How long the condition must hold, in s. Default 30.")
    clear_for_s: int | None = Field(None, description="How long it must be cleared, in s. Default: as `for_s`.")
    window_s: int | None = Field(None, description="The share is taken over so many seconds. Default 10.")
    min_faces: int | None = Field(None, description="Faces, counted in every frame, that a window needs. Default 10.")
    baseline_s: int | None = Field(None, description="Of `change`: length of the time that is usual, in s. Default 3600.")
    baseline_min: int | None = Field(None, description="Of `change`: minutes with enough faces that it needs. Default 10.")
    no_data_s: int | None = Field(None, description="After so long without an answer a firing alert is over, in s. Default 120.")
    quiet_s: int | None = Field(None, description="Nobody is told again of the same within this time, in s. Default 300.")
    enabled: bool | None = Field(None, description="Whether it is judged. Default true.")
    note: str | None = Field(None, max_length=500, description="For people.")
    webhook_url: _Url | None = Field(
        None, description="Where alerts are sent; a change to an empty text removes it. Never shown."
    )
    webhook_template: Template | None = Field(
        None,
        description="Form of what is sent: `moodline` (the event with a sentence, `text`), `slack`, `teams` or `discord`. "
        "Default: by the host of `webhook_url`.",
    )


class NewRule(_Terms):
    """A rule to make. It names a stream, or a label: then every stream with this label is evaluated on its own."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                _NEW,
                {"id": "yard-away", "stream": "yard", "kind": "offline", "webhook_url": "https://example.org/hook"},
            ]
        }
    )

    id: str = Field(pattern=f"^{RULE_ID_PATTERN}$", description="Name of the rule, unique and unchangeable.")
    stream: str | None = Field(None, max_length=63, description="Id of the stream to watch.")
    label: str | None = Field(None, max_length=320, description="`key=value`, or `key` for any value.")
    kind: RuleKind = Field(
        description="`share` of an emotion over or under a threshold; `change` of it against the stream's own baseline; "
        "`no_faces` in frames that were looked at; `offline`: nothing comes from a camera."
    )


class RuleChange(_Terms):
    """A change of a rule. A field that is left out or null stays as it is."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"threshold": 0.5, "clear_threshold": 0.4, "revision": 3}]})

    new_secret: bool = Field(False, description="Make another secret for signing; the answer shows it.")
    revision: int | None = Field(None, ge=1, description="The revision that the change is based on; the same as `If-Match`.")


class RuleAnswer(BaseModel):
    """An alert rule."""

    model_config = ConfigDict(json_schema_extra={"examples": [_STORED]})

    id: str
    stream: str | None
    label: str | None
    kind: RuleKind
    emotion: str | None
    direction: Direction
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
    webhook: str | None = Field(description="Where alerts are sent; its path, which may be a secret, is masked.")
    webhook_template: Template | None = Field(None, description="Form of what is sent; null without a webhook.")
    webhook_secret: str | None = Field(
        None, description="What deliveries are signed with; only in the answer to the request that made it."
    )
    created_at: Time
    revision: int = Field(description="Another one after every change; also in the header `ETag`.")


class RulePage(BaseModel):
    """The rules, ordered by id."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"rules": [_STORED]}]})

    rules: list[RuleAnswer]


class FiringAnswer(BaseModel):
    """An alert that is on."""

    model_config = ConfigDict(json_schema_extra={"examples": [_FIRING]})

    rule: str
    stream: str
    at: Time = Field(description="When it began to fire, in event time.")
    since: Time = Field(description="When the condition began to hold.")
    value: float | None = Field(description="The measure at that time.")
    baseline: float | None = Field(description="Of `change`: the usual share.")
    faces: int
    notify: bool = Field(description="Others were told.")


class FiringPage(BaseModel):
    """The alerts that are on, the newest first."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"firing": [_FIRING]}]})

    firing: list[FiringAnswer]


class EventAnswer(BaseModel):
    """An alert began or ended. The same object as in live answers and in the body of a webhook."""

    model_config = ConfigDict(json_schema_extra={"examples": [_EVENT]})

    id: str = Field(description="The same for the same event, however often it is told.")
    rule: str
    stream: str
    kind: EventKind = Field(description="`firing` or `resolved`.")
    reason: Reason = Field(
        description="`condition` held; `cleared`; `no_data`: nothing was known for too long; `withdrawn`: the rule was changed, "
        "disabled or removed."
    )
    at: Time = Field(description="When, in event time.")
    since: Time = Field(description="When the condition began to hold.")
    value: float | None = Field(description="A share, or percentage points from the baseline; null where nothing is measured.")
    baseline: float | None = Field(description="Of `change`: the usual share.")
    faces: int = Field(description="Faces in the window of the measure.")
    notify: bool = Field(description="False within the quiet time: nobody is told.")
    written: Time | None = Field(None, description="When it was written to the log, wall clock; null in a dry run.")


class EventPage(BaseModel):
    """Alerts that began or ended, the newest first."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"events": [_EVENT], "next_cursor": None}]})

    events: list[EventAnswer]
    next_cursor: str | None = Field(None, description=_CURSOR)


class DeliveryAnswer(BaseModel):
    """One attempt to deliver a webhook."""

    model_config = ConfigDict(json_schema_extra={"examples": [_DELIVERY]})

    event: str = Field(description="Id of the event.")
    rule: str
    outcome: str = Field(description="`delivered`, `retry` (failed, tried again later) or `failed` (given up).")
    reason: str = Field(description="A fixed word; empty where it was delivered.")
    detail: str = Field(description="For people.")
    attempt: int
    at: Time


class DeliveryPage(BaseModel):
    """Attempts to deliver, the newest first."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"deliveries": [_DELIVERY], "next_cursor": None}]})

    deliveries: list[DeliveryAnswer]
    next_cursor: str | None = Field(None, description=_CURSOR)


class DryRun(_Body):
    """A rule to try over stored history: an existing one by its id, or one that is not made yet."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"rule": _NEW, "from": "-1h"}, {"rule_id": "angry-hall"}]})

    rule_id: str | None = Field(None, max_length=63, description="Id of an existing rule.")
    rule: NewRule | None = Field(None, description="A rule; its webhook is not called.")
    start: str | None = Field(
        None, alias="from", max_length=64, description="As in timelines. Default: all that is kept in seconds."
    )
    end: str | None = Field(None, alias="to", max_length=64, description="As in timelines. Default: now; with `from` only.")


class DryRunAnswer(BaseModel):
    """The alerts that a rule would have raised. An alert that still fires at the end of the window has no end here."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"streams": ["hall"], "events": [{**_EVENT, "written": None}], "fired": 1, "told": 1}]}
    )

    streams: list[str] = Field(description="Ids of the streams that were judged.")
    events: list[EventAnswer] = Field(description="In order of time.")
    fired: int = Field(description="How many alerts began.")
    told: int = Field(description="Of these, how many others would have been told of.")
