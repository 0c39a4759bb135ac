"""One simulated camera: plays its track in an endless loop to all clients at once, with whatever fault it has."""

import asyncio
import os
import random
import struct
import time
from collections.abc import Callable
from fractions import Fraction
from typing import Final, Protocol

from moodline.services.simulator.absurd import with_absurd_sps
from moodline.services.simulator.faults import NO_FAULT, Fault, Kind
from moodline.services.simulator.film import CLOCK_HZ, Film, Track, Unit
from moodline.services.simulator.options import Codec, Picture
from moodline.services.simulator.quirks import Quirk, markers, with_quirks

REPORT_S: Final = 1.0
_NTP_EPOCH_S: Final = 2_208_988_800
_LATE_S: Final = 0.5
_DRIP_S: Final = 0.5
_SEQUENCE: Final = 1 << 16
_JPEG_TYPE: Final = 26
DYNAMIC_TYPE: Final = 96

_ENDS_SESSIONS: Final = {Kind.DROP, Kind.RESET, Kind.UNAUTHORIZED, Kind.MISSING, Kind.CODEC}
_OTHER_CODEC: Final = {Codec.H264: Codec.H265, Codec.H265: Codec.H264, Codec.MJPEG: Codec.H264}


class Player(Protocol):
    """One client that is being played to. `waiting` until it got its first keyframe."""

    waiting: bool

    def media(self, packets: list[bytes]) -> bool:
        """Send RTP packets, never blocking. Return false when the client does not keep up and they were left out."""
        ...

    def report(self, packet: bytes) -> None:
        """Send an RTCP packet."""
        ...

    def drip(self, packets: list[bytes]) -> None:
        """Send some bytes of the packets, and the rest later or never."""
        ...

    def noise(self, noise: bytes) -> None:
        """Send bytes that are neither RTSP nor RTP."""
        ...

    def end(self, *, reset: bool) -> None:
        """Close the client's connection."""
        ...


def payload_type(codec: Codec) -> int:
    """Return the RTP payload type of a codec."""
    return _JPEG_TYPE if codec is Codec.MJPEG else DYNAMIC_TYPE


class Camera:
    """The camera behind one path. Used by the event loop's thread alone, except for encoding."""

    def __init__(self, name: str, film: Film, picture: Picture, *, phase: float = 0.0) -> None:
        """Args: `phase`, 0 to 1, is the part of a frame's time that it is behind others, so that not all send at once."""
        self.name = name
        self.fault = NO_FAULT
        self.quirks: frozenset[Quirk] = frozenset()
        self.fault_ends_s: float | None = None
        self.players: set[Player] = set()
        self.film, self._usual = film, picture
        self._track = self._usual_track = film.track(picture)
        self._random = random.Random()  # noqa: S311  # losses, not secrets
        self._ssrc, self._sequence, self._stamp = (self._random.getrandbits(bits) for bits in (32, 16, 32))
        self._clock_ahead_s = 0.0
        self._next = self._origin = 0
        self._next_report_s = self._next_drip_s = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._fault_timer: asyncio.TimerHandle | None = None
        self._fault_lock = asyncio.Lock()
        # Media time `_from_media_s` was at `_from_s` of the loop's clock, and runs `_speed` times as fast.
        self._loop = asyncio.get_running_loop()
        self._from_s = self._loop.time() + phase / float(self._track.fps)
        self._from_media_s = 0.0
        self._speed = 1.0
        self._media_of_next_s = Fraction(0)
        self._packets, self._bytes = 0, 0

    @property
    def track(self) -> Track:
        return self._track

    def play(self, player: Player) -> tuple[int, int, bytes]:
        """Begin to play to a client, at the next keyframe.

        Return that one's sequence number and timestamp, and a sender report, empty where nothing is to be sent.
        """
        if self._timer is None:
            self._catch_up()
            self._schedule()
        player.waiting = True
        self.players.add(player)
        report = b"" if self.fault.kind in _ACTIONS else self._report()
        sequence, media_s = self._sequence, self._media_of_next_s
        for number in range(self._next, self._next + len(self._track.units)):
            unit = self._unit(number)
            if unit.keyframe:
                break
            sequence += len(unit.payloads)
            media_s += 1 / self._track.fps
        return sequence % _SEQUENCE, self._rtp_time(media_s), report

    def leave(self, player: Player) -> None:
        """Play no more to a client."""
        self.players.discard(player)

    def close(self) -> None:
        """Stop all timers and end all clients."""
        for timer in (self._timer, self._fault_timer):
            if timer is not None:
                timer.cancel()
        self._timer = None
        self.end_players(reset=False)

    def end_players(self, *, reset: bool) -> None:
        """Close the connections of all clients."""
        for player in list(self.players):
            self.players.discard(player)
            player.end(reset=reset)

    async def set_fault(self, fault: Fault, seconds: float | None = None) -> None:
        """Have this fault from now on, instead of the one before; for `seconds`, if given."""
        async with self._fault_lock:
            picture = self._picture_of(fault)
            known = picture is self._usual
            track = self._usual_track if known else await asyncio.to_thread(self.film.track, picture)
            if self._fault_timer is not None:
                self._fault_timer.cancel()
                self._fault_timer = None
            self.fault, self.fault_ends_s = fault, None
            self._apply(fault, track)
            if seconds is not None and fault.kind is not Kind.NONE:
                self.fault_ends_s = self._loop.time() + seconds
                self._fault_timer = self._loop.call_later(seconds, self._heal)

    def _heal(self) -> None:
        self._fault_timer = None
        self.fault, self.fault_ends_s = NO_FAULT, None
        self._apply(NO_FAULT, self._usual_track)

    def _apply(self, fault: Fault, track: Track) -> None:
        codec_changes = track.codec is not self._track.codec
        if track is not self._track:
            self._track, self._origin = track, self._next
        if fault.kind in _ENDS_SESSIONS or codec_changes:
            self.end_players(reset=fault.kind is Kind.RESET)
        self._set_speed(fault.number if fault.kind is Kind.FLOOD else 1.0)
        ahead_s = fault.number if fault.kind in (Kind.CLOCK, Kind.CLOCK_STEP) else 0.0
        if fault.kind is Kind.RTP_RESET:
            self._stamp = self._random.getrandbits(32)
        if ahead_s != self._clock_ahead_s or fault.kind is Kind.RTP_RESET:
            self._clock_ahead_s = ahead_s
            self._next_report_s = 0.0

    def _picture_of(self, fault: Fault) -> Picture:
        if fault.kind is Kind.RESOLUTION:
            width, height = self._usual_track.width, self._usual_track.height
            # Half the size, in whole blocks of 16 px; a small picture is doubled instead.
            small = (width // 32 * 16, height // 32 * 16)
            return self._altered(self._usual_track.codec, small if min(small) >= 96 else (2 * width, 2 * height))
        if fault.kind is Kind.CODEC:
            return self._altered(_OTHER_CODEC[self._usual_track.codec], (self._usual_track.width, self._usual_track.height))
        return self._usual

    def _altered(self, codec: Codec, size: tuple[int, int]) -> Picture:
        usual = self._usual
        # Short, because it is encoded while somebody waits; the same rate, because timestamps go on.
        return Picture(size=size, fps=str(self._usual_track.fps), gop_s=usual.gop_s, codec=codec, seconds=min(4.0, usual.seconds))

    def _unit(self, number: int) -> Unit:
        units = self._track.units
        return units[(number - self._origin) % len(units)]

    def _media_s(self, now_s: float) -> float:
        return self._from_media_s + (now_s - self._from_s) * self._speed

    def _due_s(self) -> float:
        return self._from_s + (float(self._media_of_next_s) - self._from_media_s) / self._speed

    def _set_speed(self, speed: float) -> None:
        if speed != self._speed:
            self._from_media_s, self._from_s = float(self._media_of_next_s), self._loop.time()
            self._speed = speed
            if self._timer is not None:
                self._timer.cancel()
                self._schedule()

    def _catch_up(self) -> None:
        """Leave out frames whose time has passed while nobody watched, or while the machine had no time for us."""
        late = int((self._media_s(self._loop.time()) - float(self._media_of_next_s)) * self._track.fps)
        if late > 0:
            self._next += late
            self._media_of_next_s += late / self._track.fps

    def _schedule(self) -> None:
        self._timer = self._loop.call_at(self._due_s(), self._tick)

    def _tick(self) -> None:
        now_s = self._loop.time()
        if not self.players:
            self._timer = None
            return
        if now_s - self._due_s() > _LATE_S:
            if self._speed != 1.0:
                # It cannot go as fast as asked: as fast as it can, then.
                self._from_media_s, self._from_s = float(self._media_of_next_s), now_s
            else:
                self._catch_up()
                for player in self.players:
                    player.waiting = True
        self._send(self._unit(self._next), now_s)
        self._next += 1
        self._media_of_next_s += 1 / self._track.fps
        self._schedule()

    def _send(self, unit: Unit, now_s: float) -> None:
        action = _ACTIONS.get(self.fault.kind)
        if action is not None:
            action(self, unit, now_s)
            return
        self._play_out(self._pack(self._payloads(unit)), unit)
        if now_s >= self._next_report_s:
            self._next_report_s = now_s + REPORT_S
            report = self._report()
            for player in self.players:
                player.report(report)

    def _play_out(self, packets: list[bytes], unit: Unit) -> None:
        for player in self.players:
            if player.waiting and not unit.keyframe:
                continue
            player.waiting = not player.media(packets)

    def _payloads(self, unit: Unit) -> tuple[bytes, ...]:
        if self.fault.kind is Kind.GARBAGE:
            return tuple(os.urandom(len(payload)) for payload in unit.payloads)
        if self.fault.kind is Kind.CRASHER:
            return with_absurd_sps(unit.payloads, self._track.codec)
        return with_quirks(unit.payloads, self._track.codec, self.quirks)

    def _pack(self, payloads: tuple[bytes, ...]) -> list[bytes]:
        stamp, kind = self._rtp_time(self._media_of_next_s), payload_type(self._track.codec)
        kind += Quirk.PAYLOAD_TYPE in self.quirks
        marked = markers(payloads, self._track.codec, self.quirks)
        lost = self.fault.number / 100 if self.fault.kind is Kind.LOSS else 0.0
        packets = []
        for number, payload in enumerate(payloads):
            sequence, self._sequence = self._sequence, (self._sequence + 1) % _SEQUENCE
            if lost and self._random.random() < lost:
                continue
            packets.append(_RTP.pack(0x80, kind | 0x80 * marked[number], sequence, stamp, self._ssrc) + payload)
            self._bytes += len(payload)
        self._packets += len(packets)
        return packets

    def _rtp_time(self, media_s: Fraction | float) -> int:
        rate = CLOCK_HZ
        if Quirk.STILL in self.quirks:
            return 0
        if Quirk.SLOW_STAMPS in self.quirks:
            rate = CLOCK_HZ * 3 // 5
        return (self._stamp + int(media_s * rate)) & 0xFFFFFFFF

    def _report(self) -> bytes:
        """Return a sender report and the sender's name (RFC 3550, 6.4.1 and 6.5)."""
        off_s = self._random.uniform(-2, 2) if Quirk.REPORTS in self.quirks else 0.0
        ntp = int((time.time() + off_s + self._clock_ahead_s + _NTP_EPOCH_S) * 2**32) & 0xFFFFFFFFFFFFFFFF
        stamp = self._rtp_time(self._media_s(self._loop.time()))
        report = _SENDER_REPORT.pack(0x80, 200, 6, self._ssrc, ntp, stamp, self._packets & 0xFFFFFFFF, self._bytes & 0xFFFFFFFF)
        return report + struct.pack(">BBHIBB", 0x81, 202, 4, self._ssrc, 1, 8) + b"moodline\x00\x00"

    def _quiet(self, _unit: Unit, _now_s: float) -> None:
        for player in self.players:
            player.waiting = True

    def _noise(self, unit: Unit, _now_s: float) -> None:
        for player in self.players:
            player.noise(os.urandom(min(len(unit.whole), 1400)))

    def _drip(self, unit: Unit, now_s: float) -> None:
        if now_s >= self._next_drip_s:
            self._next_drip_s = now_s + _DRIP_S
            packets = self._pack(unit.payloads[:1])
            for player in self.players:
                player.waiting = True
                player.drip(packets)


_RTP: Final = struct.Struct(">BBHII")
_SENDER_REPORT: Final = struct.Struct(">BBHIQIII")
_ACTIONS: Final[dict[Kind, Callable[[Camera, Unit, float], None]]] = {
    Kind.SILENT: Camera._quiet,
    Kind.HANG: Camera._quiet,
    Kind.NOISE: Camera._noise,
    Kind.DRIP: Camera._drip,
}
