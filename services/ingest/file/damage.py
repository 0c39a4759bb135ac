"""Which frames of a video are damaged, and which are missing. Pure; knows packets and frames by their numbers and times alone.

A decoder conceals what it cannot decode, and most later pictures are built on earlier ones. So a frame counts as damaged from
the packet on that was refused, complained about or not read at all, until the next picture that is built on none.
"""

from fractions import Fraction
from heapq import heappop, heappush
from typing import Any, Final

from av.video.frame import PictureType

from moodline.services.ingest.file.frame_times import Stamp

_SPREAD_LIMIT: Final = 250
"""Frames without a keyframe after damage for which the damage is taken to go on; encoders' usual longest distance."""
_WAITING_LIMIT: Final = 512
"""Packets whose frame has not come out and which are remembered; decoders keep 16 at most."""
_INTRA: Final = (PictureType.I, PictureType.SI)
_BUILT_ON_OTHERS: Final = (PictureType.P, PictureType.B)


class Damage:
    """What is damaged of one video track. Packets are told in the order in which they are decoded.

    Attributes:
        packets: Packets that were refused, and failed reads.
        unplaced: Frames that are lost, and of which no time is known.
    """

    def __init__(self, *, is_cut_picture: bool = False) -> None:
        self.packets = 0
        self.unplaced = 0
        self._is_cut_picture = is_cut_picture
        self._number = 0
        self._is_anchored = True
        self._broken: list[int] = []
        self._sent: dict[int, int] = {}
        self._doubted: dict[int, Stamp] = {}
        self._lost: list[tuple[int, int, Stamp]] = []

    def began(self, *, is_keyframe: bool) -> None:
        """Note the first packet of all, which need not be shown."""
        self._is_anchored = is_keyframe

    def sent(self, stamp: Stamp) -> None:
        """Note a packet that goes to the decoder, and is shown."""
        self._number += 1
        at = _order(stamp)
        if at is not None:
            self._sent[at] = self._number
            if len(self._sent) > _WAITING_LIMIT:
                del self._sent[next(iter(self._sent))]

    def refused(self, stamp: Stamp | None) -> None:
        """Note that the decoder refused the packet that it got last; None: the packet shows nothing by itself."""
        self.packets += 1
        self._broken.append(self._number)
        if stamp is None:
            return
        at = _order(stamp)
        if at is None:
            self.unplaced += 1
        else:
            self._sent.pop(at, None)
            heappush(self._lost, (at, self._number, stamp))

    def complained(self, stamp: Stamp, *, is_picture_damaged: bool) -> None:
        """Note that the decoder complained about the packet that it got last: if no frame comes out of it, it is lost."""
        if is_picture_damaged:
            self._broken.append(self._number)
        at = _order(stamp)
        if at is not None:
            self._doubted[at] = stamp

    def torn(self, before: Stamp, missing: int, length: Fraction) -> None:
        """Note that something behind the next packet that will be sent could not be read.

        Args:
            before: The time behind which it is missing: the latest of all packets so far.
            missing: How many frames.
            length: Of a frame, in ticks.
        """
        self.suspect_next()
        start = _order(before)
        if start is None:
            return
        for number in range(1, missing + 1):
            at = start + round(number * length)
            heappush(self._lost, (at, self._number, Stamp(at, at, round(length))))

    def suspect_next(self) -> None:
        """Note that damage begins behind the next packet that will be sent, or in it: its bytes need not be its own."""
        self._broken.append(self._number + 1)

    def lost_before(self, stamp: Stamp) -> list[Stamp]:
        """Return the times of the frames that are missing before a frame that came out, in order."""
        at = _order(stamp)
        if at is None:
            return []
        self._doubted.pop(at, None)
        for doubted in [one for one in self._doubted if one < at]:
            self._lose(doubted)
        found = []
        while self._lost and self._lost[0][0] < at - self._lost[0][2].duration // 2:
            found.append(heappop(self._lost)[2])
        # What seemed to be missing has come out after all.
        while self._lost and self._lost[0][0] <= at + self._lost[0][2].duration // 2:
            heappop(self._lost)
        return found

    def lost_at_the_end(self) -> list[Stamp]:
        """Return the times of the frames that are missing after the last that came out, in order."""
        for doubted in list(self._doubted):
            self._lose(doubted)
        return [heappop(self._lost)[2] for _ in range(len(self._lost))]

    def is_damaged(self, frame: Any) -> bool:
        """Return whether a frame that came out is damaged: flagged, or built on one that is."""
        at = _order(Stamp(frame.pts, frame.dts, 0))
        number = self._number if at is None else self._sent.pop(at, self._number)
        if not self._is_anchored and not frame.key_frame and frame.pict_type in _BUILT_ON_OTHERS:
            # The content begins with a picture that is built on one before.
            self._broken.append(number)
        self._is_anchored = True
        if frame.is_corrupt or self._is_cut_picture:
            self._broken.append(number)
        if not self._broken:
            return False
        is_intra = frame.key_frame or frame.pict_type in _INTRA
        least = number if is_intra else number - _SPREAD_LIMIT
        self._broken = [one for one in self._broken if one >= least]
        return any(one <= number for one in self._broken)

    def _lose(self, at: int) -> None:
        stamp = self._doubted.pop(at)
        self._sent.pop(at, None)
        heappush(self._lost, (at, self._number, stamp))


def missing_between(before: Stamp, after: Stamp, length: Fraction, most: Fraction, reordered: int = 0) -> int:
    """Return for how many frames there is room between two packets.

    Args:
        before: Times of the first; that of presentation is the latest so far.
        after: Times of the second.
        length: Of a frame, in ticks.
        most: A longer gap, in ticks, is no time: one of the stamps is damaged.
        reordered: How many frames may be decoded later than they are shown, so that they only seem to be missing.
    """

    def room(start: int | None, end: int | None) -> int:
        if start is None or end is None or length <= 0 or end - start > most:
            return 0
        return max(0, round((end - start) / length) - 1)

    # Decoding times go on evenly where they are the file's own; Matroska has none, and FFmpeg makes them up.
    by_dts, by_pts = room(before.dts, after.dts), room(before.pts, after.pts)
    return by_pts if by_pts > reordered else by_dts


def _order(stamp: Stamp) -> int | None:
    """Return what a packet and its frame have in common, and what puts frames in order as far as it is known."""
    return stamp.dts if stamp.pts is None else stamp.pts
