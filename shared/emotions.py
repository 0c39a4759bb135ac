"""The seven FER-2013 emotions, in the one order used by models, messages and timelines."""

from typing import Final

EMOTIONS: Final[tuple[str, ...]] = ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral")
"""Class names; the position of a name is its index in every vector of seven."""

CROP_SIDE_PX: Final = 48
"""Side of the square grey crop that the classifier takes."""

PROBABILITY_SCALE: Final = 65535
"""Probabilities travel as integers; this is the integer that stands for 1.0."""
