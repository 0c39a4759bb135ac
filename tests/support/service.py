"""The embedded service as a user starts it: `moodline run` in a process of its own, asked over its API."""

import os
import subprocess
import sys
import time
import urllib.request
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from prometheus_client.parser import text_string_to_metric_families

from moodline import ApiError, Client, Stream
from moodline.shared.streams import StreamState
from tests.support.servers import die_with_parent, free_port

MOODLINE = str(Path(sys.executable).parent / "moodline")
_START_S = 120.0


class Service:
    """`moodline run` on a data directory below `directory`. A context manager."""

    def __init__(self, directory: Path, **environment: str) -> None:
        self.directory = directory
        self.log = directory / "moodline.log"
        self._environment = environment
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def __enter__(self) -> Self:
        port = free_port()
        environment = {key: value for key, value in os.environ.items() if not key.startswith("MOODLINE_")}
        environment |= {
            "MOODLINE_DATA_DIR": str(self.directory / "data"),
            "MOODLINE_API_PORT": str(port),
            "MOODLINE_DETECTOR_THREADS": "1",
            "MOODLINE_CLASSIFIER_THREADS": "1",
            **self._environment,
        }
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [*die_with_parent(), MOODLINE, "run"], env=environment, cwd=self.directory, stdout=log, stderr=log
            )
        self.url = f"http://127.0.0.1:{port}"
        self.client = Client(self.url, "")
        self.wait(self._answers, _START_S, "the service to answer")
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.client.close()
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(30)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait(10)

    def add(self, stream_id: str, url: str, **fields: Any) -> Stream:
        """Register a stream."""
        return self.client.add_stream(stream_id, url, **fields)

    def state(self, stream_id: str) -> StreamState:
        """Return what a stream does now."""
        return StreamState(self.client.get_stream(stream_id).status.state)

    def wait_for_state(self, stream_id: str, *states: StreamState, timeout_s: float = 60.0) -> Stream:
        """Wait until a stream is in one of these states."""
        self.wait(lambda: self.state(stream_id) in states, timeout_s, f"{stream_id} to be {' or '.join(states)}")
        return self.client.get_stream(stream_id)

    def frames(self, stream_id: str, **window: Any) -> tuple[int, dict[str, int]]:
        """Return how many frames are in a stream's timeline, and how many of them were skipped, by reason."""
        summary = self.client.timeline(stream_id, resolution="1h", **window).summary
        return summary.sampled, dict(summary.skipped)

    def metric(self, name: str, **labels: str) -> float:
        """Return the sum of a metric's samples that have these labels."""
        return sum(value for own, value in self.metrics()[name] if labels.items() <= own.items())

    def metrics(self) -> dict[str, list[tuple[dict[str, str], float]]]:
        """Return all samples, by name."""
        with urllib.request.urlopen(f"{self.url}/metrics", timeout=10) as answer:
            text = answer.read().decode()
        samples: dict[str, list[tuple[dict[str, str], float]]] = defaultdict(list)
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                samples[sample.name].append((dict(sample.labels), sample.value))
        return samples

    def wait(self, done: Callable[[], bool], timeout_s: float, what: str) -> None:
        """Wait for something to come to pass; fail with the end of the log."""
        deadline_s = time.monotonic() + timeout_s
        while not done():
            ended = self._process is None or self._process.poll() is not None
            if ended or time.monotonic() > deadline_s:
                streams = [] if ended else [(s.id, s.status) for s in self.client.list_streams()]
                log = self.log.read_text(errors="replace")[-4000:]
                raise AssertionError(f"waited {timeout_s} s in vain for {what}; {streams}\n{log}")
            time.sleep(0.05)

    def _answers(self) -> bool:
        try:
            self.client.health()
        except ApiError:
            return False
        return True
