"""Connections to cameras, by the address policy: every name is resolved once, checked, and the checked address is used."""

import contextlib
import ipaddress
import socket
import ssl
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

from moodline.shared.errors import SourceError
from moodline.shared.net_policy import Address, NetPolicy, is_loopback
from moodline.shared.streams import FailureReason

Resolver = Callable[[str, int], Sequence[str]]
"""Returns a host's addresses as text. May block; raises `OSError` when there are none."""


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


def resolve(host: str, port: int) -> Sequence[str]:
    """Ask the system for a host's addresses, in its order of preference. Blocks. Raises `OSError`."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


class PolicyEgress:
    """Implements `Egress`. A name is resolved once per connection; only addresses that were judged are connected to."""

    def __init__(self, policy: NetPolicy, *, ca_file: Path | None = None, resolver: Resolver = resolve) -> None:
        self.policy = policy
        self._ca_file = ca_file
        self._resolver = resolver
        self._loopback_hosts: set[str] = set()

    def connect(self, host: str, port: int, timeout_s: float, *, redirected_from: str | None = None) -> socket.socket:
        deadline_s = time.monotonic() + timeout_s
        is_redirected = redirected_from is not None and redirected_from.lower() not in self._loopback_hosts
        addresses = self._permitted(self._addresses(host, port, timeout_s), redirected=is_redirected)
        error: OSError | None = None
        for tried, address in enumerate(addresses):
            remaining_s = deadline_s - time.monotonic()
            if remaining_s <= 0:
                break
            try:
                # One address that does not answer must not use up the time of the others.
                connected = socket.create_connection((str(address), port), remaining_s / (len(addresses) - tried))
            except OSError as failed:
                error = failed
                continue
            if self.peer_address(connected) != address:
                close_quietly(connected)
                raise SourceError(FailureReason.FORBIDDEN_URL, "the connection leads to another address than was checked")
            connected.settimeout(timeout_s)
            connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if is_loopback(address):
                self._loopback_hosts.add(host.lower())
            return connected
        raise _failure(error)

    def wrap_tls(self, plain: socket.socket, host: str, *, verify: bool, ca_file: Path | None = None) -> ssl.SSLSocket:
        ca_file = ca_file or self._ca_file
        try:
            context = ssl.create_default_context(cafile=None if ca_file is None else str(ca_file))
        except OSError:
            raise SourceError(FailureReason.TLS, "the file of MOODLINE_INGEST_TLS_CA_FILE cannot be read") from None
        if not verify:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        try:
            return context.wrap_socket(plain, server_hostname=host)
        except ssl.SSLCertVerificationError as error:
            raise SourceError(FailureReason.TLS, _certificate_sentence(error)) from None
        except TimeoutError:
            raise SourceError(FailureReason.TIMEOUT, "the camera does not finish the TLS handshake") from None
        except (ssl.SSLError, ValueError):
            raise SourceError(FailureReason.TLS, "the TLS handshake fails; is it a TLS port?") from None
        except OSError:
            raise SourceError(FailureReason.UNREACHABLE, "the camera closes the connection in the TLS handshake") from None

    def peer_address(self, connected: socket.socket) -> Address:
        return _address(str(connected.getpeername()[0]))

    def _addresses(self, host: str, port: int, timeout_s: float) -> list[Address]:
        """Resolve in a thread of its own: the system's resolver knows no time-out."""
        answers: list[Sequence[str]] = []
        failures: list[Exception] = []

        def ask() -> None:
            try:
                answers.append(self._resolver(host, port))
            except (OSError, UnicodeError) as error:
                failures.append(error)

        thread = threading.Thread(target=ask, name="resolve", daemon=True)
        thread.start()
        thread.join(timeout_s)
        if not answers and not failures:
            raise SourceError(FailureReason.TIMEOUT, "the camera's name is not resolved in time")
        if failures or not answers[0]:
            raise SourceError(FailureReason.UNREACHABLE, "the camera's name is not known")
        return [_address(text) for text in answers[0]]

    def _permitted(self, addresses: Sequence[Address], *, redirected: bool) -> list[Address]:
        refusals = [self.policy.refusal(address, redirected=redirected) for address in addresses]
        allowed = [address for address, refusal in zip(addresses, refusals, strict=True) if refusal is None]
        if not allowed:
            raise SourceError(FailureReason.FORBIDDEN_URL, next(refusal for refusal in refusals if refusal is not None))
        return allowed


def _address(text: str) -> Address:
    return ipaddress.ip_address(text.partition("%")[0])


def _failure(error: OSError | None) -> SourceError:
    if error is None or isinstance(error, TimeoutError):
        return SourceError(FailureReason.TIMEOUT, "the camera does not answer")
    if isinstance(error, ConnectionRefusedError):
        return SourceError(FailureReason.UNREACHABLE, "nothing listens at the camera's address and port")
    return SourceError(FailureReason.UNREACHABLE, "the camera cannot be reached")


def _certificate_sentence(error: ssl.SSLCertVerificationError) -> str:
    cure = "correct it, or set tls_verify to false for this stream"
    # OpenSSL's numbers: X509_V_ERR_CERT_HAS_EXPIRED, and those of names.
    if error.verify_code == 10:
        return f"the camera's certificate has expired; {cure}"
    if error.verify_code in (62, 64):
        return f"the camera's certificate is for another name; {cure}"
    return (
        "the camera's certificate is signed by nobody that is trusted; name its issuer's file in MOODLINE_INGEST_TLS_CA_FILE, "
        "or set tls_verify to false for this stream"
    )


def close_quietly(connected: socket.socket) -> None:
    """Close a socket; one that is broken already is as good as closed."""
    with contextlib.suppress(OSError):
        connected.shutdown(socket.SHUT_RDWR)
    connected.close()
