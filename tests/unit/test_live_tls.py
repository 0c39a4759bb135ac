"""TLS to cameras: whose certificate is believed, and what is said about one that is not."""

import socket
import ssl
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from threading import Thread

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from moodline.services.ingest.camera.input.egress import PolicyEgress
from moodline.shared.errors import SourceError
from moodline.shared.net_policy import net_policy_of

HOST = "127.0.0.1"
POLICY = net_policy_of("rtsps", True, "", "")


def certificate(path: Path, *, name: str = HOST, until_days: int = 1) -> Path:
    """Write a self-signed certificate for an address and its key; return the file."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "camera")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=9))
        .not_valid_after(now + timedelta(days=until_days))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address(name))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    path.write_bytes(made.public_bytes(serialization.Encoding.PEM) + private)
    return path


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as opened:
        yield opened


def serve(stack: ExitStack, pem: Path | None) -> int:
    """Serve TLS with a certificate, or nonsense without one; return the port."""
    listener = stack.enter_context(socket.create_server((HOST, 0)))

    def answer() -> None:
        with suppress(OSError):
            client, _ = listener.accept()
            with client:
                if pem is None:
                    client.sendall(b"RTSP/1.0 400 Bad Request\r\n\r\n")
                    client.recv(1000)
                    return
                context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
                context.load_cert_chain(pem)
                with context.wrap_socket(client, server_side=True) as secure:
                    secure.sendall(b"hello")
                    secure.recv(10)

    Thread(target=answer, daemon=True).start()
    return int(listener.getsockname()[1])


def hello(stack: ExitStack, pem: Path | None, *, verify: bool = True, ca_file: Path | None = None) -> bytes:
    """Connect as a camera's process does; return what the server says."""
    egress = PolicyEgress(POLICY, ca_file=ca_file)
    plain = stack.enter_context(egress.connect(HOST, serve(stack, pem), 5.0))
    return stack.enter_context(egress.wrap_tls(plain, HOST, verify=verify)).recv(100)


def test_a_certificate_of_a_trusted_issuer_is_believed(tmp_path: Path, stack: ExitStack) -> None:
    pem = certificate(tmp_path / "a.pem")
    assert hello(stack, pem, ca_file=pem) == b"hello"


def test_without_verification_any_will_do(tmp_path: Path, stack: ExitStack) -> None:
    assert hello(stack, certificate(tmp_path / "a.pem", until_days=-1), verify=False) == b"hello"


@pytest.mark.parametrize(
    ("fields", "trusted", "words"),
    [
        ({}, False, "signed by nobody that is trusted"),
        ({"until_days": -1}, True, "expired"),
        ({"name": "10.1.2.3"}, True, "another name"),
    ],
)
def test_what_is_wrong_with_a_certificate_is_said(
    tmp_path: Path, stack: ExitStack, fields: dict[str, object], trusted: bool, words: str
) -> None:
    pem = certificate(tmp_path / "a.pem", **fields)  # type: ignore[arg-type]
    with pytest.raises(SourceError, match=words) as refused:
        hello(stack, pem, ca_file=pem if trusted else None)
    assert refused.value.reason == "tls"
    assert "tls_verify" in str(refused.value), "it says what can be done"


def test_a_port_that_speaks_no_tls_is_named(stack: ExitStack) -> None:
    with pytest.raises(SourceError) as refused:
        hello(stack, None)
    assert refused.value.reason in ("tls", "unreachable")


def test_a_file_of_certificates_that_is_missing_is_named(tmp_path: Path, stack: ExitStack) -> None:
    with pytest.raises(SourceError, match="MOODLINE_INGEST_TLS_CA_FILE"):
        hello(stack, certificate(tmp_path / "a.pem"), ca_file=tmp_path / "none.pem")
