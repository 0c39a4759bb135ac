"""Does adding classifier workers add throughput? A backlog of face crops on a real Kafka, drained by 1, 2, 4, … workers.

    python -m bench.scaling [--workers 1,2,4] [--wait-ms 0] [--messages 12800] [--scale-out 1,4]

Without --wait-ms every worker runs the real model, so the cores of this machine are the limit. With it the model is replaced by
one that takes that long for each batch and no CPU, as one on a GPU elsewhere would: then only the protocol is the limit
(group membership, partitions, flush, commit). --scale-out adds workers when a quarter of the backlog is done.

Workers are loaded before they join, and join at the same moment, on the backlog: rebalances are in the figures. After each run an
aggregator builds the timelines; those of all runs must be equal, byte for byte.
"""

import argparse
import hashlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from bench.pipeline import cpu_of_s
from moodline.services.classifier.model import Crops, Probabilities
from moodline.services.runtime.bootstrap import build, open_resources
from moodline.services.runtime.processes import stop_on_signal
from moodline.shared.bus import ConsumerSettings, open_bus
from moodline.shared.messages import End, Face, Faces, PipelineStep, StreamClass, encode, topic
from moodline.shared.settings import load_settings
from moodline.shared.streams import StreamSpec
from tests.support.cluster import Cluster
from tests.support.servers import KafkaServer, RedisServer, die_with_parent

FACES = topic(PipelineStep.FACES, StreamClass.FILE)
EMOTIONS = topic(PipelineStep.EMOTIONS, StreamClass.FILE)
STREAMS, PARTITIONS, FACES_PER_FRAME, BATCH_MESSAGES = 128, 16, 2, 64
START_US, FRAME_US = 1_750_000_000_000_000, 40_000
SCALE_OUT_AT = 0.25


class WaitingModel:
    """Takes a fixed time for each batch and no CPU; its answer depends on the crop alone."""

    name = "waiting"

    def __init__(self, wait_s: float) -> None:
        self._wait_s = wait_s

    def predict(self, crops: Crops) -> Probabilities:
        time.sleep(self._wait_s)
        answer = np.full((len(crops), 7), 0.1, np.float32)
        answer[np.arange(len(crops)), crops.reshape(len(crops), -1).sum(axis=1) % 7] = 0.4
        return answer

    def close(self) -> None:
        """There is nothing to release."""


def run_worker(wait_s: float) -> None:
    """Be one classifier worker: load, say so, wait for the word on standard input, work until SIGTERM."""
    from moodline.services.classifier import factory

    settings = load_settings()
    model = WaitingModel(wait_s) if wait_s else factory.open_model(settings.classifier, settings.classifier.model)
    # Kafka's client joins its group in the background as soon as it is opened, so that must wait for the word too.
    factory.open_model = lambda *_: model
    print("ready", flush=True)
    sys.stdin.readline()
    with open_resources(settings) as resources:
        stop_on_signal(resources.stop)
        build("classifier", resources).run(resources.stop)


@dataclass
class Worker:
    process: subprocess.Popen[str]

    def go(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write("go\n")
        self.process.stdin.flush()


@dataclass
class Run:
    """One drained backlog. Times are seconds since the workers were let go."""

    workers: str
    messages: int
    written: int
    first_s: float
    last_s: float
    cpu_s: float
    timelines: str
    aggregator_cpu_s: float
    written_at_s: list[float]
    scaled_out_s: float = 0.0

    @property
    def per_s(self) -> float:
        return self.messages / (self.last_s - self.first_s)


def specs() -> list[StreamSpec]:
    url = "synthetic://astronaut"
    return [StreamSpec(stream_id=f"scale-{number}", url=url, recorded_at_us=START_US) for number in range(STREAMS)]


def make_faces() -> list[tuple[Face, ...]]:
    """Return the faces of 64 frames: crops of noise, since no network takes longer for a prettier one."""
    rng = np.random.default_rng(1)
    boxes = [(6_000 + 30_000 * n, 10_000, 26_000 + 30_000 * n, 40_000) for n in range(FACES_PER_FRAME)]
    return [tuple(Face(box, 60_000, rng.integers(0, 256, 2304, np.uint8).tobytes()) for box in boxes) for _ in range(64)]


def fill(cluster: Cluster, messages: int) -> int:
    """Register streams and put the backlog on the bus; return how many messages it has."""
    bus, faces, sent = open_bus(cluster.kafka_url, partitions=PARTITIONS), make_faces(), 0
    producer, epochs = bus.open_producer(), {}
    for spec in specs():
        cluster.store.add(spec)
        epochs[spec.stream_id] = cluster.store.acquire(spec.stream_id, time.time()).epoch
    frames = messages // STREAMS
    for seq in range(frames + 1):
        for number, (stream_id, epoch) in enumerate(epochs.items()):
            at_us = START_US + seq * FRAME_US
            head: dict[str, Any] = {
                "stream_id": stream_id,
                "session": epoch,
                "seq": seq,
                "event_time_us": at_us,
                "captured_at_us": at_us,
            }
            if seq == frames:
                message: Faces | End = End(**head, lane=StreamClass.FILE)
            else:
                message = Faces(**head, lane=StreamClass.FILE, width=640, height=360, faces=faces[(seq + number) % len(faces)])
            producer.send(FACES, stream_id.encode(), encode(message))
            sent += 1
    producer.flush()
    producer.close()
    bus.close()
    return sent


class Written:
    """Reads the topic of results as they come."""

    def __init__(self, kafka_url: str) -> None:
        self._bus = open_bus(kafka_url, partitions=PARTITIONS)
        self._consumer = self._bus.open_consumer(ConsumerSettings(group="bench", topics=(EMOTIONS,)))
        self.at_s: list[float] = []
        self.distinct: set[tuple[bytes, bytes]] = set()

    def until(self, count: int, timeout_s: float = 300.0) -> None:
        """Read until so many different messages have come."""
        deadline = time.monotonic() + timeout_s
        while len(self.distinct) < count:
            assert time.monotonic() < deadline, f"{len(self.distinct)} of {count} after {timeout_s} s"
            for record in self._consumer.poll(2000, 0.2, 0.0):
                self.at_s.append(record.timestamp_ms / 1000)
                self.distinct.add((record.key, hashlib.sha1(record.value, usedforsecurity=False).digest()))

    def close(self) -> None:
        self._consumer.close()
        self._bus.close()


@contextmanager
def open_worker(cluster: Cluster, wait_s: float, log: Path) -> Iterator[Worker]:
    environment = {key: value for key, value in os.environ.items() if not key.startswith("MOODLINE_")}
    environment |= {
        "MOODLINE_BUS_URL": cluster.kafka_url,
        "MOODLINE_BUS_PARTITIONS": str(PARTITIONS),
        "MOODLINE_STORE_URL": cluster.redis_url,
        "MOODLINE_CLASSIFIER_THREADS": "1",
        "MOODLINE_CLASSIFIER_BATCH_MESSAGES": str(BATCH_MESSAGES),
    }
    if wait_s:
        environment["MOODLINE_CLASSIFIER_BATCH_SIZE"] = str(BATCH_MESSAGES * FACES_PER_FRAME)
    command = [*die_with_parent(), sys.executable, "-m", "bench.scaling", "--worker", "--wait-ms", str(wait_s * 1000)]
    with log.open("w") as errors:
        process = subprocess.Popen(
            command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True
        )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n", log.read_text()
        yield Worker(process)
    finally:
        process.terminate()
        process.wait(30)


def drain(start: int, end: int, options: argparse.Namespace) -> Run:
    """Drain a backlog with `start` workers; with `end` from a quarter of it on."""
    wait_s = options.wait_ms / 1000
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        kafka, redis = stack.enter_context(KafkaServer()), stack.enter_context(RedisServer())
        url = kafka.url + (f"?heartbeat.interval.ms={options.heartbeat_ms}" if options.heartbeat_ms else "")
        cluster = stack.enter_context(Cluster(url, redis.url, folder, folder, partitions=PARTITIONS))
        total = fill(cluster, options.messages)
        workers = [stack.enter_context(open_worker(cluster, wait_s, folder / f"worker-{n}.log")) for n in range(end)]
        written = Written(kafka.url)
        stack.callback(written.close)
        cpu_s, went_s, scaled_out_s = -sum(cpu_of_s(worker.process.pid) for worker in workers), time.time(), 0.0
        for worker in workers[:start]:
            worker.go()
        if end > start:
            written.until(int(total * SCALE_OUT_AT))
            scaled_out_s = time.time() - went_s
            for worker in workers[start:]:
                worker.go()
        written.until(total)
        cpu_s += sum(cpu_of_s(worker.process.pid) for worker in workers)
        aggregator = cluster.spawn("aggregator").process.pid
        cluster.wait_until_up()
        aggregator_cpu_s = -cpu_of_s(aggregator)
        cluster.wait_until_final(specs(), 300)
        aggregator_cpu_s += cpu_of_s(aggregator)
        dumps = hashlib.sha256(b"".join(cluster.dump(spec) for spec in specs())).hexdigest()[:16]
        at_s = sorted(second - went_s for second in written.at_s)
        name = f"{start}" if start == end else f"{start}, then {end}"
        return Run(name, total, len(at_s), at_s[0], at_s[-1], cpu_s, dumps, aggregator_cpu_s, at_s, scaled_out_s)


def rate(run: Run, since_s: float, until_s: float) -> float:
    """Return messages per second in a span of time."""
    return sum(since_s <= second < until_s for second in run.written_at_s) / (until_s - since_s)


def show_scale_out(run: Run) -> None:
    at_s = run.written_at_s
    before = rate(run, run.first_s, run.scaled_out_s)
    last_second = run.last_s - 1
    middle = rate(run, min(run.scaled_out_s + 2, last_second), last_second + 0.001)
    after = [second for second in at_s if second >= run.scaled_out_s]
    silence = max(later - earlier for earlier, later in pairwise(after))
    left = len(after)
    print(
        f"scaled out at {run.scaled_out_s:.1f} s with {left} left: {before:.0f}/s before, {middle:.0f}/s from 2 s after; "
        f"drained {run.last_s - run.scaled_out_s:.1f} s later ({left / before:.1f} s without); longest silence {silence:.2f} s"
    )


def show(runs: list[Run], wait_s: float) -> None:
    print(f"\n{runs[0].messages} messages of {FACES_PER_FRAME} faces, {PARTITIONS} partitions, {STREAMS} streams; ", end="")
    print(f"{wait_s * 1000:g} ms a batch" if wait_s else "the real model, 1 thread a worker", end="")
    print(f"; load of the machine {os.getloadavg()[0]:.1f}\n")
    print("| workers | first result, s | drained, s | messages/s | to 1 worker | messages per CPU-second | written twice |")
    print("| ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
    for run in runs:
        print(
            f"| {run.workers} | {run.first_s:.1f} | {run.last_s:.1f} | {run.per_s:.0f} | {run.per_s / runs[0].per_s:.2f} "
            f"| {run.messages / run.cpu_s:.0f} | {run.written - run.messages} |"
        )
    for run in runs:
        if run.scaled_out_s:
            show_scale_out(run)
    for run in runs:
        seconds = range(int(run.last_s) + 1)
        print(f"{run.workers}, messages in each second: {' '.join(f'{rate(run, second, second + 1):.0f}' for second in seconds)}")
    aggregated = sum(run.messages for run in runs) / sum(run.aggregator_cpu_s for run in runs)
    print(f"aggregator: {aggregated:.0f} messages per CPU-second")
    same = len({run.timelines for run in runs}) == 1
    print(f"\ntimelines of all runs {'are equal' if same else 'DIFFER'}: {', '.join(run.timelines for run in runs)}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", default="1,2,4", help="how many, with commas")
    parser.add_argument("--scale-out", default="1,4", help="from how many to how many; empty: not tried")
    parser.add_argument("--wait-ms", type=float, default=0.0, help="replace the model by one that waits so long for each batch")
    parser.add_argument(
        "--heartbeat-ms", type=int, default=0, help="how soon members hear of a rebalance; 0: as Moodline sets it"
    )
    parser.add_argument("--messages", type=int, default=12_800)
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        run_worker(options.wait_ms / 1000)
        return
    counts = [(int(count), int(count)) for count in options.workers.split(",")]
    if options.scale_out:
        start, end = (int(count) for count in options.scale_out.split(","))
        counts.append((start, end))
    runs = []
    for start, end in counts:
        runs.append(drain(start, end, options))
        print(f"{runs[-1].workers}: drained in {runs[-1].last_s:.1f} s", file=sys.stderr, flush=True)
    show(runs, options.wait_ms / 1000)
    if len({run.timelines for run in runs}) > 1:
        sys.exit(1)


if __name__ == "__main__":
    main()
