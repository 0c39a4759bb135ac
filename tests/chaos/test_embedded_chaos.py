"""The embedded service is killed with -9, again and again, while files play: no stream and no committed point is lost."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from moodline.shared.store import Store, open_store
from moodline.shared.store.base import dump
from moodline.shared.streams import StreamSpec
from moodline.shared.timeline import TIERS_S
from tests.support.cluster import RETENTION, free_port, seeded
from tests.support.reference import reference_dump, synthetic_spec
from tests.support.servers import die_with_parent

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

KILLS = 10
STREAMS = 3
SECONDS = 40
FRAMES_PER_LIFE = 60


class Service:
    """`moodline run` on one data directory, started again after each kill."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.starts = 0

    def start(self) -> None:
        environment = {key: value for key, value in os.environ.items() if not key.startswith("MOODLINE_")}
        environment |= {
            "MOODLINE_DATA_DIR": str(self.directory / "data"),
            "MOODLINE_API_PORT": str(free_port()),
            "MOODLINE_DETECTOR_THREADS": "1",
            "MOODLINE_CLASSIFIER_THREADS": "1",
        }
        log_path = self.directory / f"run-{self.starts}.log"
        with log_path.open("wb") as log:
            command = [*die_with_parent(), str(Path(sys.executable).parent / "moodline"), "run"]
            self.process = subprocess.Popen(command, env=environment, cwd=self.directory, stdout=log, stderr=log)
        self.starts += 1

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(10)


def high_water_marks(store: Store, specs: list[StreamSpec]) -> list[int]:
    progress = store.load([spec.stream_id for spec in specs])
    assert all(item is not None for item in progress), "a stream was lost"
    return [item.high_water_mark.seq if item and item.high_water_mark else -1 for item in progress]


def test_killed_ten_times_it_finishes_its_files_to_the_same_bytes(tmp_path: Path) -> None:
    rng = seeded("embedded chaos")
    contents = [reference_dump(tmp_path, synthetic_spec("reference", SECONDS, seed)) for seed in range(2)]
    (tmp_path / "data").mkdir()
    store = open_store(f"sqlite:///{tmp_path / 'data' / 'moodline.db'}", RETENTION)
    specs = [synthetic_spec(f"s{number}", SECONDS, number % 2) for number in range(STREAMS)]
    for spec in specs:
        store.add(spec)
    service, moving_kills, before = Service(tmp_path), 0, [-1] * STREAMS
    for _ in range(KILLS):
        service.start()
        wait_for_progress(service, store, specs, before)
        time.sleep(rng.uniform(0.0, 1.0))
        at_kill = high_water_marks(store, specs)
        service.kill()
        after = high_water_marks(store, specs)
        assert all(late >= early for late, early in zip(after, at_kill, strict=True)), "a committed point was lost"
        moving_kills += not all(item and item.final for item in store.load([spec.stream_id for spec in specs]))
        before = after
    service.start()
    deadline = time.monotonic() + 300
    while not all(item and item.final for item in store.load([spec.stream_id for spec in specs])):
        assert time.monotonic() < deadline, f"not finished: {high_water_marks(store, specs)}"
        assert service.process.poll() is None, "the service ended by itself"
        time.sleep(0.2)
    service.process.terminate()
    assert service.process.wait(30) == 0
    equal = [dump(store, spec.stream_id, TIERS_S) == contents[number % 2] for number, spec in enumerate(specs)]
    assert equal == [True] * STREAMS
    assert moving_kills >= KILLS - 1, "the files ended before the kills did: nothing was proved"
    store.close()


def wait_for_progress(service: Service, store: Store, specs: list[StreamSpec], before: list[int]) -> None:
    """Wait until the service has written some frames more."""
    deadline = time.monotonic() + 120
    while sum(high_water_marks(store, specs)) < sum(before) + FRAMES_PER_LIFE:
        assert time.monotonic() < deadline, "no progress"
        assert service.process.poll() is None, "the service ended by itself"
        time.sleep(0.05)
