"""`moodline push`: a device that brings frames, as an example of one: a clip or this machine's camera, at its own speed."""

import math
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from moodline.services.cli.connection import open_client
from moodline.services.report.outputs import shown
from moodline.shared.clock import Clock, SystemClock
from moodline.shared.errors import ImageError, SettingsError, SourceError
from moodline.shared.settings import IngestSettings, load_settings

if TYPE_CHECKING:
    from moodline.services.ingest.media.frames import BgrImage


def push(
    source: Annotated[str, typer.Argument(help="A clip's path, or device://0 for a camera of this machine.", show_default=False)],
    stream: Annotated[str, typer.Option(help="Id of a stream that was added with the url push://.", show_default=False)],
    fps: Annotated[float, typer.Option(min=0.01, max=240, help="At most so many frames per second.")] = 10.0,
    max_side_px: Annotated[int, typer.Option(min=64, max=8192, help="Longest side of a frame, in px.")] = 640,
    seconds: Annotated[
        float | None, typer.Option(min=0, help="Stop after so many seconds.", show_default="until the clip ends")
    ] = None,
    *,
    loop: Annotated[bool, typer.Option("--loop", help="Begin the clip again when it has ended.")] = False,
) -> None:
    """Bring a clip's or a camera's frames to a stream, each when its time has come. Ends at the end, or by Ctrl+C."""
    settings = load_settings()
    frames = paced(pictures(source, settings.ingest, loop=loop), fps, seconds, SystemClock())
    encoded = (_encoded(image, max_side_px, settings.ingest.jpeg_quality, at) for image, at in frames)
    with open_client() as client:
        totals = client.push_frames(stream, encoded)
    typer.echo(
        f"{totals.sent} frames sent, {totals.sampled} of them are analysed; "
        f"{totals.spared} were spared, {totals.lost} lost because the service was busy"
    )


def paced(
    pictures: "Iterator[tuple[Fraction, BgrImage]]", fps: float, seconds: float | None, clock: Clock
) -> "Iterator[tuple[BgrImage, datetime]]":
    """Yield pictures when their time has come, with the time of day at which that was; those in between are left out.

    Args:
        pictures: Media time in s, never decreasing, and picture.
        fps: Most pictures per second of media time.
        seconds: Stop after so much media time; None: at the end.
        clock: Tells the time, and waits.
    """
    began_s, began = clock.monotonic_s(), datetime.fromtimestamp(clock.now_s(), UTC)
    slot = -1
    for media_s, image in pictures:
        if seconds is not None and media_s >= seconds:
            return
        if (mine := math.floor(float(media_s) * fps)) <= slot:
            continue
        slot = mine
        ahead_s = began_s + float(media_s) - clock.monotonic_s()
        if ahead_s > 0:
            clock.sleep(ahead_s)
        yield image, began + timedelta(seconds=float(media_s))


def pictures(source: str, settings: IngestSettings, *, loop: bool) -> "Iterator[tuple[Fraction, BgrImage]]":
    """Yield media time in s and picture of a clip, or of a camera of this machine.

    Raises:
        SourceError: it cannot be read.
    """
    if source.startswith("device://"):
        yield from _of_device(source, settings)
        return
    from moodline.services.ingest.file.open import open_source

    path = Path(source).expanduser().resolve()
    begin_s = Fraction(0)
    while True:
        try:
            clip = open_source(path.as_uri(), settings.model_copy(update={"media_root": path.parent}))
        except SourceError as error:
            raise SourceError(error.reason, f"{shown(source)}: {error}") from None
        try:
            for frame in clip.frames():
                yield begin_s + frame.pts_s, frame.to_bgr()
            begin_s += clip.end_s
        finally:
            clip.close()
        if not loop:
            return


def _of_device(source: str, settings: IngestSettings) -> "Iterator[tuple[Fraction, BgrImage]]":
    from moodline.services.ingest.camera.input.egress import PolicyEgress
    from moodline.services.ingest.camera.input.frames import LiveLimits
    from moodline.services.ingest.camera.sources.device import open_device
    from moodline.shared.camera_url import camera_address, register_url
    from moodline.shared.net_policy import net_policy_of
    from moodline.shared.streams import StreamSpec

    address = camera_address(StreamSpec(stream_id="device", url=register_url(source).url), None)
    limits = LiveLimits(settings.open_timeout_s, settings.read_timeout_s, settings.max_pixels)
    camera = open_device(address, PolicyEgress(net_policy_of("device", False, "", "")), limits)
    began_s: Fraction | None = None
    try:
        for frame in camera.frames():
            began_s = frame.media_s if began_s is None else began_s
            yield frame.media_s - began_s, frame.to_bgr()
    finally:
        camera.close()


def _encoded(image: "BgrImage", max_side_px: int, quality: int, at: datetime) -> tuple[bytes, datetime]:
    from moodline.services.ingest.media.encode import encode_jpeg, reduce_image

    try:
        return encode_jpeg(reduce_image(image, max_side_px), quality), at
    except ImageError as error:
        raise SettingsError(f"the pictures cannot be encoded: {error}") from None
