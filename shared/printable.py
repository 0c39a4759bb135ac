"""Text from outside, made fit for a terminal and for a log of one line an event."""

import re
from typing import Final

_UNFIT: Final = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
"""Control characters, of which ESC begins commands to a terminal; what turns the direction of writing; lone surrogates."""


def printable(text: str) -> str:
    r"""Return a text with such characters written as Python does: `\x1b`, `\n`, `\u202e`."""
    return _UNFIT.sub(lambda found: found[0].encode("unicode_escape", "surrogatepass").decode(), text)
