"""The packets of a video and its sound in the order of the file, and what between them could not be read."""

from collections.abc import Iterator
from fractions import Fraction
from typing import Any, Final, NamedTuple

import av

from moodline.services.ingest.file.complaints import Complaints
from moodline.services.ingest.file.damage import Damage, missing_between
from moodline.services.ingest.file.frame_times import Stamp
from moodline.services.ingest.file.structure import Structure
from moodline.services.ingest.media.frames import Cancelled

_BAD_READS_LIMIT: Final = 16
_REORDERED: Final = 4
_TORN_FOR: Final = 6
"""For so many packets a complaint holds."""
_PAGE_PACKETS: Final = 255
"""Ogg is read a page ahead: it complains before it gives the packets of the page before."""
_READ_AHEAD: Final = 512
"""What is read when a file is opened is in this many packets, about."""
_OVERHEAD: Final = 1.2
_LEAST_SPARE_BYTES: Final = 2048
_CONSTANT_RATE: Final = frozenset({"mxf", "mxf_opatom", "gxf", "dv"})
"""FFmpeg's names of the containers in which each frame has its place: where one is missing, something could not be read."""


class PacketLimits(NamedTuple):
    """What is known of the file, and what ends its reading."""

    structure: Structure
    size_bytes: int
    max_hold_s: Fraction
    cancelled: Cancelled


class Packets:
    """Reads the packets of one video track, listens to when its sound ends, and tells what was lost. Used by one thread.

    Attributes:
        count: Video packets so far.
        sound_end_s: When the sound that was read so far ends, in s from the content's first instant; None without.
    """

    def __init__(
        self, container: Any, tracks: tuple[Any, Any], start_s: Fraction | None, damage: Damage, limits: PacketLimits
    ) -> None:
        """Prepare.

        Args:
            container: Of PyAV.
            tracks: The video track and that of its sound, which may be None.
            start_s: Time stamp of the content's first instant.
            damage: Is told what is lost, before the packet behind which it is lost is given.
            limits: What is known.
        """
        self.count = 0
        self.sound_end_s: Fraction | None = None
        self._container = container
        self._video, self._sound = tracks
        self._start_s = start_s
        self._damage = damage
        self._limits = limits
        self._complaints = Complaints()
        self._is_constant_rate = bool(_CONSTANT_RATE & set(container.format.name.split(",")))
        self._torn, self._is_unreadable = _READ_AHEAD if limits.structure.complained else 0, False
        self._latest: int | None = None
        self._most = limits.max_hold_s / self._video.time_base
        self._read_bytes = self._shown = self._shown_bytes = 0
        # Without all that a file consists of, what is in it cannot be accounted for; where there is an index, nothing is skipped.
        streams = container.streams
        self._is_indexed = limits.structure.is_iso or len(streams.video) > 1 or len(streams.audio) > 1
        self._is_indexed |= len(streams) > len(streams.video) + len(streams.audio) or "avi" in container.format.name

    @property
    def is_torn(self) -> bool:
        """Return whether something behind the last packet could not be read."""
        return self._torn > 0 or self._is_unreadable

    def read(self) -> Iterator[Any]:
        """Yield the video's packets, each when the next is known."""
        waiting: Any = None
        for packet in self._read():
            if packet.stream is not self._video:
                self._hear(packet)
                continue
            if packet.size == 0 and packet.pts is None and packet.dts is None:
                # PyAV's sign that there are no more.
                continue
            if waiting is not None:
                self._judge_between(waiting, packet)
                yield waiting
            if packet.size:
                if not self._shown:
                    self._damage.began(is_keyframe=packet.is_keyframe)
                self._torn, self._is_unreadable = max(0, self._torn - 1), False
                self._read_bytes = packet.size
                self._shown += 1
                self._shown_bytes += packet.size
            if packet.pts is not None:
                self._latest = packet.pts if self._latest is None else max(self._latest, packet.pts)
            waiting = packet
        if waiting is not None and not self._limits.cancelled():
            self._judge_end(waiting)
            yield waiting

    def _judge_between(self, before: Any, after: Any) -> None:
        """Note what is missing between two packets, where something in the file could not be read there."""
        length = self._frame_ticks(after)
        reordered = _REORDERED if self._video.codec_context.has_b_frames else 0
        missing = missing_between(Stamp(self._latest, before.dts, 0), stamp_of(after), length, self._most, reordered)
        # Of packets flagged as corrupt nothing need be missing: where recordings are glued together, their counters break.
        is_torn = self.is_torn or before.is_corrupt or after.is_corrupt
        if missing and not is_torn:
            is_torn = self._is_constant_rate or self._is_unaccounted(before, after.pos)
        if is_torn and (missing or self._latest is None or after.pts is None):
            self._damage.torn(Stamp(self._latest, before.dts, 0), missing, length)
            self._torn = 0

    def _judge_end(self, last: Any) -> None:
        """Note what is missing after the last packet, where the file goes on, and so does the sound."""
        structure, length, sound_s = self._limits.structure, self._frame_ticks(last), self.sound_end_s
        if self._latest is None or structure.is_cut or structure.missing_bytes:
            return
        end = self._latest if sound_s is None else round((sound_s + (self._start_s or 0)) / last.time_base)
        missing = missing_between(Stamp(self._latest, None, 0), Stamp(end, None, 0), length, self._most)
        if missing > 1 and not self._torn:
            self._torn = int(self._is_unaccounted(last, self._limits.size_bytes))
        if structure.unreadable_bytes or self._torn:
            self._damage.torn(Stamp(self._latest, None, 0), missing if missing > 1 else 0, length)

    def _is_unaccounted(self, before: Any, until: int | None) -> bool:
        """Return whether the file goes on between a packet and a place, for longer than what was read of it accounts for.

        Where frames are only far apart, there is nothing between them.
        """
        if self._is_indexed or before.pos is None or until is None or not self._shown:
            return False
        spare = until - before.pos - self._read_bytes * _OVERHEAD
        return bool(spare > max(_LEAST_SPARE_BYTES, self._shown_bytes / self._shown / 4))

    def _read(self) -> Iterator[Any]:
        """Yield packets; note where something in between could not be read."""
        bad_reads, demuxer = 0, self._container.format.name
        wanted = tuple(stream for stream in (self._video, self._sound) if stream is not None)
        while bad_reads <= _BAD_READS_LIMIT:
            packets = self._container.demux(*wanted)
            while not self._limits.cancelled():
                try:
                    with self._complaints.heard() as messages:
                        packet = next(packets, None)
                except IndexError:
                    # A packet of a track that appeared in mid-file, which PyAV does not know; it has been read, and is left out.
                    self._torn = _PAGE_PACKETS if demuxer == "ogg" else _TORN_FOR
                    break
                except MemoryError:
                    raise
                except av.FFmpegError:
                    # Most demuxers find their way back after damage; where one does not, the file ends.
                    self._damage.packets += 1
                    self._is_unreadable = True
                    bad_reads += 1
                    break
                if any(name == demuxer for _, name, _ in messages):
                    self._torn = _PAGE_PACKETS if demuxer == "ogg" else _TORN_FOR
                if packet is None:
                    return
                if packet.stream is self._video:
                    self.count += packet.size > 0
                    bad_reads = 0
                else:
                    self._read_bytes += packet.size
                yield packet
            else:
                return

    def _frame_ticks(self, packet: Any) -> Fraction:
        """Return how long a frame lasts, in ticks."""
        if packet.duration:
            return Fraction(packet.duration)
        rate = self._video.average_rate or self._video.guessed_rate
        return 1 / (rate * self._video.time_base) if rate else Fraction(0)

    def _hear(self, packet: Any) -> None:
        """Note until when there is sound; it is not decoded."""
        if packet.pts is None:
            return
        end_s = (packet.pts + (packet.duration or 0)) * packet.time_base - (self._start_s or 0)
        if end_s > 0 and (self.sound_end_s is None or end_s > self.sound_end_s):
            self.sound_end_s = Fraction(end_s)


def stamp_of(packet: Any) -> Stamp:
    """Return a packet's time stamps."""
    return Stamp(packet.pts, packet.dts, packet.duration or 0)
