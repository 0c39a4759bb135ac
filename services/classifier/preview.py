"""Tells what was read of the faces in frames of streams whose preview is looked at."""

from collections import deque
from typing import Final

from moodline.shared.clock import Clock
from moodline.shared.messages import Emotions
from moodline.shared.preview_watch import PreviewWatch
from moodline.shared.previews import PreviewResult, Previews
from moodline.shared.store import Registry

_MOST: Final = 1024
_INTERVAL_S: Final = 0.1


class ResultPublisher:
    """Takes every answer; a thread sends those of streams that are looked at."""

    def __init__(self, registry: Registry, previews: Previews, clock: Clock, least_quality: int = 0) -> None:
        """Prepare. Nothing is said of faces below `least_quality`, 0 to 65535: none of it is in the timeline either."""
        self._least_quality = least_quality
        self._previews = previews
        self._taken: deque[PreviewResult] = deque(maxlen=_MOST)
        self.watch: Final = PreviewWatch(registry, previews, clock, _INTERVAL_S, self.send)

    def offer(self, message: Emotions) -> None:
        """Take an answer, if its stream is looked at. Costs a look into a set."""
        if message.stream_id in self.watch.wanted and message.skip is None:
            faces = tuple((face.box, face.probabilities if face.quality >= self._least_quality else ()) for face in message.faces)
            self._taken.append(PreviewResult(message.stream_id, message.epoch, message.seq, faces))

    def send(self) -> None:
        """Send what has been taken since the last call."""
        while self._taken:
            self._previews.publish_result(self._taken.popleft())
