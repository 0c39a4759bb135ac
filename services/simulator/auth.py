"""Logging in to a simulated camera: Basic (RFC 7617) and Digest with MD5 (RFC 2617 without qop), as cameras do it."""

import base64
import hashlib
import hmac
import re
import secrets
from typing import Final

REALM: Final = "Moodline camera"
_FIELD: Final = re.compile(r'(\w+)\s*=\s*(?:"([^"]*)"|([^\s,]+))')


class Authenticator:
    """Lets in whoever knows user and password; everybody when there are none."""

    def __init__(self, user: str | None, password: str | None, ways: str = "any") -> None:
        self._user, self._password, self._ways = user, password or "", ways
        self._nonce = secrets.token_hex(16)

    def challenges(self) -> list[str]:
        """Return the values of the header WWW-Authenticate."""
        digest, basic = f'Digest realm="{REALM}", nonce="{self._nonce}"', f'Basic realm="{REALM}"'
        return {"digest": [digest], "basic": [basic]}.get(self._ways, [digest, basic])

    def admits(self, method: str, header: str | None) -> bool:
        """Say whether a request with this header Authorization may pass."""
        if self._user is None:
            return True
        way, _, rest = (header or "").partition(" ")
        if way.lower() == "basic" and self._ways != "digest":
            expected = base64.b64encode(f"{self._user}:{self._password}".encode()).decode()
            return hmac.compare_digest(expected.encode(), rest.strip().encode())
        if way.lower() == "digest" and self._ways != "basic":
            return self._digest_fits(method, {key.lower(): plain or bare for key, plain, bare in _FIELD.findall(rest)})
        return False

    def _digest_fits(self, method: str, given: dict[str, str]) -> bool:
        if given.get("username") != self._user or given.get("nonce") != self._nonce or given.get("realm") != REALM:
            return False
        who = _md5(f"{self._user}:{REALM}:{self._password}")
        what = _md5(f"{method}:{given.get('uri', '')}")
        return hmac.compare_digest(_md5(f"{who}:{self._nonce}:{what}").encode(), given.get("response", "").encode())


def _md5(text: str) -> str:
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()
