"""Smoothing of a face's probabilities over event time, in integers, so that every machine gets the same bits.

First-order exponential smoothing for unevenly spaced observations (Wright, "Forecasting data published at irregular time
intervals using an extension of Holt's method", Management Science 32, 1986): an observation that comes `dt` after the one
before gets the weight 1 - exp(-dt/tau). Two short steps then weigh exactly what one long step does, so the result hardly
depends on the frame rate, and the constant `tau` is a time, not a number of frames.

The exponential is a product of tabled powers of two in 32-bit fixed point; nothing here touches a float.
"""

from functools import lru_cache
from math import isqrt
from typing import Final

from moodline.shared.emotions import PROBABILITY_SCALE

FRACTION_BITS: Final = 16
"""State keeps this many bits below one 65535th."""

ONE: Final = 1 << 32
"""1.0 as a weight."""

_LOG2_E: Final = 6_196_328_019
"""log2(e) * 2**32, rounded."""

_FULL: Final = PROBABILITY_SCALE << FRACTION_BITS


def _halvings(count: int) -> tuple[int, ...]:
    """Return 2**-(1/2), 2**-(1/4), 2**-(1/8), … as weights, by repeated square roots."""
    powers = [ONE >> 1]
    for _ in range(count):
        powers.append(isqrt(powers[-1] << 32))
    return tuple(powers[1:])


_POWERS: Final = _halvings(24)


@lru_cache(maxsize=4096)
def decay(dt_us: int, tau_us: int) -> int:
    """Return exp(-dt/tau), 0 to `ONE`, off by less than 1e-7.

    Args:
        dt_us: Time since the last observation, 0 or more, in microseconds.
        tau_us: Time constant, more than 0, in microseconds.
    """
    exponent = dt_us * _LOG2_E // tau_us
    halves = exponent >> 32
    if halves >= 32:
        return 0
    weight = ONE
    for bit, power in enumerate(_POWERS):
        if exponent >> (31 - bit) & 1:
            weight = weight * power >> 32
    return weight >> halves


def start(probabilities: tuple[int, ...]) -> tuple[int, ...]:
    """Return the state after a face's first observation."""
    return tuple(value << FRACTION_BITS for value in probabilities)


def advance(state: tuple[int, ...], probabilities: tuple[int, ...], dt_us: int, tau_us: int) -> tuple[int, ...]:
    """Return the state after one more observation.

    Args:
        state: State so far, from `start` or `advance`.
        probabilities: Seven integers that sum to 65535.
        dt_us: Event time since the last observation, 0 or more. An observation at the same instant has no weight.
        tau_us: Time constant; 0 means no smoothing: the state is the observation.
    """
    if tau_us == 0:
        return start(probabilities)
    weight = ONE - decay(dt_us, tau_us)
    # Half is added so that rounding pulls to neither side.
    return tuple(
        old + (((new << FRACTION_BITS) - old) * weight + (ONE >> 1) >> 32) for old, new in zip(state, probabilities, strict=True)
    )


def quantise(state: tuple[int, ...]) -> tuple[int, ...]:
    """Return the smoothed probabilities: seven integers that sum to exactly 65535 (largest remainders; ties to the first).

    A state of zeros alone, which no valid message leads to, stays zeros.
    """
    total = sum(state)
    if total == 0:
        return (0,) * len(state)
    if total == _FULL:
        parts = [value >> FRACTION_BITS for value in state]
        remainders = [value & (1 << FRACTION_BITS) - 1 for value in state]
    else:
        parts = [value * PROBABILITY_SCALE // total for value in state]
        remainders = [value * PROBABILITY_SCALE % total for value in state]
    missing = PROBABILITY_SCALE - sum(parts)
    if missing:
        for position in sorted(range(len(state)), key=lambda at: (-remainders[at], at))[:missing]:
            parts[position] += 1
    return tuple(parts)
