"""The supervisor of one reader: a thread that reads a stream, and starts again whatever went wrong, without touching others."""

import logging
from typing import Final

from moodline.services.ingest.file.patience import Patience
from moodline.services.ingest.file.process import FileDefectError, FileProcessError
from moodline.services.ingest.file.reader import BusFaultError, FileReader, ReaderParts, StalledError
from moodline.services.ingest.stream.crashes import PAUSES_S, Crashes, place_of
from moodline.services.ingest.stream.outcome import Outcome
from moodline.services.ingest.stream.thread import StreamThread
from moodline.shared.errors import BusError, StoreError
from moodline.shared.messages import StreamClass
from moodline.shared.streams import FailureReason, StreamSpec, StreamState

log = logging.getLogger("moodline.ingest.reader")

BACK_OFF_S: Final = (0.5, 1.0, 2.0, 5.0, 10.0, 30.0)


class ReaderThread(StreamThread):
    """Reads one stream until it has ended or failed, or is told to stop."""

    def __init__(
        self,
        spec: StreamSpec,
        parts: ReaderParts,
        back_off_s: tuple[float, ...] = BACK_OFF_S,
        crash_pauses_s: tuple[float, ...] = PAUSES_S,
    ) -> None:
        super().__init__(spec, "read")
        self._parts = parts
        self._back_off_s = back_off_s
        self._crashes = Crashes(crash_pauses_s)
        self._crash_pause_s = 0.0
        self._patience = Patience(parts.settings.stall_s)
        self._reader: FileReader | None = None

    @property
    def is_decoding(self) -> bool:
        """Return whether the thread needs a core. It needs none while it waits for the timeline or before another attempt."""
        return self.is_alive and (self._reader is None or self._reader.decoding)

    def _run(self) -> None:
        failures, furthest = 0, -1
        while self.outcome is None:
            self._reader = FileReader(self.spec, self._parts, self._stop, self._patience)
            cause = self._read_once(self._reader, furthest)
            if cause is None:
                return
            # What got further than before was worth the attempt: begin with short pauses again.
            failures = 0 if self._reader.next_seq > furthest else failures + 1
            furthest = max(furthest, self._reader.next_seq)
            self._parts.metrics.reader_restarts.labels(cause).inc()
            pause_s = self._pause_s(cause, failures)
            self._report_pause(cause, pause_s)
            if cause == "crash":  # counted after it was told: who sees the count looks for the reason
                self._parts.metrics.reader_crashes.labels(StreamClass.FILE).inc()
            if self._stop.wait(pause_s):
                self.outcome = Outcome.STOPPED

    def _read_once(self, reader: FileReader, furthest: int) -> str | None:  # noqa: PLR0911  # one for each cause
        """Claim and read; return None when done, else the cause for which to do it again."""
        stream_id = self.spec.stream_id
        try:
            self.outcome = reader.run()
        except StalledError:
            log.warning("reader.stalled", extra={"stream_id": stream_id, "read_again": self._patience.read_again})
            return "stall"
        except BusFaultError:
            return "bus"
        except BusError as error:
            # Nobody knows whose records were lost: all readers of this worker acquire and read again from their high-water marks.
            self._parts.faults.count += 1
            log.warning("reader.bus_failed", extra={"stream_id": stream_id, "reason": str(error)})
            return "bus"
        except StoreError as error:
            log.warning("reader.store_failed", extra={"stream_id": stream_id, "reason": str(error)})
            return "store"
        except FileProcessError as error:
            log.warning("reader.process_died", extra={"stream_id": stream_id, "reason": str(error)})
            return "process"
        except Exception as error:
            log.exception("reader.crashed", extra={"stream_id": stream_id})
            if reader.next_seq > furthest >= 0:
                self._crashes.forget()
            place = str(error) if isinstance(error, FileDefectError) else place_of(error)
            self._crash_pause_s = self._crashes.add(place)
            return "crash"
        return None

    def _pause_s(self, cause: str, failures: int) -> float:
        if cause == "crash":
            return self._crash_pause_s
        return 0.0 if cause == "stall" else self._back_off_s[min(failures, len(self._back_off_s) - 1)]

    def _report_pause(self, cause: str, pause_s: float) -> None:
        report = self._reader.report if self._reader is not None else None
        if report is None or not pause_s or self._stop.is_set():
            return
        try:
            if cause == "crash":
                report.set_state(StreamState.BACKING_OFF, FailureReason.INTERNAL, self._crashes.sentence(pause_s))
            else:
                report.set_state(StreamState.BACKING_OFF, detail=f"reading failed ({cause}) and is tried again in {pause_s:g} s")
        except StoreError:
            log.debug("reader.status_lost", extra={"stream_id": self.spec.stream_id})
