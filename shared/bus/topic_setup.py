"""Topics as they are declared: created where they are missing, given their settings where those differ, never deleted."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Final, NamedTuple, Protocol

from moodline.shared.bus.kafka_topics import PARTITIONS, Difference, FoundTopic, differences
from moodline.shared.clock import Clock, SystemClock
from moodline.shared.errors import BusError

# A broker acknowledges a change before every broker answers with it.
_SETTLE_S: Final = 10.0
_POLL_S: Final = 0.25


class TopicAdmin(Protocol):
    """The part of a Kafka bus that looks after topics."""

    def ensure_topics(self, names: Iterable[str]) -> None: ...

    def find_topics(self, names: Iterable[str]) -> dict[str, FoundTopic]: ...

    def change_topic(self, name: str, config: Mapping[str, str]) -> None: ...


class TopicReport(NamedTuple):
    """The result of a check of topics.

    Attributes:
        missing: Topics that did not exist.
        different: What of the others was not as declared.
        as_declared: Topics that needed nothing.
    """

    missing: tuple[str, ...]
    different: tuple[Difference, ...]
    as_declared: tuple[str, ...]

    @property
    def complete(self) -> bool:
        """Return whether everything is as declared."""
        return not self.missing and not self.different


def inspect_topics(admin: TopicAdmin, names: Sequence[str], partitions: int) -> TopicReport:
    """Compare the cluster's topics with what is declared; changes nothing. Raises as the admin does."""
    found = admin.find_topics(names)
    wrong = {name: differences(name, topic, partitions) for name, topic in found.items()}
    return TopicReport(
        missing=tuple(name for name in names if name not in found),
        different=tuple(item for items in wrong.values() for item in items),
        as_declared=tuple(name for name, items in wrong.items() if not items),
    )


def set_up_topics(admin: TopicAdmin, names: Sequence[str], partitions: int, clock: Clock | None = None) -> TopicReport:
    """Make the cluster's topics what is declared. Safe to repeat, and to repeat after it stopped halfway.

    Args:
        admin: The cluster.
        names: All of Moodline's topics.
        partitions: How many each is to have.
        clock: Measures how long to wait for the cluster to answer with what it accepted; the machine's by default.

    Returns:
        What was found, and by now is as declared.

    Raises:
        BusError: existing topics have another number of partitions. That is never changed, for it decides which worker has a
            stream, and all topics must agree in it; so nothing else was changed either. Also: the cluster still answers
            with other settings some seconds after it accepted these.
    """
    report = inspect_topics(admin, names, partitions)
    if counts := {item.topic: item.found for item in report.different if item.what == PARTITIONS}:
        listed = ", ".join(f"{name} has {count}" for name, count in sorted(counts.items()))
        raise BusError(
            f"topics have another number of partitions than MOODLINE_BUS_PARTITIONS={partitions}: {listed}. Nothing was changed; "
            "set it to what all topics have, or see docs/deployment.md on changing it"
        )
    admin.ensure_topics(report.missing)
    for name in dict.fromkeys(item.topic for item in report.different):
        admin.change_topic(name, {item.what: item.declared for item in report.different if item.topic == name})
    left = _inspect_until_complete(admin, names, partitions, clock or SystemClock())
    if not left.complete:
        listed = ", ".join([*left.missing, *(f"{item.topic} {item.what}={item.found}" for item in left.different)])
        raise BusError(
            f"{_SETTLE_S:g} s after it accepted what is declared, the cluster still answers otherwise: {listed}. "
            "Run `moodline setup` again; when it says the same, the brokers' log tells why"
        )
    return report


def _inspect_until_complete(admin: TopicAdmin, names: Sequence[str], partitions: int, clock: Clock) -> TopicReport:
    deadline_s = clock.monotonic_s() + _SETTLE_S
    while True:
        found = inspect_topics(admin, names, partitions)
        if found.complete or clock.monotonic_s() >= deadline_s:
            return found
        clock.sleep(_POLL_S)
