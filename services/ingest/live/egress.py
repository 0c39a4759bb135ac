"""Connections to cameras, by the address policy: every name is resolved once, checked, and the checked address is used."""

import ipaddress
import socket
import ssl
from pathlib import Path
from typing import Protocol

from shared.net_policy import NetPolicy


class Egress(Protocol):
    """Opens connections to cameras. The only code of ingest that resolves names or connects to cameras."""

    policy: NetPolicy

    def connect(self, host: str, port: int, timeout_s: float, *, redirected_from: str | None = None) -> socket.socket:
        """Resolve, check and connect over TCP; the socket has `timeout_s` set and TCP_NODELAY.

        Args:
            host: Name or literal address.
            port: 1 to 65535.
            timeout_s: For resolving and connecting together.
            redirected_from: The host that sent us here, if one did: then loopback and link-local are refused, unless that
                host's own address is loopback too.

        Raises:
            SourceError: `forbidden_url`, `unreachable` (unknown name, refused, no route) or `timeout`.
        """
        ...

    def wrap_tls(self, plain: socket.socket, host: str, *, verify: bool, ca_file: Path | None = None) -> ssl.SSLSocket:
        """Do the TLS handshake for `host` within the socket's time-out. Raises `SourceError` `tls` or `timeout`."""
        ...

    def peer_address(self, connected: socket.socket) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
        """Return the address that a connection goes to; media over UDP may come from there alone."""
        ...
