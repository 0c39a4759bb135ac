"""URLs of RTSP requests: where a camera says that its tracks are, and where it sends us. Pure."""

import re
from dataclasses import replace
from typing import Final
from urllib.parse import urlsplit

from moodline.shared.camera import CameraAddress
from moodline.shared.errors import SourceError
from moodline.shared.streams import FailureReason

_URL = re.compile(r"[!-~]{1,4096}")
_SCHEMES: Final = {"rtsp": 554, "rtsps": 322}


def clean_url(text: str | None) -> str | None:
    """Return an absolute URL of RTSP without user and password, or None when the text is none."""
    text = None if text is None else text.strip()
    if text is None or not _URL.fullmatch(text):
        return None
    scheme, separator, rest = text.partition("://")
    if not separator or scheme.lower() not in _SCHEMES:
        return None
    authority = re.split(r"[/?#]", rest, maxsplit=1)[0]
    host = authority.rpartition("@")[2]
    return f"{scheme.lower()}://{host}{rest[len(authority) :]}" if host else None


def control_url(base: str, control: str) -> str:
    """Return the URL of a track, or of the session, from its `a=control`.

    Absolute URLs stand for themselves, "" and `*` for the base. All else is appended, as cameras expect it, and not resolved
    by the rules for web pages: `rtsp://host/live` and `track1` give `rtsp://host/live/track1`.
    """
    if control in {"", "*"}:
        return base
    absolute = clean_url(control)
    if absolute is not None:
        return absolute
    control = control.replace(" ", "%20")
    if not _URL.fullmatch(control) or "://" in control:
        return base
    if control.startswith("?"):
        return base + control
    return base.rstrip("/") + "/" + control.lstrip("/")


def redirected(address: CameraAddress, location: str | None, schemes: frozenset[str]) -> CameraAddress:
    """Return where a redirect leads. The log-in goes along to the same host alone, and never from TLS to plain.

    Raises:
        SourceError: `corrupt` or `forbidden_url`.
    """
    if location is not None and location.startswith("/") and not location.startswith("//"):
        location = f"{address.scheme}://{address.netloc}{location}"
    url = None if location is None else location.strip()
    if url is None or not _URL.fullmatch(url) or "://" not in url:
        raise SourceError(FailureReason.CORRUPT, "the camera redirects to an address that makes no sense")
    scheme = url.partition("://")[0].lower()
    if scheme not in _SCHEMES or scheme not in schemes:
        raise SourceError(FailureReason.FORBIDDEN_URL, "the camera redirects to an address of a scheme that is not allowed")
    try:
        parts = urlsplit(clean_url(url) or "")
        host, port = parts.hostname, parts.port or _SCHEMES[scheme]
    except ValueError:
        host, port = None, 0
    if not host:
        raise SourceError(FailureReason.CORRUPT, "the camera redirects to an address that makes no sense")
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    moved = replace(address, scheme=scheme, host=host, port=port, target=target)
    if host != address.host or (address.scheme == "rtsps" and scheme == "rtsp"):
        moved = replace(moved, username=None, password=None)
    return moved
