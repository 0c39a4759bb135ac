"""Opening a container with FFmpeg, from a file descriptor and within limits; see `video` for why."""

from typing import Any, Final

import av
from av.stream import Disposition

from moodline.services.ingest.file.kinds import refused_kind
from moodline.services.ingest.file.structure import Structure
from moodline.shared.errors import SourceError
from moodline.shared.streams import FailureReason

CONTAINERS: Final = (
    "amv,apng,asf,av1,avi,dirac,dv,flv,gif,gxf,h261,h263,h264,hevc,ivf,m4v,matroska,mjpeg,mjpeg_2000,mov,mpeg,mpegts,mpegvideo,"
    "mxf,nsv,nut,obu,ogg,rm,vc1,vvc,wtv,yuv4mpegpipe,"
    "bmp_pipe,jpeg_pipe,jpegxl_pipe,pam_pipe,pbm_pipe,pgm_pipe,png_pipe,ppm_pipe,tiff_pipe,webp_pipe,"
    "aac,ac3,aiff,amr,eac3,flac,mp3,w64,wav"
)
"""FFmpeg's names of the demuxers that are let in: containers and pictures that hold their own media. Those without video are
here so that an audio file is told to be one."""

_NOT_VIDEO: Final = Disposition.attached_pic | Disposition.timed_thumbnails | Disposition.dependent
"""Covers, previews, and tiles or layers that are no picture of their own (HEIC photos, stereo video)."""


def require_read_kind(head: bytes, tail: bytes) -> None:
    """Refuse a kind of file that is not read. Raises `SourceError`."""
    sentence = refused_kind(head, tail)
    if sentence is not None:
        raise SourceError(FailureReason.CODEC, sentence)


def open_container(descriptor: int, max_pixels: int, structure: Structure) -> Any:
    """Open the container that a file descriptor is at the beginning of. Raises `SourceError`."""
    options = {
        "fd": str(descriptor),
        "protocol_whitelist": "fd",
        "format_whitelist": CONTAINERS,
        "max_pixels": decoder_limit(max_pixels),
    }
    try:
        return av.open("fd:", options=options, metadata_errors="replace")
    except av.error.ArgumentError:
        raise SourceError(
            FailureReason.CODEC,
            "the file is of a kind that is not read: it must be a video container or a picture, no playlist or script",
        ) from None
    except av.error.MemoryError:
        raise SourceError(FailureReason.TOO_LARGE, "the file needs more memory than there is") from None
    except av.FFmpegError as error:
        if structure.is_iso and not structure.has_index:
            raise SourceError(
                FailureReason.CORRUPT,
                "the file has no index (moov): it was cut, its recording was interrupted, or it is still being written",
            ) from None
        if structure.is_iso and structure.missing_bytes:
            raise SourceError(
                FailureReason.CORRUPT,
                f"the file is cut in its index (moov), {structure.missing_bytes} bytes are missing at its end",
            ) from None
        raise SourceError(FailureReason.CORRUPT, f"the file is no video, or damaged: {error.strerror}") from None


def video_stream(container: Any) -> Any:
    """Return the track that is shown. Raises `SourceError` where there is none."""
    tracks = [stream for stream in container.streams.video if not stream.disposition & _NOT_VIDEO]
    if not tracks:
        raise SourceError(FailureReason.NO_VIDEO, "the file has no video track")
    best = container.streams.best("video")
    track = best if best in tracks else tracks[0]
    if track.codec_context is None:
        raise SourceError(FailureReason.CODEC, "the file's video codec is not supported")
    return track


def decoder_limit(max_pixels: int) -> str:
    """Return the limit for FFmpeg's decoders, which round sizes up to whole blocks before they compare."""
    return str(2 * max_pixels + 65_536)


def require_size(size_px: tuple[int, int] | None, max_pixels: int) -> None:
    """Refuse a picture with more pixels than allowed; None: the size is not known. Raises `SourceError`."""
    if size_px is not None and size_px[0] * size_px[1] > max_pixels:
        width, height = size_px
        raise too_large(width, height, max_pixels)


def too_large(width: int, height: int, max_pixels: int) -> SourceError:
    """Return the error of a picture with more pixels than allowed."""
    return SourceError(
        FailureReason.TOO_LARGE,
        f"a picture of {width} x {height} px is over the limit of {max_pixels} px (MOODLINE_INGEST_MAX_PIXELS)",
    )
