"""Traces: what one frame went through, from its capture to its timeline, by OpenTelemetry.

One frame in so many is traced: ingest decides when it puts the frame on the bus. The context travels as W3C's `traceparent` in
the headers of the frame's messages, and whoever takes a message with such a header adds a span. A frame without the header costs
nothing, and a process whose tracing is off has nothing of this around its bus.

| span | from | to | parent |
| --- | --- | --- | --- |
| `capture` | capture of the frame | on its way to the bus | none |
| `publish` | begin of sending | the bus's client has it | `capture` |
| `detect` | taken from the bus | committed | `publish` |
| `classify` | taken from the bus | committed | `detect` |
| `aggregate` | taken from the bus | committed: it is in the timeline | `classify` |
"""

import random
import socket
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from moodline.shared.bus.base import Headers, Position, Record
from moodline.shared.clock import Clock, SystemClock
from moodline.shared.errors import MessageError, SettingsError
from moodline.shared.messages import End, Message, PipelineStep, decode
from moodline.shared.settings import TracingSettings

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.trace import Span

HEADER: Final = "traceparent"

_SPANS: Final = {PipelineStep.FRAMES: "detect", PipelineStep.FACES: "classify", PipelineStep.EMOTIONS: "aggregate"}
_BEFORE: Final = {PipelineStep.FACES: PipelineStep.FRAMES, PipelineStep.EMOTIONS: PipelineStep.FACES}
_OPEN_LIMIT: Final = 10_000
_EXPORT_S: Final = 3.0
"""A collector that is away must not hold up the end of a worker."""

_Identity = tuple[PipelineStep, str, int, int]


@dataclass(slots=True)
class _Open:
    """A span whose message is being worked on, and where on the bus that message was."""

    span: "Span"
    position: Position


class Tracing:
    """Makes the spans of one process. Thread-safe.

    Args of the constructor:
        provider: OpenTelemetry's, which samples everything it is given; shut down by `close`.
        ratio: Share of frames that are traced, 0 to 1.
        clock: Time of spans.
        draw: Returns a number from 0 to 1, 1 excluded, for each frame that is published.
    """

    def __init__(
        self,
        provider: "TracerProvider",
        ratio: float,
        clock: Clock | None = None,
        draw: Callable[[], float] = random.random,
    ) -> None:
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        self._provider = provider
        self._tracer = provider.get_tracer("moodline")
        self._propagator = TraceContextTextMapPropagator()
        self._ratio = ratio
        self._clock = clock or SystemClock()
        self._draw = draw
        self._lock = threading.Lock()
        self._open: dict[_Identity, _Open] = {}

    def publish(self, value: bytes, send: Callable[[Headers], None]) -> None:
        """Send a frame to the bus, traced if it is its turn. Raises what `send` raises."""
        if self._draw() >= self._ratio:
            send(())
            return
        message = decode(value)
        if isinstance(message, End):
            send(())
            return
        fields = _fields(message)
        capture = self._tracer.start_span(
            "capture", self._no_context(), attributes=fields, start_time=message.captured_at_us * 1000
        )
        publish = self._tracer.start_span("publish", self._within(capture), attributes=fields, start_time=self._now_ns())
        try:
            send(self._headers(publish))
        except BaseException as error:
            publish.set_attribute("error.type", type(error).__name__)
            raise
        finally:
            publish.end(self._now_ns())
            capture.end(self._now_ns())

    def pass_on(self, step: PipelineStep, key: bytes, value: bytes) -> Headers:
        """Return the headers of a message to `step`: those of the span that it comes from, if there is one."""
        before = _BEFORE.get(step)
        stream_id = key.decode(errors="replace")
        with self._lock:
            if before is None or not any(place[:2] == (before, stream_id) for place in self._open):
                return ()
        message = decode(value)
        with self._lock:
            found = self._open.get((before, message.stream_id, message.epoch, message.seq))
        return () if found is None else self._headers(found.span)

    def take(self, step: PipelineStep, record: Record) -> None:
        """Begin the span of a message that was taken from the bus, if it is traced."""
        parent = self._parent(record.headers)
        if parent is None:
            return
        try:
            message = decode(record.value)
        except MessageError:
            return
        fields = _fields(message) | {
            "messaging.destination.name": record.position.topic,
            "messaging.destination.partition.id": str(record.position.partition),
            "messaging.kafka.offset": record.position.offset,
            "moodline.waited_ms": max(0, int(self._clock.now_s() * 1000 - record.timestamp_ms)),
        }
        span = self._tracer.start_span(_SPANS[step], parent, attributes=fields, start_time=self._now_ns())
        identity = (step, message.stream_id, message.epoch, message.seq)
        with self._lock:
            again = self._open.pop(identity, None)
            self._open[identity] = _Open(span, record.position)
            oldest = self._open.pop(next(iter(self._open))) if len(self._open) > _OPEN_LIMIT else None
        for left in (again, oldest):
            if left is not None:
                left.span.set_attribute("moodline.taken_again", True)
                left.span.end(self._now_ns())

    def finish(self, positions: Iterable[Position]) -> None:
        """End the spans of messages that are done: up to these positions, inclusive."""
        if not self._open:
            return
        done = {(topic, partition): offset for topic, partition, offset in positions}
        with self._lock:
            ended = [name for name, item in self._open.items() if item.position.offset <= done.get(item.position[:2], -1)]
            spans = [self._open.pop(name).span for name in ended]
        for span in spans:
            span.end(self._now_ns())

    def close(self) -> None:
        """Send what was not sent yet, for as long as the exporter tries, and end."""
        self._provider.shutdown()

    def _headers(self, span: "Span") -> Headers:
        carrier: dict[str, str] = {}
        self._propagator.inject(carrier, self._within(span))
        return ((HEADER, carrier[HEADER].encode()),)

    def _parent(self, headers: Headers) -> "Context | None":
        """Return the context that a message carries; None if it carries none, or one that is not to be traced."""
        from opentelemetry.trace import get_current_span

        for name, value in headers:
            if name == HEADER:
                context = self._propagator.extract({HEADER: (value or b"").decode("ascii", "replace")}, self._no_context())
                found = get_current_span(context).get_span_context()
                return context if found.is_valid and found.trace_flags.sampled else None
        return None

    def _within(self, span: "Span") -> "Context":
        from opentelemetry.trace import set_span_in_context

        return set_span_in_context(span, self._no_context())

    @staticmethod
    def _no_context() -> "Context":
        from opentelemetry.context import Context

        return Context()

    def _now_ns(self) -> int:
        return int(self._clock.now_s() * 1e9)


def open_tracing(settings: TracingSettings) -> Tracing | None:
    """Return what traces as the settings say; None when tracing is off.

    Raises:
        SettingsError: a setting cannot be used, or the packages are not installed.
    """
    if not settings.endpoint or settings.ratio == 0:
        return None
    parts = urlsplit(settings.endpoint)
    if parts.scheme not in ("http", "https") or not parts.hostname or "@" in parts.netloc:
        raise SettingsError(
            "MOODLINE_TRACING_ENDPOINT is http(s)://host:port/path, without credentials: those are for MOODLINE_TRACING_HEADERS"
        )
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
        from opentelemetry.sdk.trace.sampling import ALWAYS_ON
    except ModuleNotFoundError as error:
        raise SettingsError(
            f"MOODLINE_TRACING_ENDPOINT needs the package {error.name}: pip install 'moodline[tracing]'"
        ) from error
    resource = Resource.create({"service.name": "moodline", "service.instance.id": socket.gethostname()})
    provider = TracerProvider(ALWAYS_ON, resource, shutdown_on_exit=False)
    exporter = OTLPSpanExporter(settings.endpoint, headers=_header_pairs(settings), timeout=_EXPORT_S)
    provider.add_span_processor(BatchSpanProcessor(exporter))
    return Tracing(provider, settings.ratio)


def _header_pairs(settings: TracingSettings) -> dict[str, str]:
    """Return the headers of each request to the collector. Raises `SettingsError`, without a value."""
    pairs = [pair.partition("=") for pair in settings.headers.get_secret_value().split(",") if pair.strip()]
    if any(not name.strip() or not between for name, between, _ in pairs):
        raise SettingsError("MOODLINE_TRACING_HEADERS has the form name=value,name=value")
    return {name.strip(): value.strip() for name, _, value in pairs}


def _fields(message: Message) -> dict[str, Any]:
    return {
        "moodline.stream_id": message.stream_id,
        "moodline.session": message.epoch,
        "moodline.seq": message.seq,
        "moodline.lane": message.lane.value,
    }
