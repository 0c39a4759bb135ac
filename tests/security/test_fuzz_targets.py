"""Parsers of bytes from outside: their seeds, what a fuzzer once broke them with, and either cut and bent in every place."""

from pathlib import Path
from typing import Final

import pytest

from tests.support.fuzz_targets import TARGETS, found

FOUND: Final = found(Path(__file__).parent / "crashers")


@pytest.mark.parametrize("name", TARGETS)
def test_bytes_that_make_no_sense_raise_nothing_but_a_typed_error(name: str) -> None:
    target = TARGETS[name]
    for seed in (*target.seeds, *FOUND[name]):
        target(seed)
        for at in range(0, len(seed), max(1, len(seed) // 200)):
            target(seed[:at])
            for bent in (0x00, 0x7F, 0xFF):
                target(seed[:at] + bytes([bent]) + seed[at + 1 :])
            target(seed[:at] + seed[at:] * 3)


@pytest.mark.parametrize("name", TARGETS)
def test_the_seeds_are_understood(name: str) -> None:
    understood = 0
    for seed in TARGETS[name].seeds:
        try:
            TARGETS[name].run(seed)
            understood += 1
        except Exception:  # the other test says which errors there may be
            continue
    assert understood or name == "key_file", "what nobody understands is no seed"
