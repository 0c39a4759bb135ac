"""Cameras over RTSP: signalling and packets are taken apart here, FFmpeg is the decoder alone.

One thread reads the connection, so that nothing grows old in the kernel's buffers; the caller's thread decodes what is in the
backlog between them.
"""

import secrets
import threading
import time
from collections.abc import Generator, Iterator, Sequence
from fractions import Fraction
from typing import Final, NoReturn

from moodline.services.ingest.camera.input.access_unit import AccessUnit
from moodline.services.ingest.camera.input.backlog import Backlog, CodedFrame
from moodline.services.ingest.camera.input.decoder import KeyframeDecoder, UnitTimes
from moodline.services.ingest.camera.input.egress import Egress
from moodline.services.ingest.camera.input.frames import FrameGap, LiveCounts, LiveFrame, LiveInfo, LiveLimits, LiveSource
from moodline.services.ingest.camera.input.transport_stream import TransportStreamDepacketiser
from moodline.services.ingest.camera.rtsp.media import Media, Reorder, TcpMedia, UdpMedia
from moodline.services.ingest.camera.rtsp.rtp import (
    MediaClock,
    NumberTrust,
    PacketNumbers,
    Reception,
    RtpPacket,
    SenderReport,
    parse_rtcp,
    parse_rtp,
    receiver_report,
)
from moodline.services.ingest.camera.rtsp.sdp import TRANSPORT_STREAM, VideoTrack
from moodline.services.ingest.camera.rtsp.session import Session, describe
from moodline.shared.camera import CameraAddress
from moodline.shared.errors import ImageError, SourceError
from moodline.shared.streams import FailureReason, Transport

_REPORT_S: Final = 5.0
_HOUSEKEEPING_S: Final = 0.5
_REORDER_WAIT_S: Final = 0.1
_ENDED_LIMIT: Final = 64
_ENDED_S: Final = 0.3
"""A camera that goes on to send after it has said that it ends has not ended."""
_CHANGES_BORNE: Final = 6
_STEADY_PACKETS: Final = 20
"""An SSRC that changes more often than borne, each time after fewer packets, is no sender's name."""
_POLL_S: Final = 0.25
_CLOSE_S: Final = 1.0
_OTHER_PACKETS: Final = 20
"""After so many packets of one other payload type, and none of the described one, the description is taken to be wrong."""


def open_rtsp(address: CameraAddress, egress: Egress, limits: LiveLimits) -> LiveSource:
    """Connect to a camera over `rtsp` or `rtsps` and decode its first frame.

    Blocks for at most `limits.open_timeout_s`, and then for `limits.keyframe_timeout_s` until the first frame.

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
        session.play(deadline_s, media.has_come)
        return RtspSource(session, media, limits)
    except BaseException:
        _close(session, media)
        raise


class RtspSource:
    """One camera that plays. Implements `LiveSource`."""

    def __init__(self, session: Session, media: Media, limits: LiveLimits) -> None:
        track = session.described.description.track
        self.counts = LiveCounts()
        self._session = session
        self._media = media
        self._limits = limits
        self._backlog = Backlog()
        self._receiver = Receiver(track, self.counts, self._backlog)
        self._decoder = None if track.codec == TRANSPORT_STREAM else self._decoder_of(track.codec)
        self._stop = threading.Event()
        self._reading = threading.Thread(target=self._receive, name="rtsp", daemon=True)
        self._frame_seen_s = time.monotonic()
        self._has_frames = False
        self._gap = FrameGap(limits)
        self._rest = self._read()
        self._reading.start()
        try:
            self._first: LiveFrame | None = self._first_decoded()
        except BaseException:
            self.close()
            raise
        assert self._decoder is not None  # it has decoded a frame
        self.info = LiveInfo(self._decoder.codec_name, self._first.width, self._first.height, track.fps)

    def frames(self) -> Iterator[LiveFrame]:
        first, self._first = self._first, None
        if first is not None:
            yield first
        yield from self._rest

    def close(self) -> None:
        self._stop.set()
        self._reading.join(_CLOSE_S)

    def _decoder_of(self, codec: str) -> KeyframeDecoder:
        extradata = self._session.described.description.track.extradata
        return KeyframeDecoder(codec, extradata, self._limits.max_pixels, self.counts)

    def _first_decoded(self) -> LiveFrame:
        return next(frame for frame in self._rest if not frame.is_overloaded)

    def _read(self) -> Generator[LiveFrame, None, None]:
        """Decode what is in the backlog."""
        decoder, backlog, width_height = self._decoder, self._backlog, (0, 0)
        while True:
            coded = backlog.take(_POLL_S)
            self.counts.overloaded = backlog.overloaded
            if coded is None:
                self._check_time()
                continue
            if coded.is_overloaded:
                yield LiveFrame(*coded.times, *width_height, _no_picture, is_overloaded=True)
                continue
            if decoder is None:
                # What the media is, was known before its first frame.
                decoder = self._decoder = self._decoder_of(self._receiver.codec)
            if coded.is_after_loss:
                decoder.lose()
            for frame in decoder.decode(coded.data, coded.keyframe, coded.times, coded.recovery):
                width_height = frame.width, frame.height
                self._has_frames, self._frame_seen_s = True, time.monotonic()
                self._gap.frame(self._frame_seen_s)
                yield frame
                self._frame_seen_s = time.monotonic()
            self._check_time()

    def _check_time(self) -> None:
        """Raise `SourceError` when the camera has been silent, or has sent nothing that can be shown, for too long."""
        now_s, limits = time.monotonic(), self._limits
        if self._receiver.has_ended:
            raise _ended()
        if self._has_frames and now_s - max(self._receiver.media_seen_s, self._frame_seen_s) >= self._gap.limit_s:
            raise SourceError(FailureReason.TIMEOUT, "the camera sends no frame that can be shown")
        if now_s - self._frame_seen_s >= max(limits.keyframe_timeout_s, self._gap.limit_s):
            raise self._nothing_shown()

    def _nothing_shown(self) -> SourceError:
        if not self.counts.packets:
            sentence = self._media.trouble() or "the camera agrees to play, but sends no media: try the other `transport`"
        elif self._receiver.trouble:
            sentence = self._receiver.trouble
        elif self._session.described.description.track.is_secure:
            sentence = "what the camera sends cannot be decoded; it may be encrypted once more (SRTP): turn SRTP off"
        else:
            sentence = (
                "the camera sends no frame that can be shown: no keyframe came in time; set its keyframe interval to 2 s, "
                "or raise MOODLINE_INGEST_FIRST_FRAME_TIMEOUT_S"
            )
        return SourceError(FailureReason.TIMEOUT, sentence)

    def _receive(self) -> None:
        """Read the connection until it is over or closed; the thread that reads also says good-bye."""
        try:
            self._receive_all()
        except SourceError as error:
            self._backlog.fail(error)
        except Exception as error:  # noqa: BLE001  # ends this thread: the other one must know
            self._backlog.fail(SourceError(FailureReason.INTERNAL, f"reading crashed ({type(error).__name__})"))
        finally:
            _close(self._session, self._media)

    def _receive_all(self) -> None:
        media, receiver = self._media, self._receiver
        chore_s = report_s = time.monotonic() + _HOUSEKEEPING_S
        while not self._stop.is_set():
            received = media.receive()
            if received.rtp:
                receiver.goes_on()
            for data in received.rtcp:
                receiver.take_rtcp(data)
            for data, arrived_s in received.rtp:
                receiver.take_rtp(data, arrived_s, media.reorders)
            receiver.require_sender()
            for response in received.responses:
                self._session.answered(response)
            now_s = time.monotonic()
            if media.reorders:
                receiver.take_overdue(now_s)
            if not received.rtp:
                receiver.idle(now_s)
            if now_s >= chore_s:
                chore_s = now_s + _HOUSEKEEPING_S
                self._session.keep_alive(now_s)
                if now_s >= report_s:
                    report_s = now_s + _REPORT_S
                    media.send_rtcp(receiver.report())


class Receiver:
    """Packets of one track into coded frames: order, losses, clocks, access units. Used by the thread that reads.

    Attributes:
        media_seen_s: Monotonic time of the last packet of the track; may be read by any thread.
        codec: FFmpeg's name of the codec, known before the first frame is put into the backlog.
    """

    def __init__(self, track: VideoTrack, counts: LiveCounts, backlog: Backlog) -> None:
        self._track = track
        self._counts = counts
        self._backlog = backlog
        self._payload_type = track.payload_type
        self._others: dict[int, int] = {}
        self._own_ssrc = secrets.randbits(32)
        self._ssrc: int | None = None
        self._reorder = Reorder()
        self._progress_s = 0.0
        self._ended: list[int] = []
        self._sender: tuple[SenderReport, float] | None = None
        self._numbers = PacketNumbers()
        self._trust = NumberTrust()
        self._since_change = 0
        self._changes = 0
        self._clock = MediaClock(track.clock_rate)
        self._depacketiser = track.depacketiser()
        self._is_lost = False
        self._keyframe_total: int | None = None
        self._arrived_s = 0.0
        self.media_seen_s = time.monotonic()
        self.codec = track.codec

    @property
    def trouble(self) -> str:
        """Why nothing that is sent can be read, where that is known."""
        return self._depacketiser.trouble

    def take_rtp(self, data: bytes, arrived_s: float, reorders: bool) -> None:
        """Take a packet. What is no packet of the track is passed over."""
        packet = parse_rtp(data)
        if packet is None or not self._is_ours(packet.payload_type):
            return
        self._counts.packets += 1
        self.media_seen_s = time.monotonic()
        if packet.ssrc != self._ssrc and self._is_new_sender():
            if self._numbers.is_next(packet.sequence):
                # Some cameras take a new one for every group of pictures, and go on to count.
                self._ssrc = packet.ssrc
            else:
                self._begin(packet.ssrc)
        self._since_change += 1
        if not reorders:
            self._take(packet, arrived_s, checks_numbers=True)
            return
        ready = self._reorder.push(packet)
        if ready:
            self._progress_s = self.media_seen_s
        for one in ready:
            self._take(one, arrived_s)

    def take_overdue(self, now_s: float) -> None:
        """Take packets that have waited too long for one before them."""
        if now_s - self._progress_s >= _REORDER_WAIT_S:
            for one in self._reorder.expire():
                self._take(one, self._arrived_s or time.time())

    def idle(self, now_s: float) -> None:
        """Note that nothing has come for a while: what is whole by its marker need not wait for what follows."""
        if now_s - self.media_seen_s >= _POLL_S / 2:
            self._put(self._depacketiser.idle())

    def take_rtcp(self, data: bytes) -> None:
        """Take reports of the camera's clock, and what has ended."""
        found = parse_rtcp(data)
        for report in found.reports:
            if self._ssrc in (None, report.ssrc) or self._changes > _CHANGES_BORNE:
                self._clock.report(report.unix_s, report.timestamp)
                self._sender = report, time.monotonic()
        self._ended += found.ended[: _ENDED_LIMIT - len(self._ended)]

    @property
    def has_ended(self) -> bool:
        """Return whether the camera has said that it ends, and does."""
        return self._ssrc in self._ended and time.monotonic() - self.media_seen_s >= _ENDED_S

    def goes_on(self) -> None:
        """Note that media has come after all that was said so far."""
        self._ended.clear()

    def require_sender(self) -> None:
        """Raise `SourceError` when the camera has ended."""
        if self._ended and self.has_ended:
            raise _ended()

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

    def _is_ours(self, payload_type: int) -> bool:
        """Return whether a packet is of the track. A few cameras send another payload type than they describe."""
        if payload_type == self._payload_type:
            return True
        if self._counts.packets == 0 and not 64 <= payload_type < 96:
            self._others[payload_type] = self._others.get(payload_type, 0) + 1
            if len(self._others) == 1 and self._others[payload_type] >= _OTHER_PACKETS:
                self._payload_type = payload_type
                return True
        return False

    def _is_new_sender(self) -> bool:
        """Return whether another SSRC is another sender. Where it changes all the time, it says nothing."""
        if self._changes <= _CHANGES_BORNE:
            self._changes = self._changes + 1 if self._since_change < _STEADY_PACKETS and self._ssrc is not None else 0
        self._since_change = 0
        return self._changes <= _CHANGES_BORNE

    def _begin(self, ssrc: int) -> None:
        """Begin with a new sender: its numbers and clock have nothing to do with those before."""
        if self._ssrc is not None:
            self._is_lost = True
            self._reorder = Reorder()
            self._sender = None
            self._numbers = PacketNumbers()
            self._clock = MediaClock(self._track.clock_rate)
            self._depacketiser = self._track.depacketiser()
        self._ssrc = ssrc

    def _take(self, packet: RtpPacket, arrived_s: float, *, checks_numbers: bool = False) -> None:
        missing = self._numbers.follow(packet.sequence)
        if checks_numbers:
            missing = self._trust.judge(missing, packet)
        if missing < 0:
            return
        if missing:
            self._counts.lost_packets += missing
        units = self._depacketiser.push(packet.payload, packet.timestamp, packet.marker, missing > 0, packet.extension)
        # A unit that the first packet of the next one ends had arrived with the packet before.
        self._put(units, self._arrived_s if units and units[-1].timestamp != packet.timestamp else arrived_s)
        self._arrived_s = arrived_s

    def _record_keyframe(self, total: int) -> None:
        if self._keyframe_total is not None:
            self._counts.keyframe_gap_s = (total - self._keyframe_total) / self._track.clock_rate
        self._counts.keyframes += 1
        self._keyframe_total = total

    def _put(self, units: Sequence[AccessUnit], arrived_s: float | None = None) -> None:
        arrived_s = self._arrived_s if arrived_s is None else arrived_s
        if units and isinstance(self._depacketiser, TransportStreamDepacketiser):
            self.codec = self._depacketiser.codec
        for unit in units:
            total = self._clock.unwrap(unit.timestamp)
            self._is_lost |= unit.damaged or unit.after_loss
            if unit.damaged:
                self._counts.damaged += 1
                continue
            if unit.keyframe:
                self._record_keyframe(total)
            times = UnitTimes(Fraction(total, self._track.clock_rate), arrived_s, self._clock.camera_s(total))
            is_lost, self._is_lost = self._is_lost, False
            self._backlog.put(CodedFrame(unit.data, unit.keyframe, unit.recovery, unit.is_reference, is_lost, False, times))


def _ended() -> SourceError:
    return SourceError(FailureReason.UNREACHABLE, "the camera ended the stream")


def _no_picture() -> NoReturn:
    raise ImageError("the frame was left out")


def _close(session: Session, media: Media | None) -> None:
    session.teardown()
    if media is not None:
        media.close()
    session.connection.close()
