"""Tries a camera step by step, and says of each what came of it and what to change. Network and decoder are those of ingest."""

import time
from collections.abc import Callable, Generator, Iterator
from typing import Final, TypeVar

from moodline.services.ingest.camera.input.egress import Egress
from moodline.services.ingest.camera.input.frames import LiveFrame, LiveLimits, LiveSource
from moodline.services.ingest.camera.rtsp.media import Media, TcpMedia, UdpMedia
from moodline.services.ingest.camera.rtsp.sdp import VideoTrack
from moodline.services.ingest.camera.rtsp.session import Session, describe
from moodline.services.ingest.camera.rtsp.source import RtspSource
from moodline.services.ingest.camera.sources.open import open_live
from moodline.shared.camera import CameraAddress
from moodline.shared.errors import SourceError
from moodline.shared.probe import CameraStep
from moodline.shared.streams import FailureReason, Transport

Result = TypeVar("Result")

_KEYFRAME_FAR_S: Final = 4.0
_CLOCK_OFF_S: Final = 5.0
_LARGE_PX: Final = 1280 * 720
_CURES: Final = {
    FailureReason.AUTH: "give the camera's own user and password, percent-encoded in the URL, or as --user and --password-stdin",
    FailureReason.NOT_FOUND: "see `moodline camera urls` for the paths of well-known makers",
    FailureReason.UNREACHABLE: "check address and port, that the camera is on, and that a firewall lets you through",
    FailureReason.TIMEOUT: "check that the port is RTSP's, try `--transport` the other way, and the camera's load",
    FailureReason.TLS: "",
    FailureReason.CODEC: "",
    FailureReason.FORBIDDEN_URL: "the address policy (MOODLINE_INGEST_…) forbids it",
}


def probe(address: CameraAddress, egress: Egress, limits: LiveLimits, seconds: float = 5.0) -> Iterator[CameraStep]:
    """Try a camera, and yield what comes of each step as it is done; ends with the step that fails.

    Args:
        address: Of the camera.
        egress: Judges and opens the connections.
        limits: Time-outs and size.
        seconds: How long frames are watched at the end.
    """
    try:
        source: LiveSource
        if address.scheme in ("rtsp", "rtsps"):
            source = yield from _opened_rtsp(address, egress, limits)
        else:
            source = yield from _tried("connect and first frame", lambda: open_live(address, egress, limits), _first_frame)
    except _Failed as failed:
        yield failed.step
        return
    try:
        yield from _watched(source, seconds)
    except SourceError as error:
        yield _failure("frames", error)
    finally:
        source.close()


def _step(name: str, good: bool, found: str, cure: str = "") -> CameraStep:
    return CameraStep(name=name, good=good, found=found, cure=cure)


class _Failed(Exception):  # noqa: N818  # not an error: ends the steps from inside
    def __init__(self, step: CameraStep) -> None:
        self.step = step


def _opened_rtsp(address: CameraAddress, egress: Egress, limits: LiveLimits) -> Generator[CameraStep, None, LiveSource]:
    deadline_s = time.monotonic() + limits.open_timeout_s
    plain = yield from _tried(
        "resolve and connect", lambda: egress.connect(address.host, address.port, limits.open_timeout_s), lambda _: ""
    )
    plain.close()
    described = yield from _tried(
        "log in and describe", lambda: describe(address, egress, deadline_s), lambda it: _described(it.description.track)
    )
    session = Session(described)
    try:
        is_udp = address.transport is Transport.UDP

        def set_up() -> Media:
            return UdpMedia(session, egress, deadline_s) if is_udp else TcpMedia(session, deadline_s)

        media = yield from _tried("set up", set_up, lambda _: f"media over {address.transport}")
        yield from _tried("play", lambda: session.play(deadline_s, media.has_come), lambda _: "")
        source: LiveSource = yield from _tried("first keyframe", lambda: RtspSource(session, media, limits), _first_frame)
        return source
    except _Failed:
        session.connection.close()
        raise


def _tried(name: str, do: Callable[[], Result], describe_result: Callable[[Result], str]) -> Generator[CameraStep, None, Result]:
    began_s = time.monotonic()
    try:
        result = do()
    except SourceError as error:
        raise _Failed(_failure(name, error)) from None
    took = f"{time.monotonic() - began_s:.2f} s"
    summary = describe_result(result)
    yield _step(name, True, f"{summary}, {took}" if summary else took)
    return result


def _failure(name: str, error: SourceError) -> CameraStep:
    return _step(name, False, str(error), _CURES.get(FailureReason(error.reason), ""))


def _described(track: VideoTrack) -> str:
    size = f", {track.size_px[0]}x{track.size_px[1]}" if track.size_px else ""
    fps = f", {float(track.fps):g} frames/s" if track.fps else ""
    return f"{track.codec}{size}{fps} announced"


def _first_frame(source: LiveSource) -> str:
    return f"{source.info.codec}, {source.info.width}x{source.info.height}"


def _watched(source: LiveSource, seconds: float) -> Iterator[CameraStep]:
    began_s, frames = time.monotonic(), list[LiveFrame]()
    for frame in source.frames():
        frames.append(frame)
        if time.monotonic() - began_s >= seconds:
            break
    yield _rates(frames, seconds)
    counts, last = source.counts, frames[-1]
    lost = counts.lost_packets / max(1, counts.packets + counts.lost_packets)
    cure = "set `transport` to tcp, or mend the network" if lost > 0.001 else ""
    yield _step(
        "packets", lost <= 0.001, f"{counts.packets} came, {counts.lost_packets} were lost, {counts.damaged} damaged", cure
    )
    yield from _clock(last)
    yield from _keyframes(source)
    large = last.width * last.height > _LARGE_PX
    cure = "faces need less: take the camera's sub stream, which costs a fraction of the computing time" if large else ""
    yield _step("size", not large, f"{last.width}x{last.height}", cure)
    if counts.overloaded:
        yield _step(
            "speed", False, f"{counts.overloaded} frames could not be decoded in time", "take the sub stream, or more cores"
        )


def _rates(frames: list[LiveFrame], seconds: float) -> CameraStep:
    arrived_s = frames[-1].arrived_s - frames[0].arrived_s
    media_s = float(frames[-1].media_s - frames[0].media_s)
    real = (len(frames) - 1) / arrived_s if arrived_s > 0 else 0.0
    summary = f"{len(frames)} frames in {seconds:g} s, {real:.1f} frames/s"
    if len(frames) > 2 and arrived_s > 1 and not 0.8 <= media_s / arrived_s <= 1.25:
        return _step(
            "rates", False, f"{summary}; time stamps run {media_s / arrived_s:.2f} times as fast", "times of arrival are used"
        )
    return _step("rates", True, summary)


def _clock(frame: LiveFrame) -> Iterator[CameraStep]:
    if frame.camera_s is None:
        yield _step("clock", True, "the camera tells no time of day; times of arrival are used")
        return
    ahead_s = frame.camera_s - frame.arrived_s
    good = abs(ahead_s) <= _CLOCK_OFF_S
    yield _step("clock", good, f"{ahead_s:+.1f} s against this machine", "" if good else "set the camera's clock by NTP")


def _keyframes(source: LiveSource) -> Iterator[CameraStep]:
    counts = source.counts
    if counts.keyframe_gap_s is None:
        if counts.keyframes:
            yield _step("keyframes", False, "only one came", "set the keyframe interval (GOP, I-frame interval) to 2 s")
        return
    good = counts.keyframe_gap_s <= _KEYFRAME_FAR_S
    cure = "" if good else "set the keyframe interval (GOP, I-frame interval) to 2 s: after a loss nothing is seen until the next"
    yield _step("keyframes", good, f"one in {counts.keyframe_gap_s:.1f} s", cure)
