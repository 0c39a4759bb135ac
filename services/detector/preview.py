"""Shows the newest searched frame of streams whose preview is looked at, without holding the detector up."""

import threading
from typing import Final

import cv2

from moodline.services.detector.image import decode_jpeg, reduced
from moodline.shared.clock import Clock
from moodline.shared.errors import ImageError
from moodline.shared.messages import Face, Frame
from moodline.shared.preview_watch import PreviewWatch
from moodline.shared.previews import Preview, Previews
from moodline.shared.settings import PreviewSettings
from moodline.shared.store import Registry


class PreviewPublisher:
    """Takes every searched frame; a thread sends the newest of each stream, a few times a second."""

    def __init__(self, registry: Registry, previews: Previews, settings: PreviewSettings, clock: Clock) -> None:
        self._previews = previews
        self._max_side_px = settings.max_side_px
        self._newest: dict[str, tuple[Frame, tuple[Face, ...]]] = {}
        self._lock = threading.Lock()
        self.watch: Final = PreviewWatch(registry, previews, clock, 1 / settings.fps, self.send)

    def offer(self, frame: Frame, faces: tuple[Face, ...]) -> None:
        """Take a frame, if its stream is looked at. Costs a look into a set."""
        if frame.stream_id in self.watch.wanted:
            with self._lock:
                known = self._newest.get(frame.stream_id)
                if known is None or known[0].event_time_us <= frame.event_time_us:
                    self._newest[frame.stream_id] = frame, faces

    def send(self) -> None:
        """Send what has been taken since the last call."""
        with self._lock:
            newest, self._newest = self._newest, {}
        for frame, faces in newest.values():
            jpeg = self._reduced(frame.jpeg)
            if jpeg is not None:
                self._previews.publish(
                    Preview(
                        stream_id=frame.stream_id,
                        epoch=frame.epoch,
                        seq=frame.seq,
                        time_us=frame.event_time_us,
                        jpeg=jpeg,
                        boxes=tuple(face.box for face in faces),
                    )
                )

    def _reduced(self, jpeg: bytes) -> bytes | None:
        try:
            image = decode_jpeg(jpeg)
        except ImageError:
            return None
        if max(image.shape[:2]) <= self._max_side_px:
            return jpeg
        done, data = cv2.imencode(".jpg", reduced(image, self._max_side_px)[0])
        return data.tobytes() if done else None
