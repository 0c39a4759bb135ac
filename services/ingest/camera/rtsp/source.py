"""Cameras over RTSP: signalling and packets are taken apart here, FFmpeg is the decoder alone."""

import secrets
import time
from collections.abc import Generator, Iterator, Sequence
from fractions import Fraction
from typing import Final

from moodline.services.ingest.camera.input.decoder import KeyframeDecoder, UnitTimes
from moodline.services.ingest.camera.input.egress import Egress
from moodline.services.ingest.camera.input.frames import LiveCounts, LiveFrame, LiveInfo, LiveLimits, LiveSource
from moodline.services.ingest.camera.rtsp.access_unit import AccessUnit
from moodline.services.ingest.camera.rtsp.media import Media, Reorder, TcpMedia, UdpMedia
from moodline.services.ingest.camera.rtsp.rtp import (
    MediaClock,
    PacketNumbers,
    Reception,
    RtpPacket,
    SenderReport,
    parse_rtcp,
    parse_rtp,
    receiver_report,
)
from moodline.services.ingest.camera.rtsp.sdp import VideoTrack
from moodline.services.ingest.camera.rtsp.session import Session, describe
from moodline.shared.camera import CameraAddress
from moodline.shared.errors import SourceError
from moodline.shared.streams import FailureReason, Transport

_REPORT_S: Final = 5.0
_HOUSEKEEPING_S: Final = 0.5
_REORDER_WAIT_S: Final = 0.1
_ENDED_LIMIT: Final = 64


def open_rtsp(address: CameraAddress, egress: Egress, limits: LiveLimits) -> LiveSource:
    """Connect to a camera over `rtsp` or `rtsps` and decode its first frame, all within `limits.open_timeout_s`.

    Raises:
        SourceError: as `open_live`.
    """
    deadline_s = time.monotonic() + limits.open_timeout_s
    described = describe(address, egress, deadline_s)
    session = Session(described)
    media: Media | None = None
    try:
        udp = address.transport is Transport.UDP
        media = UdpMedia(session, egress, deadline_s) if udp else TcpMedia(session, deadline_s)
        session.play(deadline_s)
        return RtspSource(session, media, limits, deadline_s)
    except BaseException:
        _close(session, media)
        raise


class RtspSource:
    """One camera that plays. Implements `LiveSource`."""

    def __init__(self, session: Session, media: Media, limits: LiveLimits, open_deadline_s: float) -> None:
        track = session.described.description.track
        self.counts = LiveCounts()
        self._session = session
        self._media = media
        self._receiver = Receiver(track, limits.max_pixels, self.counts)
        self._read_timeout_s = limits.read_timeout_s
        self._deadline_s = open_deadline_s
        self._closed = False
        self._rest = self._read()
        self._first: LiveFrame | None = next(self._rest)
        self.info = LiveInfo(self._receiver.codec_name, self._first.width, self._first.height, track.fps)

    def frames(self) -> Iterator[LiveFrame]:
        first, self._first = self._first, None
        if first is not None:
            yield first
        yield from self._rest

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            _close(self._session, self._media)

    def _read(self) -> Generator[LiveFrame, None, None]:
        media, receiver = self._media, self._receiver
        chore_s = report_s = time.monotonic() + _HOUSEKEEPING_S
        while True:
            received = media.receive()
            arrived_s = time.time()
            for data in received.rtcp:
                receiver.take_rtcp(data)
            for data in received.rtp:
                for frame in receiver.take_rtp(data, arrived_s, media.reorders):
                    yield frame
                    self._deadline_s = time.monotonic() + self._read_timeout_s
            receiver.require_sender()
            for response in received.responses:
                self._session.answered(response)
            now_s = time.monotonic()
            if media.reorders:
                yield from self._overdue(now_s, arrived_s)
            if now_s >= self._deadline_s:
                raise SourceError(FailureReason.TIMEOUT, "the camera sends no frame that can be shown")
            if now_s >= chore_s:
                chore_s = now_s + _HOUSEKEEPING_S
                self._session.keep_alive(now_s)
                if now_s >= report_s:
                    report_s = now_s + _REPORT_S
                    media.send_rtcp(receiver.report())

    def _overdue(self, now_s: float, arrived_s: float) -> Iterator[LiveFrame]:
        for frame in self._receiver.take_overdue(now_s, arrived_s):
            yield frame
            self._deadline_s = time.monotonic() + self._read_timeout_s


class Receiver:
    """Packets of one track into frames: order, losses, clocks, access units, decoder."""

    def __init__(self, track: VideoTrack, max_pixels: int, counts: LiveCounts) -> None:
        self._track = track
        self._counts = counts
        self._decoder = KeyframeDecoder(track.codec, track.extradata, max_pixels, counts)
        self._own_ssrc = secrets.randbits(32)
        self._ssrc: int | None = None
        self._reorder = Reorder()
        self._progress_s = 0.0
        self._ended: list[int] = []
        self._sender: tuple[SenderReport, float] | None = None
        self._numbers = PacketNumbers()
        self._clock = MediaClock(track.clock_rate)
        self._depacketiser = track.depacketiser()

    @property
    def codec_name(self) -> str:
        """FFmpeg's name of the codec."""
        return self._decoder.codec_name

    def take_rtp(self, data: bytes, arrived_s: float, reorders: bool) -> Sequence[LiveFrame]:
        """Take a packet and return the frames that it completes. What is no packet of the track is passed over."""
        packet = parse_rtp(data)
        if packet is None or packet.payload_type != self._track.payload_type:
            return ()
        self._counts.packets += 1
        if packet.ssrc != self._ssrc:
            self._begin(packet.ssrc)
        if not reorders:
            return self._take(packet, arrived_s)
        ready = self._reorder.push(packet)
        if ready:
            self._progress_s = time.monotonic()
        return [frame for one in ready for frame in self._take(one, arrived_s)]

    def take_overdue(self, now_s: float, arrived_s: float) -> Sequence[LiveFrame]:
        """Return the frames of packets that have waited too long for one before them."""
        if now_s - self._progress_s < _REORDER_WAIT_S:
            return ()
        return [frame for one in self._reorder.expire() for frame in self._take(one, arrived_s)]

    def take_rtcp(self, data: bytes) -> None:
        """Take reports of the camera's clock, and what has ended."""
        found = parse_rtcp(data)
        for report in found.reports:
            if self._ssrc is None or report.ssrc == self._ssrc:
                self._clock.report(report.unix_s, report.timestamp)
                self._sender = report, time.monotonic()
        self._ended += found.ended[: _ENDED_LIMIT - len(self._ended)]

    def require_sender(self) -> None:
        """Raise `SourceError` when the camera has said that it ends."""
        if self._ended and self._ssrc in self._ended:
            raise SourceError(FailureReason.UNREACHABLE, "the camera ended the stream")

    def report(self) -> bytes:
        """Return a receiver report on what has come."""
        if self._ssrc is None:
            return receiver_report(self._own_ssrc, None)
        middle, delay = 0, 0
        if self._sender is not None:
            middle = self._sender[0].ntp_middle
            delay = int((time.monotonic() - self._sender[1]) * 65536)
        numbers = self._numbers
        reception = Reception(self._ssrc, numbers.lost, max(numbers.highest, 0), middle, delay)
        return receiver_report(self._own_ssrc, reception)

    def _begin(self, ssrc: int) -> None:
        """Begin with a new sender: its numbers and clock have nothing to do with those before."""
        if self._ssrc is not None:
            self._decoder.lose()
            self._reorder = Reorder()
            self._sender = None
            self._numbers = PacketNumbers()
            self._clock = MediaClock(self._track.clock_rate)
            self._depacketiser = self._track.depacketiser()
        self._ssrc = ssrc

    def _take(self, packet: RtpPacket, arrived_s: float) -> Sequence[LiveFrame]:
        missing = self._numbers.follow(packet.sequence)
        if missing < 0:
            return ()
        if missing:
            self._counts.lost_packets += missing
        units = self._depacketiser.push(packet.payload, packet.timestamp, packet.marker, missing > 0)
        if not units:
            return ()
        frames: list[LiveFrame] = []
        for unit in units:
            frames += self._decoded(unit, arrived_s)
        return frames

    def _decoded(self, unit: AccessUnit, arrived_s: float) -> Sequence[LiveFrame]:
        total = self._clock.unwrap(unit.timestamp)
        if unit.damaged or unit.after_loss:
            self._decoder.lose()
        if unit.damaged:
            self._counts.damaged += 1
            return ()
        times = UnitTimes(Fraction(total, self._track.clock_rate), arrived_s, self._clock.camera_s(total))
        return self._decoder.decode(unit.data, unit.keyframe, times)


def _close(session: Session, media: Media | None) -> None:
    session.teardown()
    if media is not None:
        media.close()
    session.connection.close()
