"""What a camera costs: cameras per core in ingest, memory per camera, and the delay from capture to timeline.

    python -m bench.cameras                                # 640x360 and 1080p at 25 fps, 5 fps of them analysed
    python -m bench.cameras --sizes 640x360 --cameras 40 --seconds 30

Cameras are those of `moodline camera`, in a process of its own. Ingest is measured alone, its frames taken from a memory bus and
dropped: CPU time of the worker, the camera host and all camera processes, so what other processes take does not count. The
delay is measured through the whole embedded pipeline, with few cameras, so that nothing is overloaded.
"""

import argparse
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil

from moodline.services.runtime.bootstrap import Resources, build, open_resources
from moodline.services.runtime.embedded import EmbeddedService
from moodline.services.simulator import CameraSimulator
from moodline.shared.bus import ConsumerSettings
from moodline.shared.messages import PipelineStep, StreamClass, decode, topic
from moodline.shared.settings import DetectorSettings, IngestSettings, Settings
from moodline.shared.streams import StreamSpec, StreamState

START_S = 120.0
LIVE_FRAMES = topic(PipelineStep.FRAMES, StreamClass.LIVE)


@dataclass(frozen=True)
class Cost:
    """Of ingest with `cameras` of one kind."""

    cameras: int
    cores: float
    frames_per_s: float
    skipped: int
    process_mib: float
    worker_mib: float

    @property
    def cameras_per_core(self) -> float:
        return self.cameras / self.cores


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", default=["640x360", "1920x1080"])
    parser.add_argument("--cameras", nargs="+", type=int, default=[24, 6], help="how many of each size")
    parser.add_argument("--delay-cameras", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--sample-fps", default="5")
    parser.add_argument("--clip", type=Path, help="what the cameras show; the built-in scene unless given")
    arguments = parser.parse_args()
    print("| camera, 25 fps | cameras | frames/s taken | skipped | CPU cores | cameras per core | MiB per camera | MiB worker |")
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
    for size, count in zip(arguments.sizes, arguments.cameras, strict=True):
        with CameraSimulator(arguments.clip, paths=count, size=size, fps=25) as simulator:
            cost = ingest_cost([simulator.url(f"cam{number}") for number in range(count)], arguments)
        print(
            f"| {size} | {cost.cameras} | {cost.frames_per_s:.1f} | {cost.skipped} | {cost.cores:.2f} | "
            f"{cost.cameras_per_core:.0f} | {cost.process_mib:.1f} | {cost.worker_mib:.0f} |",
            flush=True,
        )
    count = arguments.delay_cameras
    with CameraSimulator(arguments.clip, paths=count, size=arguments.sizes[0], fps=25) as simulator:
        delays_s = pipeline_delays([simulator.url(f"cam{number}") for number in range(count)], arguments)
    p50, p99 = np.percentile(delays_s, [50, 99])
    print(
        f"\nfrom a frame's arrival to its result in the timeline, {count} cameras of {arguments.sizes[0]}, the whole pipeline in "
        f"one process: p50 {1000 * p50:.0f} ms, p99 {1000 * p99:.0f} ms ({len(delays_s)} frames)"
    )


@contextmanager
def resources_in(folder: str) -> Iterator[Resources]:
    settings = Settings(data_dir=Path(folder), ingest=IngestSettings(), detector=DetectorSettings(side_px=192))
    with open_resources(settings) as resources:
        yield resources


def register(resources: Resources, urls: list[str], sample_fps: str) -> list[str]:
    ids = [f"cam{number}" for number in range(len(urls))]
    for stream_id, url in zip(ids, urls, strict=True):
        resources.store.add(StreamSpec(stream_id=stream_id, url=url, lane=StreamClass.LIVE, sample_fps=sample_fps))
    return ids


def wait_until_live(resources: Resources, ids: list[str]) -> None:
    deadline_s = time.monotonic() + START_S
    while not all(status.state is StreamState.LIVE for status in resources.store.statuses(ids)):
        if time.monotonic() > deadline_s:
            raise SystemExit(f"not all cameras came to be live: {resources.store.statuses(ids)}")
        time.sleep(0.1)


def ingest_cost(urls: list[str], arguments: argparse.Namespace) -> Cost:
    """Run one ingest worker on these cameras for a while."""
    with tempfile.TemporaryDirectory() as folder, resources_in(folder) as resources:
        others = {child.pid for child in psutil.Process().children(recursive=True)}
        counts = [0, 0]
        worker = build("ingest", resources)
        threads = [
            threading.Thread(target=worker.run, args=(resources.stop,)),
            threading.Thread(target=drain, args=(resources, counts)),
        ]
        for thread in threads:
            thread.start()
        try:
            ids = register(resources, urls, arguments.sample_fps)
            wait_until_live(resources, ids)
            time.sleep(2.0)
            ours = [psutil.Process(), *(c for c in psutil.Process().children(recursive=True) if c.pid not in others)]
            before = cpu_seconds(ours), time.monotonic(), *counts
            time.sleep(arguments.seconds)
            cpu_s, lasted_s = cpu_seconds(ours) - before[0], time.monotonic() - before[1]
            frames, skipped = counts[0] - before[2], counts[1] - before[3]
            # The last processes are the cameras': the host has children, they have none.
            cameras = [process for process in ours[1:] if not process.children()]
            mib = sum(process.memory_full_info().pss for process in cameras) / len(cameras) / 2**20
            worker_mib = psutil.Process().memory_info().rss / 2**20
        finally:
            resources.stop.set()
            for thread in threads:
                thread.join()
    return Cost(len(urls), cpu_s / lasted_s, frames / lasted_s, skipped, mib, worker_mib)


def cpu_seconds(processes: list[psutil.Process]) -> float:
    return sum(sum(process.cpu_times()[:2]) for process in processes)


def drain(resources: Resources, counts: list[int]) -> None:
    """Take frames from the bus, as detectors would, and count those that are pictures and those that are skips."""
    consumer = resources.bus.open_consumer(ConsumerSettings(group="bench", topics=(LIVE_FRAMES,)))
    while not resources.stop.is_set():
        records = consumer.poll(256, 0.2)
        for record in records:
            message = decode(record.value)
            counts[getattr(message, "skip", None) is not None] += 1
        if records:
            consumer.commit([record.position for record in records])
    consumer.close()


def pipeline_delays(urls: list[str], arguments: argparse.Namespace) -> list[float]:
    """Run the embedded service on these cameras; return the delay of each frame, in s."""
    delays_s: list[float] = []

    class Recorder:
        def labels(self, *_: object) -> "Recorder":
            return self

        observe: Callable[[float], None] = staticmethod(delays_s.append)

    with tempfile.TemporaryDirectory() as folder:
        settings = Settings(data_dir=Path(folder), detector=DetectorSettings(side_px=192))
        with EmbeddedService(settings) as service:
            ids = register(service.resources, urls, arguments.sample_fps)
            wait_until_live(service.resources, ids)
            time.sleep(5.0)
            object.__setattr__(service.resources.metrics, "end_to_end_seconds", Recorder())
            time.sleep(arguments.seconds)
    return delays_s


if __name__ == "__main__":
    main()
