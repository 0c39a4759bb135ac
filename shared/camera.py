"""Address and credentials of a camera. The only place that holds credentials in clear text, in memory only."""

from dataclasses import dataclass, field

from moodline.shared.streams import Transport


@dataclass(frozen=True, slots=True)
class CameraAddress:
    """A camera's whole address. Its `repr` shows neither credentials nor the target, whose query may hold a token.

    Attributes:
        scheme: `rtsp`, `rtsps`, `http`, `https` or `device`, lower-case.
        host: Name or address, lower-case, without brackets; of a device its number or path.
        port: 1 to 65535; 0 for a device.
        target: Path and query as they go over the wire, percent-encoded, beginning with `/`; secrets of the query included.
        username, password: Decoded; None when there is none. A password may be empty.
        transport: For RTSP.
        tls_verify: Whether the certificate must be valid for `host`.
    """

    scheme: str
    host: str
    port: int
    target: str = field(default="/", repr=False)
    username: str | None = field(default=None, repr=False)
    password: str | None = field(default=None, repr=False)
    transport: Transport = Transport.TCP
    tls_verify: bool = True

    @property
    def netloc(self) -> str:
        """`host:port`, an IPv6 address in brackets; no credentials."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"

    @property
    def plain_url(self) -> str:
        """The URL without user and password, but with its whole query: for requests to the camera, never for people."""
        return f"{self.scheme}://{self.netloc}{self.target}"
