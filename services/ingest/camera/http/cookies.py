"""Cookies that a camera's server sets, for as long as the connection's client lives. Pure."""

import re
from collections.abc import Iterable
from typing import Final

_LIMIT: Final = 20
_LIMIT_CHARACTERS: Final = 4096
_COOKIE = re.compile(r"\s*([!#$%&'*+.^_`|~0-9A-Za-z-]+)=([!-+\--:<-~]*)")


class Cookies:
    """Names and values by host; each goes back to the host that set it, and to no other."""

    def __init__(self) -> None:
        self._of_host: dict[str, dict[str, str]] = {}

    def take(self, host: str, headers: Iterable[tuple[bytes, bytes]]) -> None:
        """Keep what an answer of this host sets."""
        for name, value in headers:
            match = _COOKIE.match(value.decode("latin-1")[:_LIMIT_CHARACTERS]) if name == b"set-cookie" else None
            if match is None:
                continue
            kept = self._of_host.setdefault(host, {})
            if len(kept) < _LIMIT or match[1] in kept:
                kept[match[1]] = match[2]

    def header(self, host: str) -> str:
        """Return the value of `Cookie` for this host; "" without cookies."""
        return "; ".join(f"{name}={value}" for name, value in self._of_host.get(host, {}).items())
