"""Probabilities as integers, made once, right after the model, so that later sums are exact in any order."""

import numpy as np
import numpy.typing as npt

from moodline.services.classifier.model import Probabilities
from moodline.shared.emotions import EMOTIONS, PROBABILITY_SCALE
from moodline.shared.errors import ModelError

_SUM_TOLERANCE = 1e-3


def quantised(probabilities: Probabilities) -> npt.NDArray[np.int64]:
    """Return int64 (N, 7), 0 to 65535, each row of which sums to exactly 65535.

    Largest remainder: every value is rounded down, and what is missing goes, one each, to those that lost most; among
    equals to the first. So each integer is less than 1 away from the exact value. A row's answer depends on that row alone.

    Args:
        probabilities: float (N, 7), not negative, rows that sum to 1 as nearly as float32 can.

    Raises:
        ModelError: another shape, or a row that is no distribution (NaN, infinite, negative, another sum).
    """
    exact = np.asarray(probabilities, np.float64)
    if exact.ndim != 2 or exact.shape[1] != len(EMOTIONS):
        raise ModelError(f"probabilities must be (N, {len(EMOTIONS)}), not {exact.shape}")
    if not np.isfinite(exact).all() or (exact < 0).any():
        raise ModelError("a probability is negative or not a number")
    sums = exact.sum(1, keepdims=True)
    if (np.abs(sums - 1) > _SUM_TOLERANCE).any():
        raise ModelError("the probabilities of a face do not sum to 1")
    exact = exact * PROBABILITY_SCALE / sums
    whole = np.floor(exact).astype(np.int64)
    missing = PROBABILITY_SCALE - whole.sum(1, keepdims=True)
    rank = np.argsort(np.argsort(whole - exact, axis=1, kind="stable"), axis=1, kind="stable")
    filled: npt.NDArray[np.int64] = whole + (rank < missing)
    return filled
