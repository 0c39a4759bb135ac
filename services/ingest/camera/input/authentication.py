"""Logging in to a camera: Basic (RFC 7617) and Digest (RFC 2617, RFC 7616), as RTSP uses them. No I/O."""

import base64
import hashlib
import re
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

_HASHES: Final[dict[str, Callable[..., "hashlib._Hash"]]] = {"MD5": hashlib.md5, "SHA-256": hashlib.sha256}
_STRENGTH: Final = ("BASIC", "MD5", "MD5-SESS", "SHA-256", "SHA-256-SESS")
_PARAMETER = re.compile(r'([A-Za-z0-9_-]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s,"]*))')
_CHALLENGE = re.compile(r"(?:^|,)\s*(Basic|Digest)(?=\s|,|$)", re.IGNORECASE)
_QUOTED = re.compile(r'"(?:[^"\\]|\\.)*"')
_PLAIN: Final = re.compile(r"[^\x00-\x1f\x7f]*")
_SPELT: Final = {"SHA256": "SHA-256", "SHA256-SESS": "SHA-256-SESS", "MD5SESS": "MD5-SESS"}
_LIMIT_CHARACTERS: Final = 4096


def text_of(data: bytes) -> str:
    """Return a header as text. Bytes that are no UTF-8, as in an umlaut of an old camera's realm, are kept for `wire_bytes`."""
    return data.decode("utf-8", "surrogateescape")


def wire_bytes(text: str) -> bytes:
    """Return what `text_of` was made from."""
    return text.encode("utf-8", "surrogateescape")


@dataclass(frozen=True, slots=True)
class Challenge:
    """A camera's request to log in: `algorithm` is BASIC, or one of Digest; `auth` tells whether it takes qop=auth."""

    algorithm: str
    realm: str = ""
    nonce: str = ""
    opaque: str | None = None
    auth: bool = False
    stale: bool = False
    algorithm_named: str = ""


def best_challenge(headers: Sequence[str]) -> Challenge | None:
    """Return the strongest challenge of all `WWW-Authenticate` headers that can be answered, or None."""
    found = [challenge for header in headers for challenge in _challenges(header[:_LIMIT_CHARACTERS])]
    return max(found, key=lambda challenge: _STRENGTH.index(challenge.algorithm), default=None)


@dataclass(slots=True)
class Login:
    """Answers challenges with a user's name and password; shows neither."""

    username: str = field(repr=False)
    password: str = field(repr=False)
    challenge: Challenge | None = None
    _count: int = 0

    def accept(self, challenge: Challenge) -> None:
        """Use this challenge from now on."""
        self.challenge = challenge
        self._count = 0

    def header(self, method: str, url: str) -> str | None:
        """Return the `Authorization` of a request, or None as long as the camera has asked for none."""
        if self.challenge is None:
            return None
        if self.challenge.algorithm == "BASIC":
            return "Basic " + base64.b64encode(f"{self.username}:{self.password}".encode()).decode()
        self._count += 1
        return self._digest(self.challenge, method, url, secrets.token_hex(8))

    def _digest(self, challenge: Challenge, method: str, url: str, cnonce: str) -> str:
        make_hash = _HASHES[challenge.algorithm.removesuffix("-SESS")]

        def hashed(*parts: str) -> str:
            return make_hash(wire_bytes(":".join(parts))).hexdigest()

        first = hashed(self.username, challenge.realm, self.password)
        if challenge.algorithm.endswith("-SESS"):
            first = hashed(first, challenge.nonce, cnonce)
        second = hashed(method, url)
        fields = {"username": self.username, "realm": challenge.realm, "nonce": challenge.nonce, "uri": url}
        if challenge.auth:
            count = f"{self._count:08x}"
            fields["response"] = hashed(first, challenge.nonce, count, cnonce, "auth", second)
        else:
            fields["response"] = hashed(first, challenge.nonce, second)
        parts = [f'{key}="{_quoted(value)}"' for key, value in fields.items()]
        if challenge.algorithm_named:
            parts.append(f"algorithm={challenge.algorithm_named}")
        if challenge.opaque is not None:
            parts.append(f'opaque="{_quoted(challenge.opaque)}"')
        if challenge.auth:
            parts += ["qop=auth", f"nc={self._count:08x}"]
        if challenge.auth or challenge.algorithm.endswith("-SESS"):
            parts.append(f'cnonce="{cnonce}"')
        return "Digest " + ", ".join(parts)


def _challenges(header: str) -> list[Challenge]:
    # What stands in quotation marks names no scheme; it keeps its length.
    unquoted = _QUOTED.sub(lambda match: "_" * len(match[0]), header)
    marks = list(_CHALLENGE.finditer(unquoted))
    ends = [*(mark.start() for mark in marks[1:]), len(header)][: len(marks)]
    read = (_challenge(mark[1], header[mark.end() : end]) for mark, end in zip(marks, ends, strict=True))
    return [challenge for challenge in read if challenge is not None]


def _challenge(scheme: str, text: str) -> Challenge | None:
    values = {
        match[1].lower(): re.sub(r"\\(.)", r"\1", match[2]) if match[2] is not None else match[3]
        for match in _PARAMETER.finditer(text)
    }
    if not all(_PLAIN.fullmatch(value) for value in values.values()):
        return None
    if scheme.upper() == "BASIC":
        return Challenge("BASIC", values.get("realm", ""))
    named = values.get("algorithm", "")
    algorithm = _SPELT.get(named.upper(), named.upper()) or "MD5"
    offered = [word.strip().lower() for word in values.get("qop", "").split(",") if word.strip()]
    if algorithm not in _STRENGTH[1:] or "nonce" not in values:
        return None
    # One that offers auth-int alone takes the answer without any, as the first Digest had it.
    stale = values.get("stale", "").lower() == "true"
    return Challenge(algorithm, values.get("realm", ""), values["nonce"], values.get("opaque"), "auth" in offered, stale, named)


def _quoted(text: str) -> str:
    """Names may hold any character; one that would end the line cannot be sent."""
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\r", "").replace("\n", "")
