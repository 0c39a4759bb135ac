"""From the frames of a finite content to the sampled ones, encoded: in the worker's process, or in one of its own."""

import time
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from typing import Final, Protocol

from moodline.services.ingest.media.encode import encode_jpeg, reduce_image
from moodline.services.ingest.media.frames import BgrImage, Ending, Source, SourceInfo
from moodline.services.ingest.media.sampling import Sampler
from moodline.shared.errors import ImageError
from moodline.shared.messages import REPEATS_LIMIT, REPEATS_LIMIT_US, DropReason

TICK_S: Final = 1.0
"""About how often counts are given while no frame is sampled."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is wanted of a content.

    Attributes:
        sample_fps, max_side_px: As in `StreamSpec`.
        jpeg_quality: As in `IngestSettings`.
        first_seq: Sampled frames before this one are in the timeline already: they are counted, not given.
        dropped: Frames on which workers have failed: given without a picture.
    """

    sample_fps: str
    max_side_px: int
    jpeg_quality: int
    first_seq: int = 0
    dropped: Collection[int] = ()


@dataclass(frozen=True, slots=True)
class FileSample:
    """One sampled frame.

    Attributes:
        seq: Its number, from the start of the content.
        at_us: Its place in media time, rounded down, in microseconds.
        width, height: Of the JPEG in px; 0 without.
        jpeg: Empty when skipped.
        repeats, repeats_us: As in `Frame`.
        why: Why there is no picture; empty when there is one.
    """

    seq: int
    at_us: int
    width: int
    height: int
    jpeg: bytes
    repeats: int
    repeats_us: int
    why: str = ""

    @property
    def skip(self) -> DropReason | None:
        """Return `corrupt` when there is no picture."""
        return DropReason.CORRUPT if self.why else None


class Samples(Protocol):
    """The sampled frames of one content. Used by one thread.

    Attributes:
        info: Properties of the content.
        decoded: Frames that came out of the decoder so far.
        damaged: Damaged packets so far.
        end_us: End of the last frame, valid at the end, in microseconds of media time.
        seq: Number of sampled frames, valid at the end.
        ending: How the content ended, valid at the end.
    """

    info: SourceInfo
    decoded: int
    end_us: int
    seq: int

    @property
    def damaged(self) -> int: ...

    @property
    def ending(self) -> Ending: ...

    def frames(self) -> Iterator[FileSample | None]:
        """Yield the sampled frames, and None now and then so that counts can be read. May be called once.

        Raises:
            SourceError: the content cannot be read any further.
        """
        ...

    def close(self) -> None:
        """Release the content."""
        ...


class LocalSamples:
    """Samples a source in this process. Implements `Samples`."""

    def __init__(self, source: Source, wanted: Wanted, timer: Callable[[], float] = time.monotonic) -> None:
        self.info = source.info
        self.decoded = 0
        self.end_us = 0
        self.seq = 0
        self._source = source
        self._wanted = wanted
        self._timer = timer

    @property
    def damaged(self) -> int:
        """Damaged packets so far."""
        return self._source.damaged

    @property
    def ending(self) -> Ending:
        """How the content ended."""
        return self._source.ending

    def frames(self) -> Iterator[FileSample | None]:
        """Yield the sampled frames."""
        sampler, wanted, source = Sampler(self._wanted.sample_fps), self._wanted, self._source
        reported_s = self._timer()
        for frame in source.frames():
            self.decoded += 1
            sampled = sampler.choose(frame.pts_s, frame.until_s, self.info.fps)
            if sampled is not None:
                seq, self.seq = self.seq, self.seq + 1
                if seq >= wanted.first_seq:
                    at_us = sampled.at_s.numerator * 1_000_000 // sampled.at_s.denominator
                    last_us = sampled.last_s.numerator * 1_000_000 // sampled.last_s.denominator
                    repeats, repeats_us = min(sampled.repeats, REPEATS_LIMIT), min(last_us - at_us, REPEATS_LIMIT_US)
                    yield self._encoded(seq, at_us, repeats, repeats_us, frame.to_bgr)
            if self._timer() - reported_s >= TICK_S:
                reported_s = self._timer()
                yield None
        self.end_us = source.end_s.numerator * 1_000_000 // source.end_s.denominator

    def close(self) -> None:
        """Release the source."""
        self._source.close()

    def _encoded(self, seq: int, at_us: int, repeats: int, repeats_us: int, to_bgr: Callable[[], BgrImage]) -> FileSample:
        jpeg, width, height, why = b"", 0, 0, ""
        try:
            if seq in self._wanted.dropped:
                raise ImageError("workers failed on it")
            image = reduce_image(to_bgr(), self._wanted.max_side_px)
            height, width = image.shape[:2]
            jpeg = encode_jpeg(image, self._wanted.jpeg_quality)
        except ImageError as error:
            width = height = 0
            why = str(error) or "the frame cannot be read"
        return FileSample(seq, at_us, width, height, jpeg, repeats, repeats_us, why)
