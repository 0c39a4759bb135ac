"""Configuration of librdkafka: the URL, the properties of each client, and their log lines.

Secrets travel only in the URL's query; nothing here, no error and no log line carries a property's value.
"""

import logging
import re
import time
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple
from urllib.parse import parse_qsl, urlsplit

from confluent_kafka import KafkaError, KafkaException

from moodline.shared.bus.retention import Retention
from moodline.shared.errors import SettingsError

log = logging.getLogger("moodline.bus.kafka")

MAX_RECORD_BYTES: Final = 4 * 1024 * 1024
"""Largest key and value together, in bytes. Frames are JPEG and far smaller."""

_BATCH_LIMIT_BYTES: Final = MAX_RECORD_BYTES + 64 * 1024
_SEND_QUEUE_KBYTES: Final = 32 * 1024
_SEGMENT_BYTES: Final = 64 * 1024 * 1024
_LEAST_FETCH_BYTES: Final = 64 * 1024
_REPEAT_S: Final = 30.0
_TEXTS: Final = 256
_NUMBER: Final = re.compile(r"\d+")
_DEFAULT_PORT: Final = 9092

_FIXED: Final = frozenset(
    {
        "acks",
        "auto.offset.reset",
        "bootstrap.servers",
        "enable.auto.commit",
        "enable.auto.offset.store",
        "enable.idempotence",
        "enable.partition.eof",
        "group.id",
        "group.protocol",
        "metadata.broker.list",
        "partition.assignment.strategy",
        "partitioner",
        "request.required.acks",
        "transactional.id",
    }
)
"""Properties on which the bus's promises rest."""


class KafkaAddress(NamedTuple):
    """The parts of a bus URL. `properties` may hold secrets; `servers` never does."""

    servers: str
    properties: Mapping[str, str]
    on_trouble: Callable[[], None] | None = None
    """Called for every error that a client reports and itself tries to get over, from any thread."""
    on_reopened: Callable[[str], None] | None = None
    """Called with a topic whose client was replaced, by the thread that polls."""

    def reopened(self, topic: str) -> None:
        """Tell whoever wants to know that a topic's client was replaced."""
        if self.on_reopened is not None:
            self.on_reopened(topic)

    def __repr__(self) -> str:
        return f"kafka://{self.servers}"


def parse_url(url: str) -> KafkaAddress:
    """Read `kafka://host:port[,host:port…][?property=value&…]`; the properties are librdkafka's.

    Raises:
        SettingsError: names what is wrong; never a value.
    """
    try:
        parts = urlsplit(url)
    except ValueError:
        raise SettingsError("the kafka:// URL has no usable host: an IPv6 address stands in whole brackets") from None
    hosts = [host.strip() for host in parts.netloc.split(",")]
    if "@" in parts.netloc:
        raise SettingsError("a kafka:// URL takes credentials as properties: ?sasl.username=…&sasl.password=…, not before an @")
    if not all(hosts) or parts.path not in ("", "/") or parts.fragment:
        raise SettingsError("a kafka:// URL has the form kafka://host:port[,host:port][?property=value&…]")
    try:
        properties = dict(parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query)))
    except ValueError:
        raise SettingsError("the query of the kafka:// URL must be property=value pairs joined by &") from None
    if fixed := sorted(_FIXED & properties.keys()):
        raise SettingsError(f"the kafka:// URL may not set {', '.join(fixed)}: Moodline's guarantees depend on it")
    return KafkaAddress(",".join(_with_port(host) for host in hosts), properties)


def consumer_config(address: KafkaAddress, group: str, max_prefetch_bytes: int, heartbeat_ms: int = 2000) -> dict[str, Any]:
    """Return the properties of a consumer that holds at most about `max_prefetch_bytes` of fetched records.

    librdkafka looks at the limit of its queue before it sends a fetch, so one answer may come on top: the two add up to the
    cap. A single record larger than that is fetched all the same.
    """
    fetch_bytes = max(_LEAST_FETCH_BYTES, max_prefetch_bytes // 4)
    return {
        "group.id": group,
        "group.protocol": "classic",
        "partition.assignment.strategy": "cooperative-sticky",
        "session.timeout.ms": 8000,
        "heartbeat.interval.ms": heartbeat_ms,
        "enable.auto.commit": False,
        "enable.auto.offset.store": False,
        "auto.offset.reset": "earliest",
        "allow.auto.create.topics": False,
        "queued.max.messages.kbytes": max(1, (max_prefetch_bytes - fetch_bytes) // 1024),
        "fetch.max.bytes": fetch_bytes,
        "fetch.message.max.bytes": fetch_bytes,
        # librdkafka raises fetch.max.bytes to this; a consumer sends nothing that large.
        "message.max.bytes": _LEAST_FETCH_BYTES,
        # A broker answers at once when it has records. The wait only delays seeks and new partitions.
        "fetch.wait.max.ms": 100,
        "fetch.error.backoff.ms": 100,
        # By default a full queue is looked at again after a whole second.
        "fetch.queue.backoff.ms": 10,
        **_common(address),
    }


def producer_config(address: KafkaAddress) -> dict[str, Any]:
    """Return the properties of the producer: every record once, in order, acknowledged by all replicas."""
    return {
        "enable.idempotence": True,
        "acks": "all",
        "partitioner": "consistent",
        "linger.ms": 2,
        # For ever: an outage must not turn what waits into what is lost. The queue is bounded, and says when it is full.
        "message.timeout.ms": 0,
        "message.max.bytes": _BATCH_LIMIT_BYTES,
        "queue.buffering.max.kbytes": _SEND_QUEUE_KBYTES,
        **_common(address),
    }


def admin_config(address: KafkaAddress) -> dict[str, Any]:
    """Return the properties of the administrative client."""
    return {
        # The client remembers leaders, by default for 15 minutes, and asks one that is gone again and again without a pause. That
        # costs a core, and there is no answer. So it has to forget them before the next question comes.
        "metadata.max.age.ms": 2000,
        **_common(address),
    }


def topic_config(retention: Retention) -> dict[str, str]:
    """Return the broker's settings for a topic."""
    return {
        "cleanup.policy": "delete",
        "max.message.bytes": str(_BATCH_LIMIT_BYTES + 64 * 1024),
        "retention.ms": str(retention.keep_s * 1000),
        "retention.bytes": str(retention.partition_bytes or -1),
        # Only whole closed segments are deleted, so a segment must be short against what is kept.
        "segment.ms": str(max(60, retention.keep_s // 10) * 1000),
        "segment.bytes": str(_SEGMENT_BYTES),
    }


def open_client(factory: Callable[[dict[str, Any]], Any], config: dict[str, Any], address: KafkaAddress) -> Any:
    """Create a librdkafka client.

    Raises:
        SettingsError: a property of the URL is unknown or cannot have its value; names the property only.
    """
    try:
        return factory(config)
    except (KafkaException, ValueError, TypeError) as error:
        named = [name for name in address.properties if re.search(rf"(?<![\w.]){re.escape(name)}(?![\w.])", str(error))]
        culprit = ", ".join(named or sorted(address.properties)) or "its own settings"
        raise SettingsError(
            f"Kafka's client does not accept {culprit} in the kafka:// URL: unknown, not with that value, or not without another"
        ) from None


class ClientLog:
    """Takes librdkafka's log lines and errors; repeats of one text are passed on at most every 30 s.

    Texts that differ in numbers only, such as times and ports, are the same.
    """

    def __init__(self, on_trouble: Callable[[], None] | None = None) -> None:
        self._reported_s: dict[str, float] = {}
        self._on_trouble = on_trouble

    def log(self, level: int, _format: str, facility: str, client: str, message: str) -> None:
        """Pass on a log line; the signature is the one that the client calls a logger with."""
        if facility == "CONFWARN":
            level = logging.DEBUG
        self._set_state(f"{facility} {message}", min(level, logging.WARNING), facility=facility, client=client, detail=message)

    def error(self, error: KafkaError) -> None:
        """Pass on an error that the client itself retries."""
        if self._on_trouble is not None:
            self._on_trouble()
        self._set_state(f"{error.name()} {error.str()}", logging.WARNING, code=error.name(), detail=error.str())

    def _set_state(self, kind: str, level: int, **fields: str) -> None:
        now_s, text = time.monotonic(), _NUMBER.sub("#", kind)
        if now_s - self._reported_s.get(text, -_REPEAT_S) >= _REPEAT_S:
            if len(self._reported_s) >= _TEXTS:
                self._reported_s = {
                    reported: reported_s for reported, reported_s in self._reported_s.items() if now_s - reported_s < _REPEAT_S
                }
            if len(self._reported_s) >= _TEXTS:
                del self._reported_s[next(iter(self._reported_s))]
            self._reported_s[text] = now_s
            log.log(level, "bus.client", extra=fields)


def _common(address: KafkaAddress) -> dict[str, Any]:
    client_log = ClientLog(address.on_trouble)
    return {
        "bootstrap.servers": address.servers,
        "client.id": "moodline",
        "reconnect.backoff.ms": 50,
        "reconnect.backoff.max.ms": 1000,
        "socket.keepalive.enable": True,
        "log.connection.close": False,
        "logger": client_log,
        "error_cb": client_log.error,
        **address.properties,
    }


def _with_port(host: str) -> str:
    return host if re.search(r":\d+$", host) else f"{host}:{_DEFAULT_PORT}"
