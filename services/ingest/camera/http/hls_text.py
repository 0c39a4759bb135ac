"""Playlists as encoders and people write them, made into what the standard says (RFC 8216). Pure.

Only the tags that are needed are kept, each in one spelling; a value that makes no sense, and that reading can do without, is
left out. Letters of any case, blanks anywhere, and missing quotation marks are read.
"""

import re
from typing import Final

_TAG = re.compile(r"#\s*(EXT[A-Z0-9-]*)\s*(?::\s*(.*))?", re.IGNORECASE)
_ATTRIBUTE = re.compile(r'([A-Za-z0-9-]+)\s*=\s*(?:"([^"]*)"|([^,]*))')
_NUMBER = re.compile(r"-?[0-9]{1,18}")
_DURATION = re.compile(r"([0-9]{1,9})(?:[.,]([0-9]{1,9}))?")
_RESOLUTION = re.compile(r"([0-9]{1,5})\s*[xX*]\s*([0-9]{1,5})")
_RANGE = re.compile(r'"?\s*([0-9]{1,15})\s*(?:@\s*([0-9]{1,15})?)?\s*"?')
_HEX_OF_16_BYTES = re.compile(r"[0-9a-fA-F]{32}")
_PLAIN: Final = frozenset({"EXTM3U", "EXT-X-DISCONTINUITY", "EXT-X-ENDLIST", "EXT-X-GAP"})
_NUMBERS: Final = frozenset({"EXT-X-TARGETDURATION", "EXT-X-MEDIA-SEQUENCE"})
_STREAM: Final = "EXT-X-STREAM-INF"


def is_playlist(text: str) -> bool:
    """Return whether it is a playlist, also one that lacks its first line."""
    return any(line.lstrip().upper().startswith(("#EXTM3U", "#EXTINF", "#EXT-X-")) for line in text.splitlines()[:20])


def cleaned(text: str) -> str:
    """Return a playlist that keeps to the standard."""
    out = ["#EXTM3U"]
    lists_playlists = _STREAM in text.upper()
    described = False
    for line in (line.strip() for line in text.splitlines()):
        match = _TAG.fullmatch(line)
        if match is not None:
            name = match[1].upper()
            tag = _tag(name, match[2] or "")
            described |= name == "EXTINF"
            if tag and name != "EXTM3U":
                out.append(tag)
        elif line and not line.startswith("#"):
            if not described and not lists_playlists:
                out.append("#EXTINF:0,")
            out.append(line)
            described = False
    return "\n".join(out)


def _tag(name: str, value: str) -> str:
    """Return a tag in its one spelling, "" for one that is not needed or says nothing."""
    value = value.strip()
    said = ""
    if name in _PLAIN:
        return f"#{name}"
    if name in _NUMBERS:
        number = _NUMBER.match(value)
        said = number[0] if number else ""
    elif name == "EXTINF":
        match = _DURATION.match(value)
        said = f"{match[1]}.{match[2] or 0}," if match else "0,"
    elif name == "EXT-X-PROGRAM-DATE-TIME":
        said = value
    elif name == "EXT-X-BYTERANGE":
        said = _range(value)
    elif name in ("EXT-X-KEY", "EXT-X-MAP", _STREAM):
        said = _attributes(name, value)
    return f"#{name}:{said}" if said else ""


def _attributes(name: str, value: str) -> str:
    given = {match[1].upper(): (match[2] if match[2] is not None else match[3]).strip() for match in _ATTRIBUTE.finditer(value)}
    if name == "EXT-X-MAP":
        part = f',BYTERANGE="{_range(given["BYTERANGE"])}"' if given.get("BYTERANGE") else ""
        return f'URI="{given.get("URI", "")}"{part}'
    if name == "EXT-X-KEY":
        return _key(given)
    bandwidth = _NUMBER.match(given.get("BANDWIDTH", "")) or _NUMBER.match(given.get("AVERAGE-BANDWIDTH", ""))
    kept = [f"BANDWIDTH={bandwidth[0] if bandwidth else 0}"]
    if (size := _RESOLUTION.search(given.get("RESOLUTION", ""))) is not None:
        kept.append(f"RESOLUTION={size[1]}x{size[2]}")
    if given.get("CODECS"):
        kept.append(f'CODECS="{given["CODECS"]}"')
    return ",".join(kept)


def _key(given: dict[str, str]) -> str:
    kept = [f"METHOD={given.get('METHOD', 'NONE').upper().replace('_', '-')}"]
    if given.get("URI"):
        kept.append(f'URI="{given["URI"]}"')
    if given.get("IV"):
        bare = _HEX_OF_16_BYTES.fullmatch(given["IV"])
        kept.append(f"IV={'0x' if bare else ''}{given['IV']}")
    if given.get("KEYFORMAT"):
        kept.append(f'KEYFORMAT="{given["KEYFORMAT"]}"')
    return ",".join(kept)


def _range(value: str) -> str:
    """Return `length@offset` or `length`; what is neither stays, and is refused by who reads it."""
    match = _RANGE.fullmatch(value.strip())
    if match is None:
        return value
    return match[1] if match[2] is None else f"{match[1]}@{match[2]}"
