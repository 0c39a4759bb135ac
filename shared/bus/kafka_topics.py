"""The declared settings of Moodline's topics, and the differences of a cluster's topics from them. Pure."""

from collections.abc import Mapping
from typing import Final, NamedTuple

from moodline.shared.bus.kafka_settings import topic_config
from moodline.shared.bus.retention import retention_of

PARTITIONS: Final = "partitions"


class FoundTopic(NamedTuple):
    """A topic as the cluster has it: its number of partitions, and its settings by Kafka's names."""

    partitions: int
    config: Mapping[str, str]


class Difference(NamedTuple):
    """A difference between a topic and its declaration: `partitions`, or one of Kafka's settings."""

    topic: str
    what: str
    found: str
    declared: str


def declared_config(name: str) -> dict[str, str]:
    """Return a topic's declared settings, by Kafka's names."""
    return topic_config(retention_of(name))


def differences(name: str, found: FoundTopic, partitions: int) -> list[Difference]:
    """Compare a topic with what is declared: this many partitions, and its retention and size limits."""
    pairs = [(PARTITIONS, str(found.partitions), str(partitions))]
    pairs += [(key, found.config.get(key, "not set"), value) for key, value in declared_config(name).items()]
    return [Difference(name, what, there, declared) for what, there, declared in pairs if there != declared]
