"""Every kind of request to Kafka is answered with errors that pass, at random and seeded, while workers read and write.

Nothing may stand still for longer than 30 s, nothing may be lost, and what was committed may not come again
later. The suite runs it for a short while; `make chaos-kafka SEED=… MINUTES=…` for as long as one likes.

librdkafka's imitation of a cluster names members by an address in its memory, and takes a member back under its old name. So it
sometimes has two members of one name, and tells one of them to lead a group of none, on which librdkafka crashes. A real broker
refuses unknown names, and makes them from random numbers. A run that ended so says nothing; the next seed is taken.
"""

import itertools
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.support.servers import REPO, die_with_parent

pytestmark = [pytest.mark.kafka, pytest.mark.slow, pytest.mark.timeout(0)]

SEED = int(os.environ.get("MOODLINE_TEST_CHAOS_SEED", "2"))
MINUTES = float(os.environ.get("MOODLINE_TEST_CHAOS_MINUTES", "0"))
SHORT_S = 25.0
ONE_RUN_S = 600.0
IMITATION_FAILED = "running cooperative-sticky assignor for 0 member(s)"


def test_errors_that_pass_never_make_it_stand_still(tmp_path: Path) -> None:
    left_s, spoilt = MINUTES * 60 or SHORT_S, 0
    for seed in itertools.count(SEED):
        length_s, began_s, log = min(left_s, ONE_RUN_S), time.monotonic(), tmp_path / f"{seed}.log"
        with log.open("w") as errors:
            command = [*die_with_parent(), sys.executable, "-m", "tests.chaos.kafka_faults", str(seed), str(length_s)]
            done = subprocess.run(command, cwd=REPO, stdout=subprocess.PIPE, stderr=errors, text=True, check=False)
        print(done.stdout, end="", flush=True)  # noqa: T201  # the table of a long run
        if done.returncode == -signal.SIGSEGV and IMITATION_FAILED in log.read_text(errors="replace")[-20_000:]:
            spoilt += 1
            print(f"seed {seed}: the imitation failed after {time.monotonic() - began_s:.0f} s")  # noqa: T201
            assert spoilt < 4 + MINUTES, "it fails all the time"
            continue
        assert done.returncode == 0, log.read_text(errors="replace")[-5000:]
        left_s -= length_s
        if left_s <= 0:
            return
