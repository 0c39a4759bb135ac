"""The ingest worker: which streams this process reads, and the threads that read them.

Which worker reads which stream is decided by the bus's group membership: the partitions of `moodline.streams.v1` are shards,
and a stream belongs to the shard of its id. The worker compares, twice a second, what the registry says about its shards with
the readers that run, and starts and stops readers accordingly. Nothing needs to be handed over between workers: every reader
claims its stream, which fences the one before, and goes on after the timeline's mark.

A reader that fails takes down only itself. While the store is out of reach readers go on as far as their credit goes.
"""

import logging
import os
import threading
import time
from collections.abc import Collection, Mapping
from typing import Final, Protocol

import msgspec

from moodline.services.ingest.abandoned import settle_abandoned
from moodline.services.ingest.camera.reader import CameraParts, CameraThread, Link
from moodline.services.ingest.file.open import SourceOpener, open_source
from moodline.services.ingest.file.progress_watch import ProgressWatch
from moodline.services.ingest.file.reader import ReaderParts
from moodline.services.ingest.file.reader_thread import ReaderThread
from moodline.services.ingest.live.records import Job
from moodline.services.ingest.stream import WORKER
from moodline.services.ingest.stream.gauges import StreamGauges
from moodline.services.ingest.stream.outcome import Outcome
from moodline.services.ingest.stream.plan import Wish, content_of, wish_for
from moodline.services.ingest.stream.thread import StreamThread
from moodline.shared.bus import Consumer, Producer, partition_for
from moodline.shared.camera import CameraAddress
from moodline.shared.clock import Clock
from moodline.shared.errors import BusError, BusUnavailableError, StoreUnavailableError, StreamNotFoundError
from moodline.shared.messages import STREAMS_TOPIC, Lane
from moodline.shared.metrics import Metrics
from moodline.shared.settings import IngestSettings
from moodline.shared.store import Store
from moodline.shared.streams import StreamSpec, StreamState, StreamStatus, is_pushed

log = logging.getLogger("moodline.ingest")

READERS_PER_CORE: Final = 2
"""Files that are decoded at the same time, per core; the others wait their turn."""

_POLL_S: Final = 0.1
_STOP_S: Final = 1.5
_FLUSH_S: Final = 1.0
_RETRY_S: Final = 0.5
_REST_S: Final = 2.0
"""How long a stream that another session took is left alone: this worker's shards may just have moved."""
_FULL_EVERY: Final = 10
"""Streams that have ended or failed are looked at only every so many passes, or when the registry changes."""


class CameraOpener(Protocol):
    """What reading cameras takes; see `moodline.services.ingest.camera.cameras.Cameras`."""

    def open(self, job: Job) -> Link: ...

    def address_of(self, spec: StreamSpec) -> CameraAddress: ...

    def close(self) -> None: ...


class IngestWorker:
    """Reads the streams of the shards that this member of the group owns: files in slots, cameras all at once."""

    def __init__(  # noqa: PLR0913  # the composition root's seam: what it is built from, one by one
        self,
        consumer: Consumer,
        producer: Producer,
        store: Store,
        settings: IngestSettings,
        metrics: Metrics,
        clock: Clock,
        *,
        shards: int,
        source_opener: SourceOpener = open_source,
        cameras: CameraOpener | None = None,
        pushed_silence_s: float = 60.0,
    ) -> None:
        """Build the worker; nothing runs yet.

        Args:
            consumer: Subscribed to `STREAMS_TOPIC`; closed at the end of `run`.
            producer: Shared by all readers; not closed.
            store: Registry and progress.
            settings: How to read.
            metrics: Counters of this process.
            clock: Time.
            shards: Number of partitions of `STREAMS_TOPIC`.
            source_opener: Opens the source that a file's URL names.
            cameras: Opens cameras; closed at the end of `run`. Without it live streams are left alone.
            pushed_silence_s: A pushed stream without a frame for longer, whose process has died, is made `pending`.
        """
        self._consumer = consumer
        self._producer = producer
        self._store = store
        self._settings = settings
        self._metrics = metrics
        self._clock = clock
        self._shards = shards
        self._watch = ProgressWatch(store, metrics, clock)
        self._parts = ReaderParts(producer, store, settings, metrics, clock, self._watch, source_opener)
        self._cameras = cameras
        self._pushed_silence_s = pushed_silence_s
        self._camera_parts: CameraParts | None = None
        if cameras is not None:
            self._camera_parts = CameraParts(producer, store, settings, metrics, clock, cameras.open, cameras.address_of)
        self._slots = READERS_PER_CORE * (len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1)
        self._owned: frozenset[int] = frozenset()
        self._specs: dict[str, StreamSpec] = {}
        self._readers: dict[str, StreamThread] = {}
        self._queue: dict[str, StreamSpec] = {}
        self._resting: dict[str, float] = {}
        self._left: set[str] = set()
        self._gauges = StreamGauges(metrics, clock)
        metrics.begin_at_zero(WORKER)
        self._version: int | None = None
        self._passes = 0
        self._due_s = 0.0
        self._troubles: set[str] = set()

    def run(self, stop: threading.Event) -> None:
        """Work until `stop` is set. Blocks; stops its readers and leaves the group at the end, within some 2 s.

        Raises:
            BusError: the bus is beyond repair.
        """
        log.info("worker.started", extra={"worker": WORKER})
        self._metrics.worker_up.labels(WORKER).set(1)
        self._watch.start()
        try:
            while not stop.is_set():
                self.step(stop)
        finally:
            self._metrics.worker_up.labels(WORKER).set(0)
            self._shut_down()
            log.info("worker.stopped", extra={"worker": WORKER})

    def step(self, stop: threading.Event) -> None:
        """Do one turn of the loop: look after the membership, and compare streams and readers when that is due."""
        if not self._watch.is_alive():
            raise RuntimeError("the thread that watches timelines has died; see the log")
        try:
            self._consumer.poll(100, min(_POLL_S, self._settings.reconcile_s))
            self._recovered("bus")
        except BusUnavailableError as error:
            self._trouble("bus", error, stop)
        owned = frozenset(shard for name, shard in self._consumer.assignment() if name == STREAMS_TOPIC)
        if owned == self._owned and self._clock.monotonic_s() < self._due_s:
            return
        moved, self._owned = owned != self._owned, owned
        self._metrics.partitions.labels(WORKER, STREAMS_TOPIC).set(len(owned))
        try:
            self._reconcile(full=moved)
            self._recovered("store")
        except StoreUnavailableError as error:
            self._version = None
            self._trouble("store", error, stop)
        self._due_s = self._clock.monotonic_s() + self._settings.reconcile_s

    def _reconcile(self, *, full: bool) -> None:
        """Compare what the registry wants with the readers that run, and make it so."""
        self._refresh(full=full)
        self._reap()
        specs = [spec for spec in self._specs.values() if spec.stream_id not in self._left]
        ids = [spec.stream_id for spec in specs]
        progress, statuses = self._store.load(ids), dict(zip(ids, self._store.statuses(ids), strict=True))
        wishes = {
            spec.stream_id: wish_for(spec, statuses[spec.stream_id], stands) for spec, stands in zip(specs, progress, strict=True)
        }
        wanted = {spec.stream_id: spec for spec in specs if wishes[spec.stream_id] is Wish.READ}
        self._left.update(name for name, wish in wishes.items() if wish is Wish.LEAVE)
        self._stop_readers([reader for reader in self._readers.values() if not _still_right(reader, wanted)])
        self._start_readers(wanted)
        for spec in specs:
            if wishes[spec.stream_id] is Wish.PAUSE:
                self._mark(spec, StreamState.PAUSED, statuses[spec.stream_id])
            elif spec.stream_id in self._queue:
                self._mark(spec, StreamState.PENDING, statuses[spec.stream_id])
        self._gauges.show(self._specs, statuses, zip(specs, progress, strict=True))

    def _refresh(self, *, full: bool) -> None:
        version = self._store.version()
        if full or version != self._version or self._passes % _FULL_EVERY == 0:
            mine = sorted(self._mine(), key=lambda spec: (spec.created_at_us, spec.stream_id))
            # Whoever gets the frames of a pushed stream claims it.
            self._specs = {spec.stream_id: spec for spec in mine if not is_pushed(spec.url)}
            pushed = [spec for spec in mine if is_pushed(spec.url)]
            settle_abandoned(self._store, pushed, self._clock.now_s(), self._pushed_silence_s)
            self._left.clear()
            self._version = version
        self._passes += 1

    def _mine(self) -> list[StreamSpec]:
        return [
            spec
            for spec in self._store.list_streams()
            if (spec.lane is Lane.FILE or self._camera_parts)
            and partition_for(spec.stream_id.encode(), self._shards) in self._owned
        ]

    def _start_readers(self, wanted: dict[str, StreamSpec]) -> None:
        """Start readers for streams without one, first come, first served, as far as there are slots."""
        now_s = self._clock.monotonic_s()
        self._resting = {stream_id: until_s for stream_id, until_s in self._resting.items() if until_s > now_s}
        waiting = {name: spec for name, spec in wanted.items() if name not in self._readers and name not in self._resting}
        # Those that waited before keep their places.
        self._queue = {name: waiting[name] for name in (*self._queue, *waiting) if name in waiting}
        free = self._slots - sum(reader.is_decoding for reader in self._readers.values())
        files = [name for name, spec in self._queue.items() if spec.lane is Lane.FILE][: max(0, free)]
        # A camera waits for nobody.
        cameras = [name for name, spec in self._queue.items() if spec.lane is Lane.LIVE]
        for name in (*cameras, *files):
            reader = self._readers[name] = self._new_reader(self._queue.pop(name))
            reader.start()

    def _new_reader(self, spec: StreamSpec) -> StreamThread:
        if spec.lane is Lane.LIVE:
            assert self._camera_parts is not None
            return CameraThread(spec, self._camera_parts)
        return ReaderThread(spec, self._parts)

    def _stop_readers(self, readers: Collection[StreamThread]) -> None:
        """Stop readers, all at the same time. One that does not stop in time is left behind: the next claim fences it."""
        if not readers:
            return
        for reader in readers:
            reader.stop()
        self._watch.wake()
        deadline_s = time.monotonic() + _STOP_S
        for reader in readers:
            if not reader.join(max(0.0, deadline_s - time.monotonic())):
                log.warning("reader.left_behind", extra={"stream_id": reader.spec.stream_id})
            self._readers.pop(reader.spec.stream_id, None)

    def _reap(self) -> None:
        for stream_id, reader in list(self._readers.items()):
            if reader.is_alive:
                continue
            del self._readers[stream_id]
            if reader.outcome in (Outcome.FENCED, Outcome.GONE):
                log.info("reader.gave_way", extra={"stream_id": stream_id, "outcome": reader.outcome})
                self._resting[stream_id] = self._clock.monotonic_s() + _REST_S

    def _mark(self, spec: StreamSpec, state: StreamState, status: StreamStatus) -> None:
        """Say what holds for a stream that nobody reads, under a new claim: whoever read it before is fenced."""
        if status.state is state and status.attempt == spec.attempt:
            return
        now_s = self._clock.now_s()
        try:
            session = self._store.claim(spec.stream_id, now_s).session
        except StreamNotFoundError:
            return
        since_us = int(now_s * 1e6)
        said = msgspec.structs.replace(status, state=state, attempt=spec.attempt, reason=None, detail="", since_us=since_us)
        self._store.set_status(spec.stream_id, session, said)

    def _trouble(self, target: str, error: Exception, stop: threading.Event) -> None:
        self._metrics.retries.labels(WORKER, target).inc()
        if target not in self._troubles:
            log.warning("worker.out_of_reach", extra={"worker": WORKER, "target": target, "reason": str(error)})
        self._troubles.add(target)
        stop.wait(_RETRY_S)

    def _recovered(self, target: str) -> None:
        if target in self._troubles:
            log.info("worker.back", extra={"worker": WORKER, "target": target})
        self._troubles.discard(target)

    def _shut_down(self) -> None:
        self._stop_readers(list(self._readers.values()))
        self._gauges.forget_all()
        self._watch.close()
        if self._cameras is not None:
            self._cameras.close()
        try:
            self._producer.flush(_FLUSH_S)
        except BusError as error:
            # Nothing is lost by this: what did not arrive is read again by the next claim.
            log.warning("worker.flush_failed", extra={"worker": WORKER, "reason": str(error)})
        self._consumer.close()


def _still_right(reader: StreamThread, wanted: Mapping[str, StreamSpec]) -> bool:
    spec = wanted.get(reader.spec.stream_id)
    return spec is not None and content_of(spec) == content_of(reader.spec)
