"""Shows the newest searched frame of streams whose preview is switched on, without holding the detector up."""

import logging
import threading
from types import TracebackType
from typing import Final, Self

import cv2

from moodline.services.detector.image import decode_jpeg, reduced
from moodline.shared.clock import Clock
from moodline.shared.errors import ImageError, StoreError
from moodline.shared.messages import Face, Frame
from moodline.shared.previews import Preview, Previews
from moodline.shared.settings import PreviewSettings
from moodline.shared.store import Registry
from moodline.shared.store.registry_view import RegistryView

log = logging.getLogger("moodline.previews")

_LOOK_S: Final = 1.0
_JOIN_S: Final = 5.0


class PreviewPublisher:
    """Takes every searched frame; a thread shows the newest of each stream, a few times a second. A context manager."""

    def __init__(self, registry: Registry, previews: Previews, settings: PreviewSettings, clock: Clock) -> None:
        self._view = RegistryView(registry)
        self._previews = previews
        self._settings = settings
        self._clock = clock
        self._wanted: frozenset[str] = frozenset()
        self._newest: dict[str, tuple[Frame, tuple[Face, ...]]] = {}
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="previews", daemon=True)

    def offer(self, frame: Frame, faces: tuple[Face, ...]) -> None:
        """Take a frame, if its stream is looked at. Costs a look into a set."""
        if frame.stream_id in self._wanted:
            with self._lock:
                known = self._newest.get(frame.stream_id)
                if known is None or known[0].event_time_us <= frame.event_time_us:
                    self._newest[frame.stream_id] = frame, faces

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._stop.set()
        self._thread.join(_JOIN_S)

    def step(self) -> None:
        """Find out which streams are looked at. Raises `StoreUnavailableError`."""
        self._view.refresh(self._clock.monotonic_s())
        switched_on = [name for name, spec in self._view.specs.items() if spec.preview and not spec.paused]
        self._wanted = frozenset(self._previews.wanted(switched_on))

    def show(self) -> None:
        """Show what has been taken since the last call."""
        with self._lock:
            newest, self._newest = self._newest, {}
        for frame, faces in newest.values():
            jpeg = self._reduced(frame.jpeg)
            if jpeg is not None:
                boxes = tuple(face.box for face in faces)
                self._previews.publish(Preview(stream_id=frame.stream_id, time_us=frame.event_time_us, jpeg=jpeg, boxes=boxes))

    def _reduced(self, jpeg: bytes) -> bytes | None:
        try:
            image = decode_jpeg(jpeg)
        except ImageError:
            return None
        if max(image.shape[:2]) <= self._settings.max_side_px:
            return jpeg
        done, data = cv2.imencode(".jpg", reduced(image, self._settings.max_side_px)[0])
        return data.tobytes() if done else None

    def _run(self) -> None:
        looked_s = float("-inf")
        while not self._stop.is_set():
            now_s = self._clock.monotonic_s()
            if now_s - looked_s >= _LOOK_S:
                looked_s = now_s
                try:
                    self.step()
                except StoreError as error:
                    log.warning("previews.interrupted", extra={"reason": type(error).__name__})
            self.show()
            self._stop.wait(1 / self._settings.fps)
