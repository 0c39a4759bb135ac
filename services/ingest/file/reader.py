"""Reading one file stream under one acquisition: decode, sample, wait for credit, encode, send.

Then the end, and wait for the rest.

A file is lossless: every sampled frame becomes exactly one message, in order, also when it cannot be encoded (then without a
picture). A reader is always ready to be stopped or killed: whoever acquires the stream next starts after the timeline's
high-water mark.
"""

import logging
import threading
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from typing import Final, NamedTuple

import msgspec

from moodline.services.ingest.file.credit import Credit
from moodline.services.ingest.file.open import SourceOpener
from moodline.services.ingest.file.patience import DOUBLINGS, Patience
from moodline.services.ingest.file.process import FileProcessError, FileProcesses
from moodline.services.ingest.file.progress_watch import Followed, ProgressWatch
from moodline.services.ingest.file.samples import FileSample, LocalSamples, Samples, Wanted
from moodline.services.ingest.media.frames import Ending
from moodline.services.ingest.stream import WORKER
from moodline.services.ingest.stream.outcome import Outcome
from moodline.services.ingest.stream.standstill import STANDSTILL_S, WaitingPlace
from moodline.services.ingest.stream.status_report import StatusReport
from moodline.shared.bus import Producer
from moodline.shared.clock import Clock, SystemClock
from moodline.shared.errors import (
    BusFullError,
    DeliveryError,
    InvalidStreamError,
    MoodlineError,
    NotDeliveredYetError,
    SourceError,
    StoreUnavailableError,
    StreamNotFoundError,
)
from moodline.shared.log import bind
from moodline.shared.messages import DropReason, End, Frame, PipelineStep, StreamClass, encode, stream_class_of, topic
from moodline.shared.metrics import Metrics
from moodline.shared.settings import IngestSettings
from moodline.shared.store import FrameFailure, HighWaterMark, ProgressStore
from moodline.shared.streams import FailureReason, StreamSpec, StreamState, StreamStatus, parse_sample_fps

log = logging.getLogger("moodline.ingest.reader")

_FLUSH_POLL_S: Final = 5.0
_TOPIC: Final = topic(PipelineStep.FRAMES, StreamClass.FILE)
_POLL_S: Final = 0.5
_DOUBT_S: Final = 1.0
"""After this long without progress the bus is asked whether it has everything, and the store whether a worker failed."""
_DEATHS: Final = 2
"""A file whose process dies so often before the same frame, by its own doing, ends there: once may be chance."""
_ENDS_FROM_OUTSIDE: Final = 4
_FAILURES_LIMIT: Final = 8
"""If more frames on their way have failed, the stage is broken and not the frames: none is left out."""


_ENDINGS: Final = frozenset({FailureReason.TRUNCATED, FailureReason.CORRUPT, FailureReason.TOO_LARGE, FailureReason.TIMEOUT})


class StalledError(MoodlineError):
    """The timeline stood still although everything was sent: the stream must be acquired and read again."""

    code = "stalled"


class BusFaultError(MoodlineError):
    """Another reader of this worker found that records were lost; some may have been this one's."""

    code = "bus_fault"


@dataclass(slots=True)
class BusFaults:
    """Counts how often the bus lost records of the producer that all readers of this worker share."""

    count: int = 0


@dataclass(frozen=True, slots=True)
class ReaderParts:
    """The objects that all readers of one worker share."""

    producer: Producer
    store: ProgressStore
    settings: IngestSettings
    metrics: Metrics
    clock: Clock
    watch: ProgressWatch
    open_source: SourceOpener
    files: FileProcesses | None = None
    """Starts a process for each file; without it they are read in this one."""
    faults: BusFaults = field(default_factory=BusFaults)
    waiting: Callable[[str, StreamClass, float], str] = WaitingPlace(None, SystemClock(), 1).sentence


class Finished(NamedTuple):
    """A content that was read to its end: sampled frames, length in microseconds, decoded frames, and how it ended."""

    seq: int
    end_us: int
    decoded: int
    ending: Ending


class _Halt(Exception):  # noqa: N818  # not an error: ends a reader from anywhere inside
    def __init__(self, outcome: Outcome) -> None:
        self.outcome = outcome


class FileReader:
    """Reads one file stream under one acquisition. Used once, by one thread."""

    def __init__(self, spec: StreamSpec, parts: ReaderParts, stop: threading.Event, patience: Patience) -> None:
        self.decoding = True
        self.report: StatusReport | None = None
        self._spec = spec
        self._key = spec.stream_id.encode()
        self._parts = parts
        self._stop = stop
        self._patience = patience
        self._faults_before = parts.faults.count
        self._epoch = 0
        self._next_seq = 0
        self._high_water_mark: HighWaterMark | None = None
        self._final = False
        self._ending = Ending()
        self._dropped: dict[int, FrameFailure] = {}

    @property
    def next_seq(self) -> int:
        """First sampled frame that was not in the timeline when the stream was acquired."""
        return self._next_seq

    def run(self) -> Outcome:
        """Read until the whole content is in the timeline. Blocks.

        Raises:
            StalledError, BusFaultError, BusError, StoreError: acquire the stream and read again.
        """
        try:
            self._acquire()
            with self._parts.watch.follow(self._spec.stream_id) as followed:
                self._followed = followed
                self._read_whole()
        except _Halt as halt:
            if halt.outcome is Outcome.STOPPED and self.report is not None:
                self.report.set_state(StreamState.PENDING)
            return halt.outcome
        except StreamNotFoundError:
            return Outcome.GONE
        except (SourceError, InvalidStreamError) as error:
            return self._fail(error)
        finally:
            self.decoding = False
        return Outcome.ENDED

    def _acquire(self) -> None:
        store, spec = self._parts.store, self._spec
        before = store.statuses([spec.stream_id])[0]
        acquisition = store.acquire(spec.stream_id, self._parts.clock.now_s())
        self._epoch, self._next_seq = acquisition.epoch, acquisition.next_seq
        bind(session=acquisition.epoch)
        self.report = StatusReport(store, self._parts.clock, spec, acquisition.epoch, before)
        if acquisition.final:
            self._set_state(StreamState.ENDED, *_told_of_end(before))
            raise _Halt(Outcome.ENDED)
        failures = self._failing(acquisition.next_seq)
        if len(failures) <= _FAILURES_LIMIT:
            self._dropped = {failure.seq: failure for failure in failures if failure.tries >= self._parts.settings.poison_tries}
        self._credit = Credit(acquisition.next_seq, self._parts.settings.credit_frames, self._parts.settings.credit_bytes)

    def _open(self) -> Samples:
        spec, parts = self._spec, self._parts
        wanted = Wanted(spec.sample_fps, spec.max_side_px, parts.settings.jpeg_quality, self._next_seq, frozenset(self._dropped))
        parse_sample_fps(spec.sample_fps)
        samples: Samples
        if parts.files is not None and spec.url.startswith(("file:", "sequence:")):
            samples = parts.files.open(spec.url, parts.settings, wanted, self._stop)
        else:
            samples = LocalSamples(parts.open_source(spec.url, parts.settings, self._stop.is_set), wanted)
        assert self.report is not None
        self.report.describe(samples.info)
        return samples

    def _read_whole(self) -> None:
        try:
            with closing(self._open()) as samples:
                self._read(samples)
        except FileProcessError as death:
            self._finish_dead(death)

    def _finish_dead(self, death: FileProcessError) -> None:
        """End the stream where its file's process dies again and again; what was sent before counts.

        Raises:
            FileProcessError: it is tried again.
            SourceError: nothing of the file can be read.
        """
        self._poll_progress()
        next_seq, is_its_doing = self._credit.next_seq, death.reason is not FailureReason.INTERNAL
        deaths = self._patience.die(next_seq)
        if deaths < (_DEATHS if is_its_doing else _ENDS_FROM_OUTSIDE):
            raise death
        if next_seq == 0 or not is_its_doing:
            raise SourceError(death.reason, str(death))
        end_us = self._patience.end_us
        ending = Ending(death.reason, f"{death}, after {end_us / 1e6:.1f} s; what was read until there counts")
        self._finish(Finished(next_seq, end_us, 0, ending))

    def _read(self, samples: Samples) -> None:
        if self._patience.is_at(self._next_seq):
            self._set_state(StreamState.STALLED, detail="the timeline stood still; the file is read again from there")
        else:
            self._set_state(StreamState.PLAYING, detail=self._dropped_text())
        log.info("stream.playing", extra={"stream_id": self._spec.stream_id, "from_seq": self._next_seq})
        metrics, decoded, damaged = self._parts.metrics, 0, 0
        for sample in samples.frames():
            metrics.frames_decoded.inc(samples.decoded - decoded)
            metrics.decode_errors.inc(samples.damaged - damaged)
            decoded, damaged = samples.decoded, samples.damaged
            self._poll_progress()
            if sample is not None:
                self._publish(sample)
        metrics.frames_decoded.inc(samples.decoded - decoded)
        metrics.decode_errors.inc(samples.damaged - damaged)
        # A source that was told to stop ends early: that is not the content's end.
        self._poll_progress()
        self._finish(Finished(max(samples.seq, self._next_seq), samples.end_us, samples.decoded, samples.ending))

    def _publish(self, sample: FileSample) -> None:
        if not self._credit.has_room():
            self._await_credit()
        message, picture = self._message(sample), sample.skip is None
        seq = sample.seq
        try:
            size = self._send(message)
        except DeliveryError:
            if not picture:
                raise
            log.warning("frame.too_large", extra={"stream_id": self._spec.stream_id, "seq": seq, "bytes": len(message.jpeg)})
            message = msgspec.structs.replace(message, jpeg=b"", skip=DropReason.CORRUPT)
            size = self._send(message)
        self._credit.sent(seq, size)
        self._patience.end_us = sample.at_us + sample.repeats_us
        metrics = self._parts.metrics
        metrics.frames.labels(WORKER, StreamClass.FILE).inc()
        if message.skip is not None:
            metrics.frames_skipped.labels(WORKER, StreamClass.FILE, message.skip).inc()
        assert self.report is not None
        if not self.report.count_frame():
            raise _Halt(Outcome.FENCED)

    def _message(self, sample: FileSample) -> Frame:
        if sample.skip is not None:
            is_dropped = sample.seq in self._dropped
            reason = self._dropped[sample.seq].dead_letter if is_dropped else sample.why
            fields = {"stream_id": self._spec.stream_id, "seq": sample.seq, "reason": reason}
            if is_dropped:
                log.warning("frame.left_out", extra=fields)
            else:
                log.warning("frame.corrupt", extra=fields)
        return Frame(
            stream_id=self._spec.stream_id,
            epoch=self._epoch,
            seq=sample.seq,
            event_time_us=self._spec.recorded_at_us + sample.at_us,
            captured_at_us=self._now_us(),
            lane=StreamClass.FILE,
            width=sample.width,
            height=sample.height,
            jpeg=sample.jpeg,
            skip=sample.skip,
            repeats=sample.repeats,
            repeats_us=sample.repeats_us,
        )

    def _finish(self, finished: "Finished") -> None:
        self.decoding = False
        seq, ending = finished.seq, finished.ending
        self._note_ending(finished)
        self._send(
            End(
                stream_id=self._spec.stream_id,
                epoch=self._epoch,
                seq=seq,
                event_time_us=self._spec.recorded_at_us + finished.end_us,
                captured_at_us=self._now_us(),
                lane=StreamClass.FILE,
            )
        )
        self._flush()
        self._wait_until(lambda: self._final)
        detail = self._of_content()
        self._set_state(StreamState.ENDED, ending.reason, detail)
        self._count_ending(ending)
        fields = {"stream_id": self._spec.stream_id, "frames": seq, "reason": ending.reason, "detail": detail}
        if ending.reason is None:
            log.info("stream.ended", extra=fields)
        else:
            log.warning("stream.ended", extra=fields)

    def _note_ending(self, finished: "Finished") -> None:
        """Say how the content ended before its end is in the timeline.

        Whoever acquires a complete timeline does not read again.
        """
        assert self.report is not None
        self._ending = ending = finished.ending
        self.report.ended(finished.decoded, ending.corrupt, ending.lost, finished.end_us)
        if ending.reason is not None:
            self._set_state(StreamState.PLAYING, ending.reason, self._of_content())

    def _count_ending(self, ending: Ending) -> None:
        metrics = self._parts.metrics
        metrics.files_ended.labels(ending.reason or "whole").inc()
        metrics.file_damaged_frames.labels("corrupt").inc(ending.corrupt - ending.lost)
        metrics.file_damaged_frames.labels("lost").inc(ending.lost)

    def _send(self, message: Frame | End) -> int:
        """Send one message, waiting while the bus is full: that is back-pressure. Return its size in bytes."""
        value = encode(message)
        while True:
            try:
                self._parts.producer.send(_TOPIC, self._key, value)
            except BusFullError:
                self._parts.metrics.retries.labels(WORKER, "bus").inc()
                self._poll_progress()
            else:
                self._parts.metrics.messages_sent.labels(WORKER, _TOPIC).inc()
                return len(value)

    def _flush(self) -> None:
        while True:
            try:
                self._parts.producer.flush(_FLUSH_POLL_S)
            except NotDeliveredYetError:
                self._poll_progress()
            except DeliveryError as error:
                # The producer is shared with cameras, whose lost frames are nothing to read again for.
                if not error.topics or any(stream_class_of(name) is not StreamClass.LIVE for name in error.topics):
                    raise
            else:
                return

    def _await_credit(self) -> None:
        clock = self._parts.clock
        started_s = clock.monotonic_s()
        try:
            self._wait_until(self._credit.has_slack)
        finally:
            self._parts.metrics.credit_wait_seconds.inc(max(0.0, clock.monotonic_s() - started_s))

    def _wait_until(self, done: Callable[[], bool]) -> None:
        """Wait for the timeline. Raises `StalledError` when it stands still, though everything was sent, for too long."""
        followed, doubted, report_s = self._followed, False, STANDSTILL_S
        since_s, high_water_mark = followed.watched_s, self._high_water_mark
        while True:
            self._poll_progress()
            self._take_in(followed)
            if self._high_water_mark != high_water_mark:
                since_s, high_water_mark, doubted, report_s = followed.watched_s, self._high_water_mark, False, STANDSTILL_S
                if self.report is not None and self.report.state is StreamState.STALLED:
                    self._set_state(StreamState.PLAYING, detail=self._of_content())
            if done():
                break
            still_s = followed.watched_s - since_s
            if still_s >= self._patience.limit_s(high_water_mark):
                self._stalled(high_water_mark)
            if still_s >= _DOUBT_S:
                if not doubted:
                    self._flush()
                    doubted = True
                self._check_for_failure(high_water_mark, still_s)
            if still_s >= report_s:
                self._set_state(StreamState.STALLED, detail=self._parts.waiting(self._spec.stream_id, StreamClass.FILE, still_s))
                report_s *= 2
            followed.wait(_POLL_S)

    def _take_in(self, followed: Followed) -> None:
        if not followed.known:
            return
        progress = followed.progress
        if progress is None or progress.min_epoch > self._epoch:
            raise _Halt(Outcome.GONE)
        if progress.high_water_mark is not None:
            if progress.high_water_mark.epoch > self._epoch:
                raise _Halt(Outcome.FENCED)
            self._credit.settle(progress.high_water_mark.seq)
        self._high_water_mark, self._final = progress.high_water_mark, progress.final

    def _stalled(self, high_water_mark: HighWaterMark | None) -> None:
        count = self._patience.try_again(high_water_mark)
        times = "" if count == 1 else f", for the {count}th time; see whether the other workers run, and their dead letters"
        failing = self._failing(0 if high_water_mark is None else high_water_mark.seq + 1)
        if len(failing) > _FAILURES_LIMIT:
            times += f"; {len(failing)} of its frames failed, so it is the worker that is broken: {failing[0].dead_letter}"
        self._set_state(StreamState.STALLED, detail=f"the timeline stands still; the file is read again from there{times}")
        raise StalledError("the timeline stands still")

    def _failing(self, next_seq: int) -> list[FrameFailure]:
        """Return the frames from this one on that a worker has failed on."""
        return [failure for failure in self._parts.store.failures(self._spec.stream_id) if failure.seq >= next_seq]

    def _check_for_failure(self, high_water_mark: HighWaterMark | None, still_s: float) -> None:
        """Read the file again, after a pause that grows, when a worker failed on the very frame that the timeline waits for."""
        next_seq = 0 if high_water_mark is None else high_water_mark.seq + 1
        try:
            failures = self._failing(next_seq)
        except StoreUnavailableError:
            return
        if not failures or len(failures) > _FAILURES_LIMIT:
            return
        first = failures[0]
        if first.seq != next_seq or first.epoch != self._epoch or still_s < 2 ** min(first.tries, DOUBLINGS):
            return
        self._patience.try_again(high_water_mark)
        again = "it is left out now" if first.tries >= self._parts.settings.poison_tries else "it is tried again"
        self._set_state(
            StreamState.STALLED, detail=f"frame {first.seq} failed for the {first.tries}. time, {again}: {first.dead_letter}"
        )
        raise StalledError("a worker failed on the next frame")

    def _of_content(self) -> str:
        return "; ".join(part for part in (self._ending.detail, self._dropped_text()) if part)

    def _dropped_text(self) -> str:
        if not self._dropped:
            return ""
        first, count = min(self._dropped.values()), len(self._dropped)
        frames = f"frame {first.seq} is" if count == 1 else f"{count} frames are"
        return f"{frames} left out as corrupt, workers failed on them; frame {first.seq}: {first.dead_letter}"

    def _poll_progress(self) -> None:
        if self._stop.is_set():
            raise _Halt(Outcome.STOPPED)
        if self._parts.faults.count != self._faults_before:
            raise BusFaultError("another reader's records were lost")

    def _set_state(self, state: StreamState, reason: FailureReason | None = None, detail: str = "") -> None:
        assert self.report is not None
        if not self.report.set_state(state, reason or self._ending.reason, detail):
            raise _Halt(Outcome.FENCED)

    def _fail(self, error: SourceError | InvalidStreamError) -> Outcome:
        if self._stop.is_set():
            return Outcome.STOPPED
        assert self.report is not None
        reason = FailureReason(error.reason) if isinstance(error, SourceError) else None
        log.warning("stream.failed", extra={"stream_id": self._spec.stream_id, "reason": reason, "detail": str(error)})
        return Outcome.FAILED if self.report.set_state(StreamState.FAILED, reason, str(error)) else Outcome.FENCED

    def _now_us(self) -> int:
        return int(self._parts.clock.now_s() * 1e6)


def _told_of_end(before: StreamStatus) -> tuple[FailureReason | None, str]:
    """Return reason and detail of a file's end, as an earlier reader told them."""
    if before.played_us is None or before.reason not in _ENDINGS:
        return None, ""
    return before.reason, "" if before.state is StreamState.STALLED else before.detail
