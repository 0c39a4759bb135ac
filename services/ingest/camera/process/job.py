"""The work of one camera's process after the fork: read, sample, hand over. It ends when the worker closes the link.

Three threads: the main one reads frames as fast as the camera sends, and puts sampled ones into a slot; one converts, encodes
and sends what is newest there; one waits for the worker to close its end, and ends the process, whatever the others do.
Nothing is logged or printed here: what there is to say goes over the socket.
"""

import os
import socket
import threading
import time
from collections import deque
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Final, NoReturn

import msgspec

from moodline.services.ingest.camera.input.egress import Egress
from moodline.services.ingest.camera.input.frames import LiveFrame, LiveLimits, LiveSource
from moodline.services.ingest.camera.sources.open import LiveOpener, open_live
from moodline.services.ingest.live.capture_clock import CaptureClock, Placed
from moodline.services.ingest.live.latest import LatestSlot
from moodline.services.ingest.live.records import Failed, Job, Opened, Sample, Stats
from moodline.services.ingest.media.encode import encode_jpeg, reduce_image
from moodline.services.ingest.media.frames import BgrImage
from moodline.services.ingest.media.sampling import Sampler
from moodline.services.ingest.process.channel import Channel, ChannelClosedError, ChannelError
from moodline.services.ingest.process.fate import EXIT_MEMORY
from moodline.services.ingest.process.limits import end_with, limit_memory
from moodline.services.ingest.stream.crashes import place_of
from moodline.shared.camera import CameraAddress
from moodline.shared.errors import ImageError, SourceError
from moodline.shared.messages import DropReason
from moodline.shared.streams import FailureReason

JobOpener = Callable[[Job], LiveSource]
"""Connects to the camera of a job and decodes its first frame. Raises `SourceError`."""

STATS_S: Final = 1.0
SKIPS_LIMIT: Final = 1000
_LATE_US: Final = 500_000
"""Less than this is the jitter of a network."""

_FPS_OVER: Final = 4
"""Statistics between which the frame rate is measured; about as many seconds."""


def open_job(job: Job, opener: LiveOpener = open_live) -> LiveSource:
    """Connect to a job's camera, under its address policy. Raises `SourceError`."""
    return opener(*parts_of(job))


def parts_of(job: Job) -> tuple[CameraAddress, Egress, LiveLimits]:
    """Return where a job's camera is, what judges and opens its connections, and its time-outs and size."""
    from moodline.services.ingest.camera.input.egress import PolicyEgress
    from moodline.shared.net_policy import net_policy_of

    policy = net_policy_of(job.schemes, job.allow_loopback, job.allow_networks, job.deny_networks)
    address = CameraAddress(
        scheme=job.scheme,
        host=job.host,
        port=job.port,
        target=job.target,
        username=job.username,
        password=job.password,
        transport=job.transport,
        tls_verify=job.tls_verify,
    )
    egress = PolicyEgress(policy, ca_file=None if job.tls_ca_file is None else Path(job.tls_ca_file))
    limits = LiveLimits(job.open_timeout_s, job.read_timeout_s, job.max_pixels, job.first_frame_timeout_s)
    return address, egress, limits


def run_camera(connected: socket.socket, open_camera: JobOpener = open_job) -> NoReturn:
    """Take the job from the socket, read its camera until that ends or the worker closes the socket; then end the process."""
    channel = Channel(connected, Job)
    try:
        job = channel.receive(None)
    except (ChannelClosedError, ChannelError):
        os._exit(0)
    assert job is not None  # without a time-out there is no None
    limit_memory(job.memory_bytes)
    threading.Thread(target=end_with, args=(channel,), name="control", daemon=True).start()
    _supervised(channel, lambda: CameraTask(job, channel).run(open_camera))
    # The worker takes what was said, and closes. Not waiting for that could cost it the last record.
    os._exit(0)


def _supervised(channel: Channel[Job], work: Callable[[], None]) -> None:
    """Run the work of a thread; whatever ends it early ends the process, and the worker is told if that is possible."""
    try:
        work()
    except ChannelClosedError:
        os._exit(0)
    except MemoryError:
        os._exit(EXIT_MEMORY)
    except BaseException as error:  # noqa: BLE001  # the process ends here; there is nobody above
        _give_up(channel, error)


def _give_up(channel: Channel[Job], error: BaseException) -> NoReturn:
    try:
        # Type and place only: a message may hold the address or the password.
        channel.send(Failed(reason=FailureReason.INTERNAL, detail=place_of(error)))
    except MemoryError:
        os._exit(EXIT_MEMORY)
    finally:
        os._exit(0)


class _Pending:
    """A sampled frame that waits to be sent."""

    def __init__(self, frame: LiveFrame, placed: Placed) -> None:
        self.event_time_us = placed.event_time_us
        # What the network or the camera held back is as old as it is, although it has only just arrived.
        late_us = placed.late_us if placed.late_us >= _LATE_US else 0
        self.captured_at_us = round(frame.arrived_s * 1e6) - late_us
        self.segment = placed.segment
        self.outlives_next = frame.outlives_next
        self._to_bgr: Callable[[], BgrImage] | None = frame.to_bgr
        self._image: BgrImage | None = None
        self._lock = threading.Lock()

    def image(self) -> BgrImage | None:
        """Return the converted picture; None when it cannot be converted. Converts once."""
        with self._lock:
            if self._to_bgr is not None:
                to_bgr, self._to_bgr = self._to_bgr, None
                try:
                    self._image = to_bgr()
                except ImageError:
                    self._image = None
            return self._image

    def release(self) -> None:
        """Let go of the picture."""
        with self._lock:
            self._to_bgr = self._image = None

    def skipped(self, skip: DropReason) -> Sample:
        """Return the record that says why there is no picture."""
        return Sample(event_time_us=self.event_time_us, captured_at_us=self.captured_at_us, segment=self.segment, skip=skip)


class CameraTask:
    """Reads one camera and sends what comes of it."""

    def __init__(self, job: Job, channel: Channel[Job]) -> None:
        self._job = job
        self._channel = channel
        self._slot: LatestSlot[_Pending] = LatestSlot(SKIPS_LIMIT)
        self._clock = CaptureClock(job.clock_tolerance_s, job.not_before_us)
        self._sampler = Sampler(job.sample_fps)
        self._source: LiveSource | None = None
        self._failure: Failed | None = None
        self._frames = 0
        self._last_frame_us = 0
        self._size = (0, 0)
        self._rate: deque[tuple[float, int]] = deque(maxlen=_FPS_OVER)

    def run(self, open_camera: JobOpener) -> None:
        """Read until the connection is over and the worker has been told. Raises `ChannelClosedError`, `MemoryError`."""
        try:
            self._source = source = open_camera(self._job)
        except SourceError as error:
            self._channel.send(Failed(reason=FailureReason(error.reason), detail=str(error)))
            return
        info = source.info
        fps = "" if info.fps is None else str(info.fps)
        self._channel.send(Opened(codec=info.codec, width=info.width, height=info.height, fps=fps))
        sender = threading.Thread(target=lambda: _supervised(self._channel, self._send_all), name="sender", daemon=True)
        sender.start()
        self._failure = self._read(source)
        self._slot.close()
        sender.join()
        source.close()

    def _read(self, source: LiveSource) -> Failed:
        """Take frames until the connection is over; returns why it is."""
        before: _Pending | None = None
        try:
            for frame in source.frames():
                pending = self._take(frame)
                # Asking for the next frame makes the picture of the one before this one invalid.
                if before is not None and not before.outlives_next:
                    before.image()
                before = pending
        except SourceError as error:
            return Failed(reason=FailureReason(error.reason), detail=str(error))
        return Failed(reason=FailureReason.UNREACHABLE, detail="the camera ended the stream")

    def _take(self, frame: LiveFrame) -> _Pending | None:
        """Give a frame its place in time, and put it into the slot when it is sampled."""
        placed = self._clock.place(frame.media_s, frame.arrived_s, frame.camera_s)
        if not frame.is_overloaded:
            self._frames += 1
            self._last_frame_us = round(frame.arrived_s * 1e6)
            self._size = (frame.width, frame.height)
        if not self._sampler.take(Fraction(placed.event_time_us, 1_000_000)):
            return None
        pending = _Pending(frame, placed)
        if frame.is_overloaded:
            self._slot.put_replaced(pending)
            return None
        replaced = self._slot.put(pending)
        if replaced is not None:
            replaced.release()
        return pending

    def _send_all(self) -> None:
        """Send what is in the slot and, each second, the statistics; at the end why it is the end."""
        stats_at_s = time.monotonic()
        while not self._slot.is_done:
            taken = self._slot.take(max(0.0, stats_at_s - time.monotonic()))
            for index, pending in enumerate(taken.replaced):
                skipped = pending.skipped(DropReason.OVERLOADED)
                self._channel.send(skipped if index else msgspec.structs.replace(skipped, missed=taken.forgotten))
            if taken.newest is not None:
                self._channel.send(self._encoded(taken.newest))
                taken.newest.release()
            if time.monotonic() >= stats_at_s:
                self._channel.send(self._stats())
                stats_at_s = time.monotonic() + STATS_S
        self._channel.send(self._stats())
        if self._failure is not None:
            self._channel.send(self._failure)

    def _encoded(self, pending: _Pending) -> Sample:
        image = pending.image()
        if image is None:
            return pending.skipped(DropReason.CORRUPT)
        try:
            reduced = reduce_image(image, self._job.max_side_px)
            jpeg = encode_jpeg(reduced, self._job.jpeg_quality)
        except ImageError:
            return pending.skipped(DropReason.CORRUPT)
        height, width = reduced.shape[:2]
        return Sample(
            event_time_us=pending.event_time_us,
            captured_at_us=pending.captured_at_us,
            segment=pending.segment,
            width=width,
            height=height,
            jpeg=jpeg,
        )

    def _stats(self) -> Stats:
        assert self._source is not None  # the sender starts after it was opened
        counts, (width, height) = self._source.counts, self._size
        now = (time.monotonic(), self._frames)
        since = self._rate[0] if self._rate else now
        self._rate.append(now)
        elapsed_s = now[0] - since[0]
        return Stats(
            decoded=counts.decoded,
            damaged=counts.damaged,
            packets=counts.packets,
            lost_packets=counts.lost_packets,
            last_frame_us=self._last_frame_us,
            fps=(now[1] - since[1]) / elapsed_s if elapsed_s > 0 else 0.0,
            width=width,
            height=height,
            clock_offset_ms=self._clock.offset_ms,
            overloaded=counts.overloaded,
        )
