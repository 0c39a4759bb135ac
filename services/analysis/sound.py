"""The sound of a file, copied into another as it is, or encoded again where the other kind of file does not take it."""

import os
from collections.abc import Callable, Iterator
from fractions import Fraction
from typing import Any, Final

import av

from moodline.services.ingest.file.container import CONTAINERS
from moodline.shared.errors import SourceError

_RATE_HZ: Final = 48_000
_PRIMING_S: Final = Fraction(1, 5)
"""Sound that lies before the first instant by no more than this is what a codec needs to get going."""


def open_sound(open_file: Callable[[], int] | None, taken: frozenset[str] | None, encoder: str) -> "Sound":
    """Open a file's sound. Never fails: without sound, or where it cannot be read, nothing is written and `silent` says why.

    Args:
        open_file: Returns a descriptor of the file, which is closed here; None: no sound is wanted.
        taken: Names of the codecs that are copied; None: all.
        encoder: Encoder for the others.
    """
    if open_file is None:
        return Sound(None, taken, encoder)
    try:
        descriptor = open_file()
    except SourceError as error:
        return Sound(None, taken, encoder, silent=str(error))
    options = {"fd": str(descriptor), "protocol_whitelist": "fd", "format_whitelist": CONTAINERS}
    try:
        return Sound(av.open("fd:", options=options, metadata_errors="replace"), taken, encoder)
    except (av.FFmpegError, ValueError) as error:
        return Sound(None, taken, encoder, silent=f"the sound cannot be read: {_why(error)}")
    finally:
        os.close(descriptor)


class Sound:
    """One sound track on its way from a file into another. Not thread-safe."""

    def __init__(self, container: Any, taken: frozenset[str] | None, encoder: str, silent: str = "") -> None:
        self.silent = silent
        self._container = container
        self._taken = taken
        self._encoder_name = encoder
        self._out: Any = None
        self._encoder: Any = None
        self._resampler: Any = None
        self._samples = 0
        self._packets: Iterator[Any] = iter(())
        self._next: Any = None
        self._start_s = Fraction(0)
        self._in: Any = container.streams.best("audio") if container is not None else None

    def add_to(self, target: Any) -> None:
        """Add a track to the file that is written, before anything is written into it."""
        if self._in is None:
            return
        source = self._in
        self._start_s = _first_instant_s(self._container)
        name = source.codec_context.name if source.codec_context is not None else ""
        try:
            if self._taken is None or _plain(name) in self._taken:
                self._out = target.add_stream_from_template(source)
            elif name:
                self._out = target.add_stream(self._encoder_name, rate=_RATE_HZ)
                self._out.layout = "mono" if source.codec_context.channels == 1 else "stereo"
                self._out.time_base = Fraction(1, _RATE_HZ)
                self._encoder = self._out.codec_context
            else:
                self.silent = "the sound is of a kind that is not read"
                return
        except (av.FFmpegError, ValueError) as error:
            self.silent = f"the sound cannot be written: {_why(error)}"
            self._out = None
            return
        for stream in self._container.streams:
            if stream is not self._in:
                stream.discard = av.stream.Discard.all
        self._packets = self._read()
        self._next = next(self._packets, None)

    def mux_until(self, target: Any, until_s: Fraction) -> None:
        """Write the sound that begins before a time of the video, in s."""
        while self._next is not None and self._at_s(self._next) < until_s:
            packet, self._next = self._next, next(self._packets, None)
            if self._at_s(packet) < -_PRIMING_S:
                continue
            if self._encoder is None:
                self._copy(target, packet)
            else:
                self._encode(target, packet)

    def finish(self, target: Any) -> None:
        """Write what is left in the encoder."""
        if self._encoder is not None:
            if self._resampler is not None:
                self._mux_frames(target, self._resampler.resample(None))
            target.mux(self._out.encode(None))

    def close(self) -> None:
        """Close the file that was read."""
        if self._container is not None:
            self._container.close()

    def _read(self) -> Iterator[Any]:
        try:
            for packet in self._container.demux(self._in):
                if packet.size and packet.dts is not None:
                    yield packet
        except av.FFmpegError as error:
            self.silent = f"the sound ends early: {_why(error)}"

    def _at_s(self, packet: Any) -> Fraction:
        return Fraction(packet.dts * packet.time_base - self._start_s)

    def _copy(self, target: Any, packet: Any) -> None:
        shift = round(self._start_s / packet.time_base)
        packet.pts = None if packet.pts is None else packet.pts - shift
        packet.dts -= shift
        packet.stream = self._out
        target.mux(packet)

    def _encode(self, target: Any, packet: Any) -> None:
        try:
            frames = self._in.codec_context.decode(packet)
        except av.FFmpegError:
            return
        if self._resampler is None and frames:
            layout = self._out.layout
            self._resampler = av.AudioResampler(
                format=self._encoder.format, layout=layout, rate=_RATE_HZ, frame_size=self._encoder.frame_size or None
            )
            self._samples = round(max(Fraction(0), self._at_s(packet)) * _RATE_HZ)
        for frame in frames:
            frame.pts = None
            self._mux_frames(target, self._resampler.resample(frame))

    def _mux_frames(self, target: Any, frames: list[Any]) -> None:
        for frame in frames:
            frame.pts, frame.time_base = self._samples, Fraction(1, _RATE_HZ)
            self._samples += frame.samples
            target.mux(self._out.encode(frame))


def _plain(name: str) -> str:
    """Return a codec's name without the name of the decoder that is used for it, such as `mp3` for `mp3float`."""
    return {"mp3float": "mp3", "libopus": "opus", "libvorbis": "vorbis"}.get(name, name)


def _first_instant_s(container: Any) -> Fraction:
    """Return the time stamp from which the video's times count: that of picture or sound, whichever begins first."""
    video = container.streams.best("video")
    starts = [] if video is None or video.start_time is None else [Fraction(video.start_time * video.time_base)]
    for stream in container.streams.audio:
        if stream.start_time is not None:
            # Sound before 0 is what a codec needs to get going; nobody hears it.
            starts.append(max(stream.start_time * stream.time_base, Fraction(0)))
    return min(starts, default=Fraction(0))


def _why(error: Exception) -> str:
    return str(getattr(error, "strerror", None) or error)
