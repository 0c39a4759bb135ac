"""Every metric of Moodline, named once, with its meaning. `docs/metrics.md` is checked against this module.

No metric has a user or a URL as a label, and those with a stream are for a limited number of streams (`moodline.shared.stream_metrics`): the
number of series stays bounded however many streams there are.
"""

from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest

from moodline.shared.emotions import EMOTIONS
from moodline.shared.messages import DropReason, StreamClass
from moodline.shared.stream_metrics import StreamMetrics

DEAD_LETTER_REASONS: Final = ("malformed", "version", "invalid", "stage_error")

_LATENCY_BUCKETS_S: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
_BATCH_BUCKETS: Final = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)


class Metrics:
    """The metrics of one process, in a registry of their own, so that tests and embedded services do not share state.

    Args of the constructor:
        stream_limit: Most streams that have series of their own.
    """

    def __init__(self, stream_limit: int = 100) -> None:  # noqa: PLR0915  # a list, not a procedure
        self.registry: Final = CollectorRegistry()
        r = self.registry
        self.messages_received: Final = Counter(
            "moodline_messages_received_total",
            "Messages taken from the bus, by worker and topic.",
            ["worker", "topic"],
            registry=r,
        )
        self.messages_sent: Final = Counter(
            "moodline_messages_sent_total", "Messages put on the bus, by worker and topic.", ["worker", "topic"], registry=r
        )
        self.frames: Final = Counter(
            "moodline_frames_total",
            "Sampled frames handled by a worker, skipped ones included, by worker and lane.",
            ["worker", "lane"],
            registry=r,
        )
        self.frames_skipped: Final = Counter(
            "moodline_frames_skipped_total",
            "Frames that carry no result, counted where the skip was decided, by worker, lane and reason.",
            ["worker", "lane", "reason"],
            registry=r,
        )
        self.frames_decoded: Final = Counter(
            "moodline_frames_decoded_total", "Frames decoded by ingest, sampled or not.", registry=r
        )
        self.decode_errors: Final = Counter("moodline_decode_errors_total", "Damaged packets that ingest skipped.", registry=r)
        self.faces: Final = Counter("moodline_faces_total", "Faces that left a worker, by worker.", ["worker"], registry=r)
        self.batch_size: Final = Histogram(
            "moodline_batch_size", "Messages handled per batch, by worker.", ["worker"], buckets=_BATCH_BUCKETS, registry=r
        )
        self.model_batch_fill: Final = Histogram(
            "moodline_model_batch_fill_ratio",
            "Share of the classifier's fixed batch that held real crops.",
            buckets=(0.1, 0.25, 0.5, 0.75, 0.9, 1.0),
            registry=r,
        )
        self.model_seconds: Final = Histogram(
            "moodline_model_seconds",
            "Time of one call of a model, in s, by worker.",
            ["worker"],
            buckets=_LATENCY_BUCKETS_S,
            registry=r,
        )
        self.model_active: Final = Gauge(
            "moodline_model_active",
            "1 for the model that this classifier uses, 0 for one that it used before, by name.",
            ["model"],
            registry=r,
        )
        self.model_refusals: Final = Counter(
            "moodline_model_refusals_total",
            "Models that were chosen but could not be loaded; the classifier went on with the one it had.",
            registry=r,
        )
        self.gpu_busy: Final = Gauge(
            "moodline_gpu_busy_ratio", "Share of time in which a GPU of a classifier computed, by GPU.", ["gpu"], registry=r
        )
        self.gpu_memory_bytes: Final = Gauge(
            "moodline_gpu_memory_bytes",
            "Memory of a classifier's GPU that is used, by whomever, in bytes, by GPU.",
            ["gpu"],
            registry=r,
        )
        self.stage_seconds: Final = Histogram(
            "moodline_stage_seconds",
            "Time to handle one batch without bus and store, in s, by worker.",
            ["worker"],
            buckets=_LATENCY_BUCKETS_S,
            registry=r,
        )
        self.sink_seconds: Final = Histogram(
            "moodline_sink_seconds",
            "Time to make one batch's outputs durable, in s, by worker.",
            ["worker"],
            buckets=_LATENCY_BUCKETS_S,
            registry=r,
        )
        self.queue_age_seconds: Final = Histogram(
            "moodline_queue_age_seconds",
            "Age of a message when a worker took it, since it was produced, in s, by worker and lane.",
            ["worker", "lane"],
            buckets=_LATENCY_BUCKETS_S,
            registry=r,
        )
        self.end_to_end_seconds: Final = Histogram(
            "moodline_end_to_end_seconds",
            "Time from reading a frame to its result in the timeline, in s, by lane.",
            ["lane"],
            buckets=_LATENCY_BUCKETS_S,
            registry=r,
        )
        self.lag_messages: Final = Gauge(
            "moodline_lag_messages",
            "Messages in a worker's own partitions that it has not finished, as far as it knows, by worker and lane.",
            ["worker", "lane"],
            registry=r,
        )
        self.lag_seconds: Final = Gauge(
            "moodline_lag_seconds",
            "Age of the oldest message in a worker's own partitions that it has not finished, in s, by worker and lane; 0 without any.",
            ["worker", "lane"],
            registry=r,
        )
        self.partitions: Final = Gauge(
            "moodline_partitions", "Partitions that a worker owns, by worker and topic.", ["worker", "topic"], registry=r
        )
        self.clock_offset_seconds: Final = Gauge(
            "moodline_clock_offset_seconds",
            "How far the clock of this process's host is ahead of the store's host, in s; 0 where they are the same.",
            registry=r,
        )
        self.bus_errors: Final = Counter(
            "moodline_bus_errors_total",
            "Errors that the bus's client reported and tries to get over by itself, such as brokers unavailable.",
            registry=r,
        )
        self.bus_reopened: Final = Counter(
            "moodline_bus_reopened_total",
            "Clients of the bus that were replaced because they failed or stood still, by topic, or `producer`.",
            ["topic"],
            registry=r,
        )
        self.standstill_seconds: Final = Gauge(
            "moodline_standstill_seconds",
            "For how long an owned partition has not moved though it holds something to read, in s, by worker, topic and partition; absent while all move.",
            ["worker", "topic", "partition"],
            registry=r,
        )
        self.dead_letters: Final = Counter(
            "moodline_dead_letters_total",
            "Undecodable messages moved to the dead-letter topic, by worker and reason.",
            ["worker", "reason"],
            registry=r,
        )
        self.frames_dropped: Final = Counter(
            "moodline_frames_dropped_total",
            "Frames that the aggregator dropped on purpose: `duplicate` (at or below the mark), `fenced` (older session), `gap` (a predecessor is missing; it comes again), `implausible` (no reader of the stream can have sent it), `unknown` (stream not registered).",
            ["reason"],
            registry=r,
        )
        self.updates: Final = Counter(
            "moodline_timeline_updates_total",
            "Atomic timeline updates, by result: `applied`, `stale` (another writer or a store that lost writes; reloaded), `gone`.",
            ["result"],
            registry=r,
        )
        self.rewinds: Final = Counter(
            "moodline_rewinds_total", "Times the aggregator went back on the bus to heal a gap or a stale state.", registry=r
        )
        self.retries: Final = Counter(
            "moodline_retries_total",
            "Attempts repeated because the bus or the store was unavailable, by worker and target.",
            ["worker", "target"],
            registry=r,
        )
        self.emotions: Final = Counter(
            "moodline_emotions_total",
            "Faces in timelines, by lane and the emotion that the classifier found likeliest.",
            ["lane", "emotion"],
            registry=r,
        )
        self.faces_unreadable: Final = Counter(
            "moodline_faces_unreadable_total",
            "Faces in timelines from which no expression is read, by lane and reason: `too_small` (below "
            "MOODLINE_DETECTOR_MIN_FACE_PX) or `quality` (below MOODLINE_AGGREGATOR_MIN_QUALITY).",
            ["lane", "reason"],
            registry=r,
        )
        self.streams: Final = Gauge("moodline_streams", "Streams that this ingest worker reads, by state.", ["state"], registry=r)
        self.cameras: Final = Gauge(
            "moodline_cameras", "Cameras that this ingest worker is to read; paused ones are not among them.", registry=r
        )
        self.cameras_down: Final = Gauge(
            "moodline_cameras_down",
            "Cameras that this ingest worker is to read and gets nothing from: backing off, stalled or failed.",
            registry=r,
        )
        self.timeline_behind_seconds: Final = Gauge(
            "moodline_timeline_behind_seconds",
            "How far the worst timeline is behind its camera's newest frame, in s, among the live cameras of this ingest worker.",
            registry=r,
        )
        self.reader_restarts: Final = Counter(
            "moodline_reader_restarts_total", "Readers started again, by cause.", ["cause"], registry=r
        )
        self.files_ended: Final = Counter(
            "moodline_files_ended_total",
            "Files that were read to their end: `whole`, `truncated` (cut, or still being written) or `corrupt` (damaged frames).",
            ["ending"],
            registry=r,
        )
        self.file_damaged_frames: Final = Counter(
            "moodline_file_damaged_frames_total",
            "Frames of files that were read to their end: shown damaged by the decoder (`corrupt`), or not given by it (`lost`).",
            ["kind"],
            registry=r,
        )
        self.reader_crashes: Final = Counter(
            "moodline_reader_crashes_total",
            "Readers that ended by a defect of Moodline or a library, of files (`file`) and cameras (`live`).",
            ["lane"],
            registry=r,
        )
        self.camera_connections: Final = Counter(
            "moodline_camera_connections_total",
            "Connections to cameras that came to be (`live`), or failed or ended, by reason.",
            ["result"],
            registry=r,
        )
        self.frames_ahead: Final = Counter(
            "moodline_frames_ahead_of_clock_total",
            "Live frames whose time on the timeline is more than 30 s ahead of this host's clock: it was set back, and timelines go on.",
            registry=r,
        )
        self.camera_packets: Final = Counter(
            "moodline_camera_packets_total", "Network packets, parts or segments that came from cameras.", registry=r
        )
        self.camera_packets_lost: Final = Counter(
            "moodline_camera_packets_lost_total", "Network packets of cameras that never came.", registry=r
        )
        self.pushed_streams: Final = Gauge(
            "moodline_pushed_streams", "Streams that this process takes pushed frames of.", registry=r
        )
        self.pushed_frames_refused: Final = Counter(
            "moodline_pushed_frames_refused_total", "Pushed frames that were refused, by error code.", ["code"], registry=r
        )
        self.upload_bytes: Final = Counter("moodline_upload_bytes_total", "Bytes of uploads that arrived.", registry=r)
        self.uploads: Final = Counter(
            "moodline_uploads_total", "Uploads, by `taken` or the error code of what was refused.", ["result"], registry=r
        )
        self.credit_wait_seconds: Final = Counter(
            "moodline_credit_wait_seconds_total", "Time readers waited for their timelines to catch up, in s.", registry=r
        )
        self.worker_up: Final = Gauge("moodline_worker_up", "1 while the worker's loop runs.", ["worker"], registry=r)
        self.alerts: Final = Counter(
            "moodline_alerts_total",
            "Alerts that began (`firing`) or ended (`resolved`), by kind of event and reason.",
            ["kind", "reason"],
            registry=r,
        )
        self.webhooks: Final = Counter(
            "moodline_webhooks_total",
            "Attempts to deliver a webhook, by outcome: `delivered`, `retry` (failed, tried again later), `failed` (given up).",
            ["outcome"],
            registry=r,
        )
        self.mqtt_messages: Final = Counter(
            "moodline_mqtt_messages_total",
            "MQTT messages, by outcome: `published`, `dropped` (the broker was away; what is retained is published when it is back).",
            ["outcome"],
            registry=r,
        )
        self.mqtt_connected: Final = Gauge(
            "moodline_mqtt_connected", "1 while this process is connected to the MQTT broker.", registry=r
        )
        self.alerts_evaluating: Final = Gauge("moodline_alerts_judging", "1 while this process judges alert rules.", registry=r)
        self.http_seconds: Final = Histogram(
            "moodline_http_request_seconds",
            "Time to answer an API request, in s, by route template, method and status class.",
            ["route", "method", "status"],
            buckets=_LATENCY_BUCKETS_S,
            registry=r,
        )
        self.connections_refused: Final = Counter(
            "moodline_connections_refused_total",
            "Connections to the API that were closed by its limits: `full`, `address` (too many of one), `crowded_out` (waited longest for its request while there was no room), `head` (no whole request in time), `rest` (an answered request went on), `reader` (took nothing of its answer), `fragments`.",
            ["reason"],
            registry=r,
        )
        self.keys_refused: Final = Counter(
            "moodline_keys_refused_total", "Requests with a key or session that is not known, removed or over.", registry=r
        )

        self.of_streams: Final = StreamMetrics(r, stream_limit)
        ProcessCollector(registry=r)

    def begin_at_zero(self, worker: str) -> None:
        """Show a worker's counters before they count: a rate needs a value before the first event."""
        for lane in StreamClass:
            self.frames.labels(worker, lane)
            for skip in DropReason:
                self.frames_skipped.labels(worker, lane, skip)
        for target in ("bus", "store"):
            self.retries.labels(worker, target)
        for reason in DEAD_LETTER_REASONS:
            self.dead_letters.labels(worker, reason)
        if worker == "aggregator":
            for result in ("applied", "stale", "gone"):
                self.updates.labels(result)
            for lane in StreamClass:
                for emotion in EMOTIONS:
                    self.emotions.labels(lane, emotion)
                for reason in ("too_small", "quality"):
                    self.faces_unreadable.labels(lane, reason)

    def exposition(self) -> bytes:
        """Return all metrics in Prometheus' text format."""
        return generate_latest(self.registry)
