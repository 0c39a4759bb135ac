"""The bus: `memory://` inside one process, `kafka://host:port[,host:port]` on Apache Kafka. A URL chooses the adapter."""

from collections.abc import Callable

from moodline.shared.bus.base import OLDEST, Bus, Consumer, ConsumerSettings, Headers, Position, Producer, Record
from moodline.shared.bus.partition import partition_for
from moodline.shared.errors import SettingsError

__all__ = [
    "OLDEST",
    "Bus",
    "Consumer",
    "ConsumerSettings",
    "Headers",
    "Position",
    "Producer",
    "Record",
    "open_bus",
    "partition_for",
]


def open_bus(
    url: str,
    *,
    partitions: int = 16,
    max_bytes: int = 256 * 1024 * 1024,
    on_trouble: Callable[[], None] | None = None,
    on_reopened: Callable[[str], None] | None = None,
) -> Bus:
    """Open the bus that the URL names.

    Args:
        url: `memory://` or `kafka://host:port[,host:port…]`, optionally with librdkafka properties as the query.
        partitions: Partitions of topics that this call's `ensure_topics` creates.
        max_bytes: Bound of the memory bus, per topic.
        on_trouble: Called, from any thread, for every error of the bus that a client itself tries to get over.
        on_reopened: Called with a topic whose client was replaced, because it failed or stood still.

    Raises:
        SettingsError: the URL's scheme is unknown or the adapter's package is not installed.
    """
    scheme = url.partition("://")[0]
    if scheme == "memory":
        from moodline.shared.bus.memory import MemoryBus

        return MemoryBus(partitions=partitions, max_bytes=max_bytes)
    if scheme == "kafka":
        try:
            from moodline.shared.bus.kafka import KafkaBus
        except ModuleNotFoundError as error:
            raise SettingsError(f"kafka:// needs the package {error.name}: pip install 'moodline[kafka]'") from error
        return KafkaBus(url, partitions=partitions, on_trouble=on_trouble, on_reopened=on_reopened)
    raise SettingsError(f"bus URL scheme {scheme!r} is unknown; use memory:// or kafka://host:port")
