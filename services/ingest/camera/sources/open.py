"""Opens the connection to a camera. The scheme of the URL selects the adapter."""

from collections.abc import Callable

from moodline.services.ingest.camera.input.egress import Egress
from moodline.services.ingest.camera.input.frames import LiveLimits, LiveSource
from moodline.shared.camera import CameraAddress
from moodline.shared.errors import SourceError
from moodline.shared.streams import FailureReason

LiveOpener = Callable[[CameraAddress, Egress, LiveLimits], LiveSource]
"""Connects and decodes the first frame within `open_timeout_s`. Raises `SourceError` with the typed reason."""


def open_live(address: CameraAddress, egress: Egress, limits: LiveLimits) -> LiveSource:
    """Connect to a camera and wait for its first frame. Blocks for at most `limits.open_timeout_s`.

    Raises:
        SourceError: `auth` (401, 403), `not_found` (404, no such device), `unreachable` (no address, refused, reset),
            `timeout`, `tls`, `codec` (not supported), `no_video`, `corrupt` (what came makes no sense), `too_large`,
            `forbidden_url` (policy, redirects included).
    """
    if address.scheme in ("rtsp", "rtsps"):
        from moodline.services.ingest.camera.rtsp.source import open_rtsp

        return open_rtsp(address, egress, limits)
    if address.scheme in ("http", "https"):
        from moodline.services.ingest.camera.http.source import open_http

        return open_http(address, egress, limits)
    if address.scheme == "device":
        from moodline.services.ingest.camera.sources.device import open_device

        return open_device(address, egress, limits)
    raise SourceError(FailureReason.FORBIDDEN_URL, "no camera is read from a URL of this scheme")
