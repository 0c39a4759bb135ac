"""The colours of the seven emotions and of gaps, for every picture that Moodline draws."""

from typing import Final

from moodline.shared.timeline.points import EmptyReason

EMOTION_COLORS: Final[dict[str, str]] = {
    "angry": "#D55E00",
    "disgust": "#009E73",
    "fear": "#CC79A7",
    "happy": "#F0E442",
    "sad": "#0072B2",
    "surprise": "#56B4E9",
    "neutral": "#B3B3B3",
}
"""The palette of Okabe and Ito (Color Universal Design, 2008), which stays distinct under every common colour blindness."""

EMOTION_COLORS_16: Final[dict[str, str]] = {
    "angry": "red",
    "disgust": "green",
    "fear": "magenta",
    "happy": "bright_yellow",
    "sad": "blue",
    "surprise": "bright_cyan",
    "neutral": "white",
}
"""The nearest colours of a terminal that has 16, no two of them alike."""

GAP_HATCHES: Final[dict[EmptyReason, str]] = {
    EmptyReason.NO_FACE: "////",
    EmptyReason.UNREADABLE: "++++",
    EmptyReason.CORRUPT: "||||",
    EmptyReason.OVERLOADED: "xxxx",
    EmptyReason.NOT_SAMPLED: "....",
    EmptyReason.OFFLINE: "\\\\\\\\",
}

GAP_NAMES: Final[dict[EmptyReason, str]] = {
    EmptyReason.NO_FACE: "no face",
    EmptyReason.UNREADABLE: "no readable face",
    EmptyReason.CORRUPT: "damaged",
    EmptyReason.OVERLOADED: "overloaded",
    EmptyReason.NOT_SAMPLED: "not sampled",
    EmptyReason.OFFLINE: "offline",
}

STACK: Final = ("neutral", "sad", "fear", "disgust", "angry", "surprise", "happy")
"""The order of stacked emotions from the bottom up: neutral, then the unpleasant ones, then the pleasant ones."""
