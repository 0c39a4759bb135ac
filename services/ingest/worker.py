"""The ingest worker: which streams this process reads, and the threads that read them.

Which worker reads which stream is decided by the bus's group membership: the partitions of `moodline.streams.v1` are shards,
and a stream belongs to the shard of its id. The worker compares, twice a second, what the registry says about its shards with
the readers that run, and starts and stops readers accordingly. Nothing needs to be handed over between workers: every reader
acquires its stream, which fences the one before, and goes on after the timeline's high-water mark.

A reader that fails takes down only itself. While the store is unavailable readers go on as far as their credit goes.
"""

import logging
import os
import threading
import time
from collections.abc import Callable, Collection, Mapping
from typing import Final, Protocol

import msgspec

from moodline.services.ingest.abandoned import settle_abandoned
from moodline.services.ingest.camera.reader import CameraParts, CameraThread, Link
from moodline.services.ingest.file.open import SourceOpener, open_source
from moodline.services.ingest.file.process import FileProcesses
from moodline.services.ingest.file.progress_watch import ProgressWatch
from moodline.services.ingest.file.reader import ReaderParts
from moodline.services.ingest.file.reader_thread import ReaderThread
from moodline.services.ingest.live.records import Job
from moodline.services.ingest.owned_streams import OwnedStreams
from moodline.services.ingest.partition_count import PartitionCount
from moodline.services.ingest.stream import WORKER
from moodline.services.ingest.stream.gauges import StreamGauges
from moodline.services.ingest.stream.outcome import Outcome
from moodline.services.ingest.stream.plan import DesiredState, content_of
from moodline.services.ingest.stream.standstill import STANDSTILL_S, Uncommitted, WaitingPlace
from moodline.services.ingest.stream.thread import StreamThread
from moodline.shared.bus import Consumer, Producer, partition_for
from moodline.shared.camera import CameraAddress
from moodline.shared.clock import Clock
from moodline.shared.errors import BusError, BusUnavailableError, StoreError, StreamNotFoundError
from moodline.shared.messages import STREAMS_TOPIC, StreamClass
from moodline.shared.metrics import Metrics
from moodline.shared.pipeline.health import Health
from moodline.shared.settings import IngestSettings
from moodline.shared.store import Store
from moodline.shared.streams import StreamSpec, StreamState, StreamStatus

log = logging.getLogger("moodline.ingest")

READERS_PER_CORE: Final = 2
"""Files that are decoded at the same time, per core; the others wait their turn."""

_POLL_S: Final = 0.1
_STOP_S: Final = 1.5
_FLUSH_S: Final = 1.0
_RETRY_S: Final = 0.5
_REST_S: Final = 2.0
"""How long a stream that another epoch took is left alone: this worker's shards may just have moved."""


class CameraOpener(Protocol):
    """Opens cameras; see `moodline.services.ingest.camera.cameras.Cameras`."""

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
        count_shards: Callable[[], int] | None = None,
        source_opener: SourceOpener = open_source,
        cameras: CameraOpener | None = None,
        pushed_silence_s: float = 60.0,
        uncommitted: Uncommitted | None = None,
        health: Health | None = None,
        files: FileProcesses | None = None,
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
            count_shards: Asks for that number again, now and then. Without it the number is taken not to change.
            source_opener: Opens the source that a file's URL names.
            cameras: Opens cameras; closed at the end of `run`. Without it live streams are left alone.
            pushed_silence_s: A pushed stream without a frame for longer, whose process has died, is made `pending`.
            uncommitted: Tells what a worker has left to do, to say where frames wait. Without it nobody knows.
            files: Starts a process for each file; closed at the end of `run`. Without it files are read in this process.
            health: Told of every turn of the loop.
        """
        self._health = health or Health(metrics, clock)
        self._consumer = consumer
        self._producer = producer
        self._store = store
        self._settings = settings
        self._metrics = metrics
        self._clock = clock
        self._shards = PartitionCount(shards, count_shards, clock)
        self._watch = ProgressWatch(store, metrics, clock)
        self._place = WaitingPlace(uncommitted, clock, shards)
        self._parts = ReaderParts(
            producer, store, settings, metrics, clock, self._watch, source_opener, files, waiting=self._place.sentence
        )
        self._cameras = cameras
        self._files = files
        if files is not None:
            files.prepare()
        self._pushed_silence_s = pushed_silence_s
        self._camera_parts: CameraParts | None = None
        if cameras is not None:
            self._camera_parts = CameraParts(producer, store, settings, metrics, clock, cameras.open, cameras.address_of)
        self._slots = READERS_PER_CORE * (len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1)
        self._owned: frozenset[int] = frozenset()
        self._streams = OwnedStreams(store, clock, self._is_mine)
        self._readers: dict[str, StreamThread] = {}
        self._queue: dict[str, StreamSpec] = {}
        self._resting: dict[str, float] = {}
        self._gauges = StreamGauges(metrics, clock)
        metrics.begin_at_zero(WORKER)
        self._moved = False
        self._doubtful: set[str] = set()
        for lane in StreamClass:
            metrics.reader_crashes.labels(lane)
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
            self._health.ended(WORKER)
            self._shut_down()
            log.info("worker.stopped", extra={"worker": WORKER})

    def step(self, stop: threading.Event) -> None:
        """Do one turn of the loop: look after the membership, and compare streams and readers when that is due."""
        if not self._watch.is_alive():
            raise RuntimeError("the thread that watches timelines has died; see the log")
        try:
            self._consumer.poll(100, min(_POLL_S, self._settings.reconcile_s))
            self._recovered("bus")
            if not self._troubles:
                self._health.turned(WORKER)
        except BusUnavailableError as error:
            self._trouble("bus", error, stop)
        owned = frozenset(shard for name, shard in self._consumer.assignment() if name == STREAMS_TOPIC)
        if self._shards.poll():
            self._place.partitions = self._shards.value
            self._moved, self._due_s = True, float("-inf")
        if owned == self._owned and self._clock.monotonic_s() < self._due_s:
            return
        moved, self._owned = owned != self._owned, owned
        self._health.standing(WORKER, self._consumer.standing())
        self._metrics.partitions.labels(WORKER, STREAMS_TOPIC).set(len(owned))
        try:
            self._reconcile(moved=moved)
            self._recovered("store")
        except StoreError as error:
            self._trouble("store", error, stop)
        self._due_s = self._clock.monotonic_s() + self._settings.reconcile_s

    def _reconcile(self, *, moved: bool) -> None:
        """Compare what the registry wants with the readers that run, and make it so."""
        streams = self._streams
        self._moved |= moved
        streams.refresh(moved=self._moved)
        self._moved = False
        settle_abandoned(self._store, streams.pushed_in_pass(), self._clock.now_s(), self._pushed_silence_s)
        self._doubtful.update(self._reap(), self._rested())
        found = streams.poll(self._doubtful)
        self._doubtful.clear()
        self._stop_readers([reader for reader in self._readers.values() if not _still_right(reader, streams.wanted)])
        self._start_readers(streams.wanted)
        for name, (status, _) in found.items():
            if streams.desired[name] is DesiredState.PAUSE:
                self._mark(streams.specs[name], StreamState.PAUSED, status)
            elif name in self._queue:
                self._mark(streams.specs[name], StreamState.PENDING, status)
        self._gauges.show(streams.specs, found)
        for name in found.keys() & self._readers.keys():
            still_s = self._gauges.behind_s(name)
            is_still = still_s >= STANDSTILL_S
            sentence = self._place.sentence(name, StreamClass.LIVE, still_s) if is_still else ""
            self._readers[name].timeline_stands(sentence)

    def _is_mine(self, spec: StreamSpec) -> bool:
        is_readable = spec.lane is StreamClass.FILE or self._camera_parts is not None
        return is_readable and partition_for(spec.stream_id.encode(), self._shards.value) in self._owned

    def _rested(self) -> list[str]:
        """Return the streams whose rest is over, and end it."""
        now_s = self._clock.monotonic_s()
        over = [name for name, until_s in self._resting.items() if until_s <= now_s]
        for name in over:
            del self._resting[name]
        return over

    def _start_readers(self, wanted: dict[str, StreamSpec]) -> None:
        """Start readers for streams without one, first come, first served, as far as there are slots."""
        waiting = {name: spec for name, spec in wanted.items() if name not in self._readers and name not in self._resting}
        # Those that waited before keep their places.
        self._queue = {name: waiting[name] for name in (*self._queue, *waiting) if name in waiting}
        free = self._slots - sum(reader.is_decoding for reader in self._readers.values())
        files = [name for name, spec in self._queue.items() if spec.lane is StreamClass.FILE][: max(0, free)]
        # A camera waits for nobody.
        cameras = [name for name, spec in self._queue.items() if spec.lane is StreamClass.LIVE]
        for name in (*cameras, *files):
            reader = self._readers[name] = self._new_reader(self._queue.pop(name))
            reader.start()

    def _new_reader(self, spec: StreamSpec) -> StreamThread:
        if spec.lane is StreamClass.LIVE:
            assert self._camera_parts is not None
            return CameraThread(spec, self._camera_parts)
        return ReaderThread(spec, self._parts)

    def _stop_readers(self, readers: Collection[StreamThread]) -> None:
        """Stop readers, all at the same time. One that does not stop in time is left behind: the next acquisition fences it."""
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

    def _reap(self) -> list[str]:
        """Forget the readers that are done; return their streams."""
        done = []
        for stream_id, reader in list(self._readers.items()):
            if reader.is_alive:
                continue
            del self._readers[stream_id]
            done.append(stream_id)
            if reader.outcome in (Outcome.FENCED, Outcome.GONE):
                log.info("reader.gave_way", extra={"stream_id": stream_id, "outcome": reader.outcome})
                self._resting[stream_id] = self._clock.monotonic_s() + _REST_S
        return done

    def _mark(self, spec: StreamSpec, state: StreamState, status: StreamStatus) -> None:
        """Say what holds for a stream that nobody reads, under a new acquisition: whoever read it before is fenced."""
        if status.state is state and status.attempt == spec.attempt:
            return
        now_s = self._clock.now_s()
        try:
            epoch = self._store.acquire(spec.stream_id, now_s).epoch
        except StreamNotFoundError:
            return
        since_us = int(now_s * 1e6)
        reported = msgspec.structs.replace(status, state=state, attempt=spec.attempt, reason=None, detail="", since_us=since_us)
        self._store.set_status(spec.stream_id, epoch, reported)

    def _trouble(self, target: str, error: Exception, stop: threading.Event) -> None:
        self._metrics.retries.labels(WORKER, target).inc()
        if target not in self._troubles:
            log.warning("worker.out_of_reach", extra={"worker": WORKER, "target": target, "reason": str(error)})
        self._troubles.add(target)
        self._health.waits(WORKER, f"{target}: {error}")
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
        if self._files is not None:
            self._files.close()
        try:
            self._producer.flush(_FLUSH_S)
        except BusError as error:
            # Nothing is lost by this: what did not arrive is read again by the next acquisition.
            log.warning("worker.flush_failed", extra={"worker": WORKER, "reason": str(error)})
        self._consumer.close()


def _still_right(reader: StreamThread, wanted: Mapping[str, StreamSpec]) -> bool:
    spec = wanted.get(reader.spec.stream_id)
    return spec is not None and (spec is reader.spec or content_of(spec) == content_of(reader.spec))
