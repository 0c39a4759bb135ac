"""Heads of HTTP answers as cameras write them, made into what the standard says. Pure."""

import re
from typing import Final

_END = re.compile(rb"\r?\n[ \t]*\r?\n|\r\r")
_LINES = re.compile(rb"\r?\n|\r")
_STATUS = re.compile(rb"\s*(?:(HTTP(?:/[0-9.]+)?|ICY|RTSP/1\.0)\s+)?([1-9][0-9]{2})(?:[^0-9].*)?", re.IGNORECASE)
_NAME = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_CHUNKED: Final = b"transfer-encoding: chunked\r\n"
_NUMBER = re.compile(rb"[0-9]{1,15}")
_CHUNK = re.compile(rb"[ \t]*[0-9a-fA-F]{1,16}[ \t]*(?:;[^\r\n]*)?\r?\n")
_CHUNK_BYTES: Final = 64
"""Among so many bytes the size of the first chunk ends."""
_BODIES: Final = (b"--", b"\xff\xd8\xff")
"""What servers begin with that send no head at all."""
_CONTROL = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")


class HeadCleaner:
    """Passes on what a server sends, with the head of each answer cleaned.

    Lines without a colon are dropped, blanks before it, lengths that are no numbers, the transfer coding `identity`, which is
    none, and the length of an endless stream. An answer of ICY (Shoutcast) counts as one of HTTP, as does one without any head;
    one that says `chunked` and is not is read as it is.
    """

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self._held = b""
        self._in_head = True

    def begin(self) -> None:
        """Expect a head: a request has been sent."""
        self._held, self._in_head = b"", True

    def feed(self, data: bytes) -> bytes:
        """Return what is to be passed on for these bytes; b"" while a head is not whole."""
        if not self._in_head:
            return data
        self._held += data
        if self._held.startswith(_BODIES):
            return self._pass_on(b"HTTP/1.0 200 -\r\n\r\n", self._held)
        found = _END.search(self._held)
        if found is not None:
            return self._headed(found.start(), found.end(), is_last=not data)
        return b"" if data and len(self._held) <= self._limit_bytes else self._pass_on(b"", self._held)

    def _headed(self, end: int, start: int, *, is_last: bool) -> bytes:
        """Pass a whole head on, and what follows; b"" while more is needed to know how the body is sent."""
        head, status = cleaned_head(self._held[:end])
        rest = self._held[start:]
        if status == 200 and _CHUNKED in head:
            if not is_last and len(rest) < _CHUNK_BYTES and b"\n" not in rest:
                return b""
            if rest and not _CHUNK.match(rest):
                # It says so, and does not do it.
                head = head.replace(_CHUNKED, b"")
        if 100 <= status < 200 and status != 101:
            self._held = b""
            return head + self.feed(rest) if rest else head
        return self._pass_on(head, rest)

    def _pass_on(self, head: bytes, rest: bytes) -> bytes:
        self._held, self._in_head = b"", False
        return head + rest


def cleaned_head(head: bytes) -> tuple[bytes, int]:
    """Return a head that keeps to the standard, with its empty line, and its status; as it was, and 0, when it is none."""
    first, *lines = _LINES.split(head)
    match = _STATUS.fullmatch(first)
    if match is None or (match[1] is None and not first.strip()):
        return head + b"\r\n\r\n", 0
    version = b"1.1" if match[1] is not None and match[1].upper() == b"HTTP/1.1" else b"1.0"
    kept: dict[bytes, list[bytes]] = {}
    for line in lines:
        name, colon, value = line.partition(b":")
        if colon and line[:1] not in b" \t" and _NAME.fullmatch(name.strip()):
            kept.setdefault(name.strip().lower(), []).append(_CONTROL.sub(b"", value).strip())
    codings = b",".join(kept.pop(b"transfer-encoding", [])).lower()
    lengths = [value for value in kept.pop(b"content-length", []) if _NUMBER.fullmatch(value)]
    # A stream of parts has no length; what is written there is that of a part, or any number.
    is_endless = any(value.lower().startswith(b"multipart/x-mixed") for value in kept.get(b"content-type", []))
    if b"chunked" in codings:
        kept[b"transfer-encoding"] = [b"chunked"]
    elif lengths and not is_endless:
        kept[b"content-length"] = lengths[:1]
    out = [b"HTTP/" + version + b" " + match[2] + b" -"]
    out += [name + b": " + value for name, values in kept.items() for value in values]
    return b"\r\n".join([*out, b"", b""]), int(match[2])
