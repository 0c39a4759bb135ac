"""Statistics of a window: shares, entropy, and the covered part of the time."""

import math
from collections.abc import Iterable
from typing import Any, Final

from pydantic import BaseModel, ConfigDict, Field

from moodline.shared.emotions import EMOTIONS
from moodline.shared.timeline.points import EmptyReason

_DIGITS: Final = 6
STATISTICS_EXAMPLE: Final[dict[str, Any]] = {
    "step_s": 10,
    "shares": {**dict.fromkeys(EMOTIONS, 0.0), "happy": 0.9, "neutral": 0.1},
    "dominant": "happy",
    "entropy_bits": 0.468996,
    "entropy": 0.167057,
    "faces": 41,
    "coverage": 0.9,
    "with_faces": 0.8,
    "missing": {"corrupt": 0.0, "overloaded": 0.0, "not_sampled": 0.0, "offline": 0.1},
}


class WindowStatistics(BaseModel):
    """Statistics of a window."""

    model_config = ConfigDict(json_schema_extra={"examples": [STATISTICS_EXAMPLE]})

    step_s: int = Field(description="Length of the stretches that `coverage`, `with_faces` and `missing` count, in s.")
    shares: dict[str, float] | None = Field(description="Of all faces, the share that each emotion leads; null without faces.")
    dominant: str | None = Field(description="The emotion that leads most faces; null without faces.")
    entropy_bits: float | None = Field(description="Entropy of `shares`, in bits: 0 (one emotion alone) to log2 7 = 2.807.")
    entropy: float | None = Field(description="The same as a part of the largest possible, 0 to 1.")
    faces: int = Field(description="Faces over all frames.")
    coverage: float = Field(description="Share of the stretches in which frames were looked at.")
    with_faces: float = Field(description="Share of the stretches with faces.")
    missing: dict[str, float] = Field(
        description="Why the rest is missing: shares of `corrupt`, `overloaded`, `not_sampled` and `offline`; with `coverage` "
        "they make 1."
    )


def window_statistics(
    empty: Iterable[EmptyReason | None], shares: dict[str, float] | None, dominant: str | None, faces: int, step_s: int
) -> WindowStatistics:
    """Return what a window comes to.

    Args:
        empty: Of every stretch of the window, why it is empty; None where there are faces.
        shares: Of all faces in the window, the share that each emotion leads, 0 to 1; None without faces.
        dominant: The emotion that leads most faces; None without faces.
        faces: Faces over all frames.
        step_s: Length of each stretch, in s.
    """
    reasons = list(empty)
    count = max(1, len(reasons))
    missing = {reason.value: round(reasons.count(reason) / count, _DIGITS) for reason in _MISSING}
    looked = sum(reason not in _MISSING for reason in reasons)
    bits = None if shares is None else entropy_bits(shares)
    return WindowStatistics(
        step_s=step_s,
        shares=shares,
        dominant=dominant,
        entropy_bits=None if bits is None else round(bits, _DIGITS),
        entropy=None if bits is None else round(bits / math.log2(len(EMOTIONS)), _DIGITS),
        faces=faces,
        coverage=round(looked / count, _DIGITS),
        with_faces=round(reasons.count(None) / count, _DIGITS),
        missing=missing,
    )


def entropy_bits(shares: dict[str, float]) -> float:
    """Return the entropy of shares that add up to 1, in bits."""
    return sum(-share * math.log2(share) for share in shares.values() if share > 0)


_MISSING: Final = (EmptyReason.CORRUPT, EmptyReason.OVERLOADED, EmptyReason.NOT_SAMPLED, EmptyReason.OFFLINE)
