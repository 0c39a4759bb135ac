"""Heads of HTTP answers as cameras write them, made into what the standard says. Pure."""

import re

_END = re.compile(rb"\r?\n[ \t]*\r?\n|\r\r")
_LINES = re.compile(rb"\r?\n|\r")
_STATUS = re.compile(rb"\s*(?:(HTTP/[0-9.]+|ICY|RTSP/1\.0)\s+)?([1-9][0-9]{2})(?:\s.*)?", re.IGNORECASE)
_NAME = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_NUMBER = re.compile(rb"[0-9]{1,15}")
_CONTROL = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")


class HeadCleaner:
    """Passes on what a server sends, with the head of each answer cleaned.

    Lines without a colon are dropped, blanks before it, lengths that are no numbers, and the transfer coding `identity`, which is
    none. An answer of ICY (Shoutcast) counts as one of HTTP.
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
        found = _END.search(self._held)
        if found is None and data and len(self._held) <= self._limit_bytes:
            return b""
        held, self._held = self._held, b""
        if found is None:
            self._in_head = False
            return held
        head, status = cleaned_head(held[: found.start()])
        rest = held[found.end() :]
        if 100 <= status < 200 and status != 101:
            return head + self.feed(rest) if rest else head
        self._in_head = False
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
    if b"chunked" in codings:
        kept[b"transfer-encoding"] = [b"chunked"]
    elif lengths:
        kept[b"content-length"] = lengths[:1]
    out = [b"HTTP/" + version + b" " + match[2] + b" -"]
    out += [name + b": " + value for name, values in kept.items() for value in values]
    return b"\r\n".join([*out, b"", b""]), int(match[2])
