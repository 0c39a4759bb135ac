"""Packets' payloads into access units, the pieces that a decoder takes. Pure; damage is marked, never raised."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Final, NamedTuple

UNIT_LIMIT_BYTES: Final = 16 * 1024 * 1024
_PARTS_LIMIT: Final = 65_536
_TRUST_AFTER: Final = 2
_NEVER: Final = -(2**62)


class AccessUnit(NamedTuple):
    """One coded frame.

    Attributes:
        data: As the decoder takes it.
        timestamp: Of RTP, 32 bits.
        keyframe: Whether decoding can begin here.
        damaged: Whether a part of it is missing or makes no sense.
        after_loss: Whether packets were lost before it, so that frames that it builds on may be missing.
        recovery: Frames, this one included, after which the picture is whole although decoding began here without a keyframe
            (a recovery point of gradual refresh); 0 where none is said.
        is_reference: Whether other frames may build on it.
    """

    data: bytes
    timestamp: int
    keyframe: bool
    damaged: bool
    after_loss: bool
    recovery: int = 0
    is_reference: bool = True


class MarkerTrust:
    """Whether the marker bit ends a unit, as it should. Some cameras set it on every slice, or on none."""

    def __init__(self) -> None:
        self._agreed = 0
        self._marked = False

    @property
    def is_trusted(self) -> bool:
        """Return whether a marker is taken for the end of a unit at once."""
        return self._agreed >= _TRUST_AFTER

    def packet(self, marker: bool) -> None:
        """Note the marker of the newest packet."""
        self._marked = marker

    def begins(self) -> None:
        """Note that a unit begins: the packet before should have had the marker, and no other."""
        if self._marked:
            self._agreed += 1
        self._marked = False

    def goes_on(self) -> None:
        """Note that a unit goes on: the packet before should have had no marker."""
        if self._marked:
            self._agreed = _NEVER
        self._marked = False


class Depacketiser(ABC):
    """Joins what has one time stamp, or ends at a marker. Subclasses take the payloads of one format apart."""

    def __init__(self) -> None:
        self.trouble = ""
        """Why nothing that is sent can be read, where that is known."""
        self._parts: list[bytes] = []
        self._size = 0
        self._timestamp: int | None = None
        self._damaged = False
        self._keyframe = False
        self._after_loss = False

    def push(self, payload: bytes, timestamp: int, marker: bool, lost: bool, extension: bytes = b"") -> Sequence[AccessUnit]:
        """Take the next packet and return the units that it completes, mostly none or one.

        Args:
            payload: Of one RTP packet.
            timestamp: 32 bits.
            marker: Of the packet's header.
            lost: Whether packets before this one are missing.
            extension: Of the packet's header: two bytes of profile, then the content; empty without one.
        """
        done: list[AccessUnit] | None = None
        if timestamp != self._timestamp:
            if self._parts:
                self._damaged |= lost
                done = self._finish()
            self._timestamp = timestamp
            self._after_loss |= lost
        elif lost:
            # After a unit's marker, what is missing had the same time stamp or was a unit of its own: nobody knows.
            self._after_loss = True
            self._damaged |= bool(self._parts)
        if not self._add(payload, extension):
            self._damaged = True
        if marker:
            last = self._finish()
            return done + last if done else last
        return done or ()

    def idle(self) -> Sequence[AccessUnit]:
        """Return the unit that was held back although its marker has come: nothing follows for a while."""
        return ()

    @abstractmethod
    def _add(self, payload: bytes, extension: bytes) -> bool:
        """Take one payload; return whether it was whole and made sense."""

    def _joined(self) -> bytes:
        return b"".join(self._parts)

    def _keep(self, part: bytes) -> bool:
        self._size += len(part)
        if self._size > UNIT_LIMIT_BYTES or len(self._parts) >= _PARTS_LIMIT:
            self._parts.clear()
            self._size = UNIT_LIMIT_BYTES
            return False
        self._parts.append(part)
        return True

    def _finish(self) -> list[AccessUnit]:
        timestamp = self._timestamp or 0
        unit = AccessUnit(self._joined(), timestamp, self._keyframe, self._damaged, self._after_loss)
        self._parts.clear()
        self._size = 0
        self._damaged = self._keyframe = self._after_loss = False
        return [unit] if unit.data or unit.damaged else []
