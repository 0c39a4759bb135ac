"""A distributed Moodline on this machine: worker processes on a real Kafka and a real Redis, to be killed and paused."""

import os
import random
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

from confluent_kafka import ConsumerGroupTopicPartitions, KafkaException
from confluent_kafka.admin import AdminClient
from prometheus_client.parser import text_string_to_metric_families

from moodline.services.runtime.bootstrap import WORKERS
from moodline.shared.bus import open_bus
from moodline.shared.bus.kafka_settings import parse_url
from moodline.shared.messages import ALL_TOPICS
from moodline.shared.store import Retention, Store, open_store
from moodline.shared.store.base import dump
from moodline.shared.streams import StreamSpec, StreamState
from moodline.shared.timeline import TIERS_S
from tests.support.servers import die_with_parent, free_port

RETENTION = Retention(dict.fromkeys(TIERS_S, 10 * 86_400))


@dataclass
class WorkerProcess:
    kind: str
    number: int
    process: subprocess.Popen[bytes]
    metrics_port: int
    paused: bool = False
    stopped: bool = False

    @property
    def alive(self) -> bool:
        return self.process.poll() is None


@dataclass
class Cluster:
    """Starts workers, watches their metrics, and reads timelines back. A context manager: leaving kills all workers."""

    kafka_url: str
    redis_url: str
    media_root: Path
    directory: Path
    partitions: int = 4
    env: dict[str, str] = field(default_factory=dict)
    env_of: dict[str, dict[str, str]] = field(default_factory=dict)
    """What a kind of worker gets on top, such as a user of its own."""
    workers: list[WorkerProcess] = field(default_factory=list)
    crashes: list[str] = field(default_factory=list)

    def __enter__(self) -> Self:
        self.store: Store = open_store(self.redis_url, RETENTION)
        bus = open_bus(self.kafka_url, partitions=self.partitions)
        bus.ensure_topics(ALL_TOPICS)
        bus.close()
        self._counts: dict[str, dict[int, float]] = defaultdict(dict)
        self._watching = threading.Event()
        self._watcher = threading.Thread(target=self._watch, daemon=True)
        self._watcher.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._watching.set()
        self._watcher.join(10)
        for worker in self.workers:
            if worker.alive:
                worker.process.kill()
            worker.process.wait(10)
        self.store.close()

    def start(self, counts: dict[str, int] | int) -> None:
        """Start workers: a number of each kind, or one number for all."""
        for kind in WORKERS:
            for _ in range(counts if isinstance(counts, int) else counts[kind]):
                self.spawn(kind)

    def spawn(self, kind: str) -> WorkerProcess:
        port = free_port()
        environment = {key: value for key, value in os.environ.items() if not key.startswith("MOODLINE_")}
        environment |= {
            "MOODLINE_BUS_URL": self.kafka_url,
            "MOODLINE_BUS_PARTITIONS": str(self.partitions),
            "MOODLINE_STORE_URL": self.redis_url,
            "MOODLINE_INGEST_MEDIA_ROOT": str(self.media_root),
            "MOODLINE_WORKER_METRICS_PORT": str(port),
            "MOODLINE_CLASSIFIER_THREADS": "1",
            "MOODLINE_DETECTOR_THREADS": "1",
            **self.env,
            **self.env_of.get(kind, {}),
        }
        number = len(self.workers)
        with (self.directory / f"{kind}-{number}.log").open("wb") as log:
            command = [*die_with_parent(), str(Path(sys.executable).parent / "moodline"), kind]
            process = subprocess.Popen(command, env=environment, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
        worker = WorkerProcess(kind, number, process, port)
        self.workers.append(worker)
        return worker

    def running(self, kind: str | None = None) -> list[WorkerProcess]:
        return [worker for worker in self.workers if worker.alive and not worker.paused and kind in (None, worker.kind)]

    def kill(self, worker: WorkerProcess) -> None:
        """Kill -9 and put a new worker of the same kind in its place, as a supervisor would."""
        worker.process.kill()
        worker.process.wait(10)
        self.spawn(worker.kind)

    def stop(self, worker: WorkerProcess, timeout_s: float = 20.0) -> int:
        """Ask a worker to end, as a rolling restart does, and return its exit code."""
        worker.stopped = True
        worker.process.terminate()
        return worker.process.wait(timeout_s)

    def pause(self, worker: WorkerProcess) -> None:
        worker.process.send_signal(signal.SIGSTOP)
        worker.paused = True

    def resume(self, worker: WorkerProcess) -> None:
        worker.process.send_signal(signal.SIGCONT)
        worker.paused = False

    def supervise(self) -> None:
        """Start again what stopped by itself, and remember it."""
        for worker in list(self.workers):
            expected = worker.paused or worker.stopped
            if not expected and not worker.alive and worker.process.returncode not in (-9, None) and worker.kind:
                tail = (self.directory / f"{worker.kind}-{worker.number}.log").read_text(errors="replace")[-2000:]
                self.crashes.append(f"{worker.kind}-{worker.number} exited {worker.process.returncode}: {tail}")
                worker.process.returncode = -9
                self.spawn(worker.kind)

    def wait_until_up(self, timeout_s: float = 120.0) -> None:
        """Wait until every worker's loop runs."""
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            due = [worker for worker in self.workers if not worker.stopped]
            if all(self._scrape(worker).get("moodline_worker_up", 0.0) > 0 for worker in due if worker.kind != "ingest"):
                return
            dead = [worker for worker in due if not worker.alive]
            if dead:
                raise AssertionError(f"{dead[0].kind} did not start: {self.log_of(dead[0])}")
            time.sleep(0.2)
        raise AssertionError(f"workers did not come up in {timeout_s} s")

    def log_of(self, worker: WorkerProcess) -> str:
        return (self.directory / f"{worker.kind}-{worker.number}.log").read_text(errors="replace")[-3000:]

    def wait_until_final(self, specs: list[StreamSpec], timeout_s: float) -> None:
        """Wait until every stream's timeline is final; fail with what each unfinished one says."""
        deadline = time.monotonic() + timeout_s
        ids = [spec.stream_id for spec in specs]
        while True:
            progress = self.store.load(ids)
            if all(item is not None and item.final for item in progress):
                return
            failed = [
                (name, status)
                for name, status in zip(ids, self.store.statuses(ids), strict=True)
                if status.state is StreamState.FAILED
            ]
            if failed or time.monotonic() > deadline:
                unfinished = [
                    (name, item.high_water_mark if item else None, item.position if item else None)
                    for name, item in zip(ids, progress, strict=True)
                    if not (item and item.final)
                ]
                raise AssertionError(
                    f"failed: {failed}; not final after {timeout_s} s: {unfinished}; crashes: {self.crashes}; {self.groups()}"
                )
            self.supervise()
            time.sleep(0.2)

    def groups(self) -> str:
        """Say what each consumer group has committed and who is in it: where frames wait, when they do not arrive."""
        admin = AdminClient({"bootstrap.servers": parse_url(self.kafka_url).servers, "log_level": 0})
        lines = []
        try:
            names = [group.group_id for group in admin.list_consumer_groups(request_timeout=5).result().valid]
            for name in names:
                group = admin.describe_consumer_groups([name], request_timeout=5)[name].result()
                asked = ConsumerGroupTopicPartitions(name)
                offsets = admin.list_consumer_group_offsets([asked], request_timeout=5)[name].result().topic_partitions
                members = [len(member.assignment.topic_partitions) for member in group.members]
                committed = {item.partition: item.offset for item in offsets}
                lines.append(f"{name}: {group.state.name}, partitions of members {members}, committed {committed}")
        except KafkaException as error:
            lines.append(f"Kafka does not say: {error}")
        return "groups: " + "; ".join(lines)

    def dump(self, spec: StreamSpec) -> bytes:
        return dump(self.store, spec.stream_id, TIERS_S)

    def total(self, sample: str) -> float:
        """Return the sum of a counter over all workers that ever ran, as last seen before each died."""
        return sum(self._counts[sample].values())

    def _watch(self) -> None:
        while not self._watching.wait(0.3):
            for worker in self.running():
                for name, value in self._scrape(worker).items():
                    self._counts[name][worker.number] = value

    def _scrape(self, worker: WorkerProcess) -> dict[str, float]:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{worker.metrics_port}/metrics", timeout=1) as answer:
                text = answer.read().decode()
        except OSError:
            return {}
        values: dict[str, float] = defaultdict(float)
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                labels = sample.labels
                if sample.name.endswith(("_total", "_up")):
                    values[sample.name] += sample.value
                    label = labels.get("reason") or labels.get("result") or labels.get("worker")
                    if label:
                        values[f"{sample.name}:{label}"] += sample.value
        return values


def seeded(name: str, default: int = 20_260_101) -> random.Random:
    """Return a random generator; MOODLINE_TEST_SEED chooses another run."""
    seed = int(os.environ.get("MOODLINE_TEST_SEED", default))
    print(f"{name}: seed {seed}")  # noqa: T201  # shown with a failure, to repeat it
    return random.Random(seed)
