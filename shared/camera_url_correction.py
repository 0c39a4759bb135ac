"""Corrects what people paste as a camera's URL. Pure."""

import re
from typing import Final

_AROUND: Final = " \t\r\n\"'`<>\u201c\u201d\u2018\u2019\u00ab\u00bb\ufeff\u200b"
_SCHEMES_PATTERN: Final = r"rtsps?|https?"
_TWICE = re.compile(rf"(?:(?:{_SCHEMES_PATTERN}):/*)+(?P<scheme>{_SCHEMES_PATTERN}):/+", re.IGNORECASE)
_BROKEN_SCHEME = re.compile(
    rf"(?P<scheme>{_SCHEMES_PATTERN})(?::/(?!/)|://{{2,}}(?=[^/])|;//|//|:\\+|:(?![/\\]))(?=[^/]*[.:@])", re.IGNORECASE
)
_INNER_SCHEME = re.compile(rf"(?:{_SCHEMES_PATTERN})://(?P<user>[^/?#@\s]+@)(?P<scheme>{_SCHEMES_PATTERN})://", re.IGNORECASE)
"""Credentials put before a whole URL."""
_INVISIBLE = re.compile(r"[\u200b-\u200f\u2060\ufeff]|(?<=://)[ \u00a0]+")

_BARE = re.compile(
    r"(?:[^/?#@\s]+@)?(?:(?:[0-9]{1,3}\.){3}[0-9]{1,3}(?::[0-9]{1,5})?(?:[/?]|$)|[A-Za-z0-9][A-Za-z0-9.-]*:(?:8?554|322|7441)(?:[/?]|$))",
    re.ASCII,
)
"""An IPv4 address, or a name with a port that is RTSP's, perhaps with credentials before it."""
_BEFORE = re.compile(
    r"(?:(?:ffmpeg|gst|exec|echo|onvif|url|rtsp_url|source|stream)[:=]\s*|(?:ffmpeg\s+-i|vlc|ffplay)\s+)(?=rtsps?:|https?:)", re.I
)
"""Words that a command line or another program's configuration has before a camera's URL."""
_MISSPELT: Final = {
    "rstp": "rtsp",
    "rtps": "rtsp",
    "rtspt": "rtsp",
    "rtspu": "rtsp",
    "rtsp+tcp": "rtsp",
    "rtsp+udp": "rtsp",
    "rtspx": "rtsps",
    "rtsp+tls": "rtsps",
    "htttp": "http",
    "htpp": "http",
}
"""Spellings and other programs' names of our schemes."""
_MISSPELT_SCHEME = re.compile(rf"(?P<scheme>{'|'.join(map(re.escape, _MISSPELT))})(?=:)", re.IGNORECASE)
_OPTIONS = re.compile(
    r"(?:#(?:video|audio|media|timeout|backchannel|transport|input|hardware|raw|query|width|height|rotate)(?:=[^#]*)?)+$"
)
"""Options that go2rtc takes after a camera's URL."""


def corrected_url(given: str) -> tuple[str, str]:
    """Return a camera's URL as it was meant, and a sentence that says what was corrected; "" when nothing was.

    People paste what makers print and what browsers copy: quotation marks and blanks around it, the scheme twice or with one
    slash, `&amp;` for `&`, and a bare address without a scheme. What is left stands as it was given.
    """
    url = _INVISIBLE.sub("", given.strip(_AROUND)).replace("&amp;", "&")
    corrections = ["blanks, quotation marks or &amp; were taken out of it"] if url != given else []
    if (before := _BEFORE.match(url)) is not None:
        url = url[before.end() :].strip(_AROUND)
        corrections.append("what stood before it was left out")
    if (options := _OPTIONS.search(url)) is not None:
        url = url[: options.start()]
        corrections.append("another program's options after # were left out")
    if (misspelt := _MISSPELT_SCHEME.match(url)) is not None:
        scheme = _MISSPELT[misspelt["scheme"].lower()]
        url = scheme + url[misspelt.end() :]
        corrections.append(f"its scheme is {scheme}")
    if (inner := _INNER_SCHEME.match(url)) is not None:
        url = f"{inner['scheme'].lower()}://{inner['user']}{url[inner.end() :]}"
        corrections.append("its scheme was there twice")
    # The inner scheme is the camera's own: what stands before it was put there by a form or a browser.
    match = _TWICE.match(url)
    if match is not None:
        url = f"{match['scheme'].lower()}://{url[match.end() :]}"
        corrections.append("its scheme was there twice")
    elif (broken := _BROKEN_SCHEME.match(url)) is not None:
        url = f"{broken['scheme'].lower()}://{url[broken.end() :]}"
        corrections.append("its scheme was written in another way than ://")
    elif _BARE.match(url) and "://" not in url:
        url = f"rtsp://{url}"
        corrections.append("it had no scheme, and rtsp:// was put before it")
    if "\\" in url and "@" not in url:
        url = re.sub(r"\\+", "/", url)
        corrections.append("its backslashes became slashes")
    return url, f"the url was corrected: {', and '.join(corrections)}" if corrections else ""
