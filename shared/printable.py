"""Text from outside, made fit for a terminal and for a log of one line an event."""

import re
from typing import Final

_UNFIT: Final = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
"""Control characters, of which ESC begins commands to a terminal; what turns the direction of writing; lone surrogates."""


_UNFIT_NAME: Final = re.compile("[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
NAME_RULE: Final = "no control characters, none that turn the direction of writing, and no lone surrogates"


def is_fit(text: str) -> bool:
    """Return whether a text that somebody chose can fool neither a terminal nor a reader; see `NAME_RULE`.

    Marks of single letters, as right-to-left scripts need them, are fit.
    """
    return _UNFIT_NAME.search(text) is None


def printable(text: str) -> str:
    r"""Return a text with such characters written as Python does: `\x1b`, `\n`, `\u202e`."""
    return _UNFIT.sub(lambda found: found[0].encode("unicode_escape", "surrogatepass").decode(), text)
