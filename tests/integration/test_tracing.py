"""One trace from the capture of a frame to its timeline, through the whole pipeline, in memory and on real Kafka."""

import gzip
import http.server
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from pydantic import SecretStr

from moodline.services.runtime.bootstrap import WORKERS, Resources, build, open_resources, retention
from moodline.shared.bus import ConsumerSettings, open_bus
from moodline.shared.clock import SystemClock
from moodline.shared.messages import ALL_TOPICS, Frame, PipelineStep, StreamClass, encode, topic
from moodline.shared.metrics import Metrics
from moodline.shared.pipeline.health import Health
from moodline.shared.settings import Settings, TracingSettings
from moodline.shared.store import open_store
from moodline.shared.tracing.bus import TracedBus
from moodline.shared.tracing.spans import Tracing
from tests.support.fixtures import Server
from tests.support.reference import synthetic_spec
from tests.support.servers import wait_until

CHAIN = ("capture", "publish", "detect", "classify", "aggregate")
SECONDS = 2
FRAMES = SECONDS * 25


@pytest.fixture(params=["memory", pytest.param("kafka", marks=pytest.mark.kafka)])
def bus_url(request: pytest.FixtureRequest) -> str:
    if request.param == "memory":
        return "memory://"
    server: Server = request.getfixturevalue("kafka_server")
    return server.url


@contextmanager
def pipeline(resources: Resources) -> Iterator[Resources]:
    """All workers in threads."""
    with resources:
        threads = [threading.Thread(target=build(kind, resources).run, args=(resources.stop,)) for kind in reversed(WORKERS)]
        for thread in threads:
            thread.start()
        try:
            yield resources
        finally:
            resources.stop.set()
            for thread in threads:
                thread.join(30)


def settings_in(folder: Path, **groups: object) -> Settings:
    return Settings(
        data_dir=folder,
        detector={"threads": 1},
        classifier={"threads": 1},
        **groups,  # type: ignore[arg-type]
    )


def analyse(resources: Resources, name: str) -> None:
    """Register a film and wait until its timeline is final."""
    resources.store.add(synthetic_spec(name, SECONDS, 0))

    def final() -> bool:
        (progress,) = resources.store.load([name])
        return progress is not None and progress.final

    wait_until(final, 90, "the timeline")


def traces(spans: tuple[ReadableSpan, ...], stream: str) -> dict[int, dict[str, ReadableSpan]]:
    """Return the spans of a stream by trace and name."""
    found: dict[int, dict[str, ReadableSpan]] = {}
    for span in spans:
        if (span.attributes or {}).get("moodline.stream_id") == stream:
            by_name = found.setdefault(span.context.trace_id, {})
            assert span.name not in by_name, "a message was taken twice"
            by_name[span.name] = span
    return found


def test_every_traced_frame_is_one_trace_with_the_right_parents(bus_url: str, tmp_path: Path) -> None:
    stream = f"traced-{time.time_ns()}"
    exporter, provider = InMemorySpanExporter(), TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    settings = settings_in(tmp_path)
    turn = iter(range(1_000_000))
    tracing = Tracing(provider, 0.5, draw=lambda: 0.4 if next(turn) % 3 == 0 else 0.5)
    bus = TracedBus(open_bus(bus_url, partitions=4), tracing)
    bus.ensure_topics(ALL_TOPICS)
    store = open_store(settings.store_url(), retention(settings))
    metrics = Metrics()
    with pipeline(Resources(settings, bus, store, metrics, SystemClock(), Health(metrics, SystemClock()))) as resources:
        analyse(resources, stream)
        wait_until(lambda: all(set(CHAIN) == set(trace) for trace in traces(exporter.get_finished_spans(), stream).values()))
        found = traces(exporter.get_finished_spans(), stream)
    assert len(found) == len(range(0, FRAMES, 3)), "each third frame, and no other"
    for trace in found.values():
        assert trace["capture"].parent is None
        for before, name in pairwise(CHAIN):
            parent = trace[name].parent
            assert parent is not None
            assert parent.span_id == trace[before].context.span_id, name
        assert len({(span.attributes or {})["moodline.seq"] for span in trace.values()}) == 1
        assert (trace["aggregate"].end_time or 0) >= (trace["classify"].start_time or 0)


class Collector(http.server.BaseHTTPRequestHandler):
    """Takes spans by OTLP over HTTP."""

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        if self.headers.get("content-encoding") == "gzip":
            body = gzip.decompress(body)
        request = ExportTraceServiceRequest.FromString(body)
        names = [span.name for item in request.resource_spans for scope in item.scope_spans for span in scope.spans]
        self.server.spans += names  # type: ignore[attr-defined]
        self.server.tokens.add(self.headers.get("x-token"))  # type: ignore[attr-defined]
        self.send_response(200)
        self.send_header("content-type", "application/x-protobuf")
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None: ...


def test_spans_reach_a_collector_as_the_settings_say(tmp_path: Path) -> None:
    collector = http.server.HTTPServer(("127.0.0.1", 0), Collector)
    collector.spans, collector.tokens = [], set()  # type: ignore[attr-defined]
    serving = threading.Thread(target=collector.serve_forever, daemon=True)
    serving.start()
    try:
        endpoint = f"http://127.0.0.1:{collector.server_port}/v1/traces"
        tracing = TracingSettings(endpoint=endpoint, ratio=1.0, headers=SecretStr("x-token=t0k3n"))
        with pipeline(open_resources(settings_in(tmp_path, tracing=tracing))) as resources:
            analyse(resources, "collected")
        counts = {name: collector.spans.count(name) for name in CHAIN}  # type: ignore[attr-defined]
        assert counts["capture"] == counts["publish"] == FRAMES
        assert min(counts.values()) == FRAMES, counts
        assert collector.tokens == {"t0k3n"}  # type: ignore[attr-defined]
    finally:
        collector.shutdown()
        collector.server_close()
        serving.join(10)


def test_without_an_endpoint_nothing_is_around_the_bus_and_no_header_travels(tmp_path: Path) -> None:
    with open_resources(settings_in(tmp_path)) as resources:
        assert type(resources.bus).__module__ == "moodline.shared.bus.memory"


def test_a_collector_that_is_away_holds_nothing_up(tmp_path: Path) -> None:
    tracing = TracingSettings(endpoint="http://127.0.0.1:9/v1/traces", ratio=1.0)
    with pipeline(open_resources(settings_in(tmp_path, tracing=tracing))) as resources:
        analyse(resources, "uncollected")


def frame(seq: int) -> bytes:
    return encode(
        Frame(stream_id="s", epoch=1, seq=seq, event_time_us=0, captured_at_us=1, lane=StreamClass.LIVE, width=0, height=0)
    )


@pytest.mark.parametrize(
    "header",
    [b"", b"\xff\xfe", b"00-zz-zz-01", b"00-00000000000000000000000000000000-0000000000000000-01", b"x" * 5000],
    ids=["empty", "not text", "not hex", "zeros", "long"],
)
def test_a_broken_context_is_no_context(header: bytes) -> None:
    exporter, provider = InMemorySpanExporter(), TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    inner = open_bus("memory://", partitions=1)
    inner.ensure_topics(ALL_TOPICS)
    bus = TracedBus(inner, Tracing(provider, 1.0))
    name = topic(PipelineStep.FRAMES, StreamClass.LIVE)
    inner.open_producer().send(name, b"s", frame(0), (("traceparent", header),))
    consumer = bus.open_consumer(ConsumerSettings(group="g", topics=(name,)))
    records = consumer.poll(1, 1.0)
    consumer.commit([record.position for record in records])
    assert len(records) == 1
    assert exporter.get_finished_spans() == ()
    bus.close()
