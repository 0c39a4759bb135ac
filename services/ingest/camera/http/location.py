"""Addresses of HTTP requests: absolute ones, and references in redirects and playlists. Pure functions."""

import re
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import quote, urljoin, urlsplit

from moodline.shared.camera import CameraAddress
from moodline.shared.errors import SourceError
from moodline.shared.streams import FailureReason

_PORTS: Final = {"http": 80, "https": 443}
_LIMIT_CHARACTERS: Final = 4096
_KEPT: Final = "!#$%&'()*+,/:;=?@[]\\~"
_REFERENCE = re.compile(r"[!-~]+")


@dataclass(frozen=True, slots=True)
class Location:
    """An absolute HTTP address without credentials. Its `repr` leaves out the target, whose query may hold a token."""

    scheme: str
    host: str
    port: int
    target: str = field(repr=False)

    @property
    def origin(self) -> tuple[str, str, int]:
        """Scheme, host and port: credentials and connections belong to one origin."""
        return self.scheme, self.host, self.port

    @property
    def authority(self) -> str:
        """Host, and port where it is not the usual one: the `Host` header."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _PORTS[self.scheme] else f"{host}:{self.port}"

    def join(self, reference: str, schemes: frozenset[str]) -> "Location":
        """Return where a reference leads that was found at this location.

        Args:
            reference: Relative or absolute, as the server wrote it.
            schemes: Those that the policy allows; of them only `http` and `https` count.

        Raises:
            SourceError: `forbidden_url` for other schemes and for user names in it; `corrupt` for what is no reference.
        """
        # People write blanks and letters of all alphabets into names of files.
        if not reference.strip().isprintable():
            raise _senseless()
        reference = quote(reference.strip().strip('"'), safe=_KEPT)
        if len(reference) > _LIMIT_CHARACTERS or "\\" in reference or not _REFERENCE.fullmatch(reference):
            raise _senseless()
        # A colon in the first part names a scheme, whatever characters are before it ("subfile,,start,0:").
        scheme, colon, _ = re.split(r"[/?#]", reference, maxsplit=1)[0].partition(":")
        if colon and (scheme.lower() not in _PORTS or scheme.lower() not in schemes):
            raise SourceError(FailureReason.FORBIDDEN_URL, "the camera sends us to a URL of a scheme that is not allowed")
        try:
            parts = urlsplit(urljoin(f"{self.scheme}://{self.authority}{self.target}", reference))
            host, port = parts.hostname, parts.port
        except ValueError:
            raise _senseless() from None
        if parts.scheme not in _PORTS or not host:
            raise _senseless()
        if "@" in parts.netloc:
            raise SourceError(FailureReason.FORBIDDEN_URL, "the camera sends us to a URL with a user name in it")
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        return Location(parts.scheme, host, port or _PORTS[parts.scheme], target)


def location_of(address: CameraAddress) -> Location:
    """Return a camera's own location."""
    return Location(address.scheme, address.host, address.port, address.target)


def _senseless() -> SourceError:
    return SourceError(FailureReason.CORRUPT, "the camera sends us to an address that makes no sense")
