"""Callers and their rights, as pure rules. The API, its events, alerts and the page use the same ones."""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from moodline.shared.streams import StreamSpec


class Role(StrEnum):
    """The roles of callers. Each role includes the rights of those before it."""

    VIEWER = "viewer"
    """Read streams, timelines and events."""
    OPERATOR = "operator"
    """Also add, change, pause and delete streams, push frames, upload files, and set alerts."""
    ADMIN = "admin"
    """Also choose models, make and remove keys, and read the audit log."""

    def includes(self, other: "Role") -> bool:
        """Return whether this role may do what the other may."""
        return _RANK[self] >= _RANK[other]


_RANK: Final = {role: rank for rank, role in enumerate(Role)}


@dataclass(frozen=True, slots=True)
class Caller:
    """A caller.

    Attributes:
        name: Of the key, or `local` where no key is asked for.
        role: What the caller may do.
        streams: Ids of streams that the caller may see, or None.
        labels: Labels of streams that the caller may see, as `key=value`, or `key` for any value; or None.

    A caller with neither ids nor labels sees every stream. One with either sees the streams with one of these ids, and those
    with at least one of these labels, and no others: each id and each label adds to what may be seen.
    """

    name: str
    role: Role
    streams: frozenset[str] | None = None
    labels: tuple[str, ...] | None = None

    @property
    def sees_all(self) -> bool:
        """Return whether the caller may see all streams."""
        return self.streams is None and self.labels is None

    def may_see(self, spec: StreamSpec) -> bool:
        """Return whether a stream is in the caller's scope."""
        if self.sees_all:
            return True
        return spec.stream_id in (self.streams or ()) or any(has_label(spec, label) for label in self.labels or ())


LOCAL: Final = Caller("local", Role.ADMIN)
"""Whoever asks where no key is asked for."""


def has_label(spec: StreamSpec, label: str) -> bool:
    """Return whether a stream has a label, given as `key=value`, or as `key` for any value."""
    key, has_value, value = label.partition("=")
    return key in spec.labels and (not has_value or spec.labels[key] == value)


def matches(spec: StreamSpec, labels: Iterable[str]) -> bool:
    """Return whether a stream has all of these labels."""
    return all(has_label(spec, label) for label in labels)
