"""The service itself: its models, who may ask it, what was changed, whether it works."""

from datetime import datetime
from typing import Any

import msgspec

from moodline.answers.base import Answer


class Model(Answer, frozen=True, kw_only=True):
    """An installed model.

    Attributes:
        name: As points of timelines name it.
        active: Classifiers use it, or will within seconds.
        parameters: How many weights it has.
        accuracy: Share of right answers on `measured_on`, 0 to 1; None where not measured.
        measured_on: What its accuracy was measured on.
        sha256: Of its weights.
        source: The folder that it was read from.
        problem: Why it cannot be used; empty where it can.
    """

    name: str
    active: bool
    parameters: int
    accuracy: float | None = None
    measured_on: str
    sha256: str
    source: str
    problem: str


class Refusal(Answer, frozen=True, kw_only=True):
    """A classifier could not load the model `name`, and goes on with the one that it had."""

    name: str
    reason: str
    at: datetime


class Models(Answer, frozen=True, kw_only=True):
    """The installed models, by name: which is `active`, since when it was `chosen`, and whether a classifier `refused` it."""

    active: str
    chosen: datetime | None = None
    refused: Refusal | None = None
    models: list[Model]


class Key(Answer, frozen=True, kw_only=True):
    """An API key, without what is secret of it.

    Attributes:
        name: Who uses it.
        role: `viewer`, `operator` or `admin`.
        streams: Ids of streams that it is limited to; None: not by id.
        labels: Labels that it is limited to; None: not by label.
        expires_at: From when on it is worth nothing.
        prefix: How it begins.
        created_at: When it was made.
        last_used: To the minute.
    """

    name: str
    role: str
    streams: list[str] | None = None
    labels: list[str] | None = None
    expires_at: datetime | None = None
    prefix: str
    created_at: datetime
    last_used: datetime | None = None


class NewKey(Key, frozen=True, kw_only=True):
    """A new key; `key` is the key itself, shown this once. It is not part of `repr`."""

    key: str

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        """Return all fields but the key."""
        return [(name, getattr(self, name)) for name in self.__struct_fields__ if name != "key"]

    def __repr__(self) -> str:
        return f"NewKey({', '.join(f'{name}={value!r}' for name, value in self.__rich_repr__())})"


class KeyPage(Answer, frozen=True, kw_only=True):
    """All keys, ordered by name."""

    keys: list[Key]


class Caller(Answer, frozen=True, kw_only=True):
    """The caller: its role and the streams that it may see; `open` where the service asks for no key."""

    name: str
    role: str
    streams: list[str] | None = None
    labels: list[str] | None = None
    open: bool = False


class Change(Answer, frozen=True, kw_only=True):
    """An entry of the audit log.

    Attributes:
        number: Grows by one with every change.
        at: When.
        who: Name of the key.
        role: Of the key; None where none was good.
        what: The route.
        ids: What was changed.
    """

    number: int
    at: datetime
    who: str
    role: str | None
    what: str
    ids: dict[str, str]


class ChangePage(Answer, frozen=True, kw_only=True):
    """Some changes, newest first; `next_cursor` leads to older ones."""

    changes: list[Change]
    next_cursor: str | None = None


class Ready(Answer, frozen=True, kw_only=True):
    """Readiness of the service and of each part it needs; `reason` tells people what is wrong."""

    ready: bool
    checks: dict[str, bool] = msgspec.field(default_factory=dict)
    reason: str = ""
