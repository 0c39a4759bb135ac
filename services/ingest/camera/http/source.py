"""Cameras over HTTP: what the camera sends tells whether it is a multipart stream, a playlist or a single picture."""

import time
from typing import Final

from moodline.services.ingest.camera.http.client import HttpClient, HttpResponse
from moodline.services.ingest.camera.http.hls import open_hls
from moodline.services.ingest.camera.http.location import location_of
from moodline.services.ingest.camera.http.mjpeg import open_mjpeg, open_snapshots
from moodline.services.ingest.camera.http.raw_video import RawVideoSource, is_raw_video
from moodline.services.ingest.camera.input.egress import Egress
from moodline.services.ingest.camera.input.frames import LiveLimits, LiveSource
from moodline.shared.camera import CameraAddress
from moodline.shared.errors import SourceError
from moodline.shared.streams import FailureReason

_PLAYLIST_TYPES: Final = frozenset({"application/vnd.apple.mpegurl", "application/x-mpegurl", "audio/mpegurl", "audio/x-mpegurl"})
_PLAYLIST_LIMIT_BYTES: Final = 1024 * 1024
_TELLING_BYTES: Final = 1024
_JPEG: Final = b"\xff\xd8"
_BEGINNING_BYTES: Final = 3
_SEARCHED_BYTES: Final = 16 * 1024


def open_http(address: CameraAddress, egress: Egress, limits: LiveLimits) -> LiveSource:
    """Connect to a camera over `http` or `https` and decode its first frame, all within `limits.open_timeout_s`.

    Raises:
        SourceError: as `open_live`; `codec` when it is neither MJPEG nor HLS.
    """
    deadline_s = time.monotonic() + limits.open_timeout_s
    client = HttpClient(address, egress)
    try:
        return _open(client, address, limits, deadline_s)
    except BaseException:
        client.close()
        raise


def _open(client: HttpClient, address: CameraAddress, limits: LiveLimits, deadline_s: float) -> LiveSource:
    """Tell by what comes what it is; what the camera calls it is often wrong."""
    response = client.get(location_of(address), deadline_s)
    kind = response.content_type.partition(";")[0].strip().lower()
    begun = b""
    while len(begun) < _TELLING_BYTES and (piece := response.read(deadline_s)):
        begun += piece
        if len(begun) > _BEGINNING_BYTES and begun.strip(b"\0 \t\r\n"):
            break
    path = response.location.target.partition("?")[0]
    if (
        kind in _PLAYLIST_TYPES
        or begun.removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"#EXTM3U")
        or path.lower().endswith((".m3u8", ".m3u"))
    ):
        text = response.read_all(_PLAYLIST_LIMIT_BYTES, deadline_s, begun)
        return open_hls(client, response.location, text, limits, deadline_s)
    if kind.startswith("multipart/") or begun.lstrip().startswith(b"--"):
        return open_mjpeg(client, response, begun, limits, deadline_s)
    if begun.startswith(_JPEG) or kind in ("image/jpeg", "image/jpg", "image/pjpeg"):
        opener = open_snapshots if response.has_length else open_mjpeg
        return opener(client, response, begun, limits, deadline_s)
    if is_raw_video(begun):
        return RawVideoSource(client, response, begun, limits, deadline_s)
    if begun.lstrip()[:1] != b"<" and (more := _until_picture(response, begun, deadline_s)):
        # Whatever it is called, and whatever stands between the pictures.
        return open_mjpeg(client, response, more, limits, deadline_s)
    if begun.lstrip()[:1] == b"<":
        raise SourceError(FailureReason.CODEC, "the camera sends a web page: its stream is at another path than this one")
    raise SourceError(FailureReason.CODEC, "what the camera sends is neither MJPEG nor HLS")


def _until_picture(response: HttpResponse, begun: bytes, deadline_s: float) -> bytes:
    """Return the beginning of a body up to where its first JPEG begins; b"" when there is none near."""
    while _JPEG + b"\xff" not in begun:
        piece = response.read(deadline_s) if len(begun) < _SEARCHED_BYTES else b""
        if not piece:
            return b""
        begun += piece
    return begun
