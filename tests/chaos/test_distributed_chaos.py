"""Files play on real Kafka and Redis while workers are killed and frozen and the servers die: nothing is lost or doubled.

A seeded monkey acts; new streams are registered as long as it does, so that files play under every act. In the end every
timeline must equal, byte for byte, that of one undisturbed embedded run.
"""

import contextlib
import os
import random
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from moodline.services.runtime.bootstrap import WORKERS
from moodline.shared.errors import StoreUnavailableError, StreamExistsError
from moodline.shared.store import ApplyResult, BucketValue, HighWaterMark, TimelineUpdate
from moodline.shared.streams import StreamSpec
from tests.support.cluster import Cluster, WorkerProcess, seeded
from tests.support.reference import reference_dump, synthetic_spec
from tests.support.servers import KafkaServer, RedisServer

pytestmark = [pytest.mark.kafka, pytest.mark.redis, pytest.mark.slow, pytest.mark.timeout(3600)]

LONG = os.environ.get("MOODLINE_TEST_CHAOS") == "long"
KILLS = 150 if LONG else 32
PAUSES = 50 if LONG else 11
SESSION_TIMEOUT_S = 6.0
STREAMS_AT_ONCE = 4
CONTENTS = 3
SECONDS = 12
FRAMES_BETWEEN_ACTS = 10
PATIENCE_S = 12.0
ROLLED_BACK_BYTES = 300_000


class Monkey:
    """Does one act at a time; keeps some workers of each kind alive."""

    def __init__(self, cluster: Cluster, kafka: KafkaServer, redis: RedisServer, rng: random.Random) -> None:
        self.cluster, self.kafka, self.redis, self.rng = cluster, kafka, redis, rng
        self.paused: list[tuple[float, WorkerProcess]] = []
        self.kinds_hit: set[str] = set()
        acts: list[Callable[[], None]] = [self.kill] * KILLS + [self.pause] * PAUSES
        rng.shuffle(acts)
        third = len(acts) // 3
        acts.insert(third, self.restart_broker)
        acts.insert(2 * third, self.restart_redis)
        acts.append(self.roll_back_redis)
        self.acts = acts

    def kill(self) -> None:
        worker = self._pick(WORKERS)
        self.cluster.kill(worker)

    def pause(self) -> None:
        # An aggregator is frozen more often than the others: it is the one whose late writes must be refused.
        worker = self._pick(("aggregator", "aggregator", *WORKERS))
        self.cluster.pause(worker)
        self.paused.append((time.monotonic() + SESSION_TIMEOUT_S * 1.5, worker))

    def restart_broker(self) -> None:
        self.kafka.kill()
        self.kafka.restart()

    def restart_redis(self) -> None:
        self.redis.kill()
        self.redis.restart()

    def roll_back_redis(self) -> None:
        """Kill Redis and cut the end off its append-only file: its last writes never happened."""
        self.redis.kill()
        aof = self.redis.aof_path
        with aof.open("r+b") as file:
            file.truncate(aof.stat().st_size - min(aof.stat().st_size // 2, ROLLED_BACK_BYTES))
        self.redis.restart()

    def wake(self) -> None:
        for due in [item for item in self.paused if item[0] <= time.monotonic()]:
            self.cluster.resume(due[1])
            self.paused.remove(due)

    def wake_all(self) -> None:
        for _, worker in self.paused:
            self.cluster.resume(worker)
        self.paused.clear()

    def _pick(self, kinds: tuple[str, ...]) -> WorkerProcess:
        choices = [worker for kind in kinds for worker in self.cluster.running(kind)]
        if not choices:
            self.wake_all()
            choices = self.cluster.running()
        worker = self.rng.choice(choices)
        self.kinds_hit.add(worker.kind)
        return worker


def test_timelines_survive_everything(tmp_path: Path, private_kafka: KafkaServer, private_redis: RedisServer) -> None:
    rng = seeded("chaos")
    contents = {seed: reference_dump(tmp_path, synthetic_spec("reference", SECONDS, seed)) for seed in range(CONTENTS)}
    specs: list[tuple[int, StreamSpec]] = []
    kafka_url = f"{private_kafka.url}?session.timeout.ms={int(SESSION_TIMEOUT_S * 1000)}"
    cluster = Cluster(kafka_url, private_redis.url, tmp_path, tmp_path, env={"MOODLINE_INGEST_STALL_S": "20"})
    with cluster:
        cluster.start(2)
        cluster.wait_until_up()
        monkey = Monkey(cluster, private_kafka, private_redis, rng)
        for act in monkey.acts:
            pause_s, since_s, frames_before = rng.uniform(0.5, 2.0), time.monotonic(), frames_done(cluster, specs)
            while time.monotonic() < since_s + pause_s or (
                # The next blow falls on a system at work again, or on one that takes long to recover.
                frames_done(cluster, specs) < frames_before + FRAMES_BETWEEN_ACTS and time.monotonic() < since_s + PATIENCE_S
            ):
                monkey.wake()
                cluster.supervise()
                keep_playing(cluster, specs)
                time.sleep(0.1)
            act()
        monkey.wake_all()
        deadline = time.monotonic() + PATIENCE_S * 5
        while not keep_playing(cluster, specs):  # Redis may still load what it has; what it lost must be registered again
            assert time.monotonic() < deadline, "Redis did not come back"
            time.sleep(0.1)
        cluster.wait_until_final([spec for _, spec in specs], timeout_s=600)
        assert [late_write(cluster, spec) for _, spec in specs] == [ApplyResult.STALE] * len(specs), "a zombie's write got in"
        differing = [spec.stream_id for seed, spec in specs if cluster.dump(spec) != contents[seed]]
        counts = {
            name: cluster.total(name)
            for name in (
                "moodline_frames_dropped_total:duplicate",
                "moodline_frames_dropped_total:fenced",
                "moodline_frames_dropped_total:gap",
                "moodline_timeline_updates_total:stale",
                "moodline_timeline_updates_total:applied",
                "moodline_rewinds_total",
            )
        }
    report = f"{len(specs)} streams, {KILLS} kills, {PAUSES} pauses, hit {sorted(monkey.kinds_hit)}: {counts}"
    print(report)  # noqa: T201  # what a long run is looked at for
    assert differing == []
    assert cluster.crashes == [], "no worker may end by itself"
    assert monkey.kinds_hit == set(WORKERS)
    assert counts["moodline_frames_dropped_total:duplicate"] > 0, "the replays must have been seen"
    # An aggregator is rarely frozen in the midst of a batch; tests/contract/test_zombie_contract.py sees to that one.
    fenced = counts["moodline_timeline_updates_total:stale"] + counts["moodline_frames_dropped_total:fenced"]
    assert fenced > 0, "the fence must have been hit"


def late_write(cluster: Cluster, spec: StreamSpec) -> ApplyResult:
    """Write as an aggregator would that was frozen some frames ago; the timelines compared after it show that nothing changed."""
    progress = cluster.store.load([spec.stream_id])[0]
    assert progress is not None
    assert progress.high_water_mark is not None
    assert progress.position is not None
    epoch, seq = progress.high_water_mark
    update = TimelineUpdate(
        stream_id=spec.stream_id,
        expected=HighWaterMark(epoch, seq - 5),
        high_water_mark=HighWaterMark(epoch, seq - 4),
        final=False,
        position=progress.position,
        state=b"late",
        last_event_time_us=spec.recorded_at_us,
        bucket_values=(BucketValue("", 1, spec.recorded_at_us // 1_000_000, b"late"),),
    )
    return cluster.store.apply([update])[0]


def frames_done(cluster: Cluster, specs: list[tuple[int, StreamSpec]]) -> int:
    try:
        progress = cluster.store.load([spec.stream_id for _, spec in specs])
    except StoreUnavailableError:
        return 0
    return sum(item.high_water_mark.seq for item in progress if item and item.high_water_mark)


def keep_playing(cluster: Cluster, specs: list[tuple[int, StreamSpec]]) -> bool:
    """Register a new stream for every one that has ended, so that the monkey never acts on an idle system.

    Returns:
        Whether the store answered all the way: only then is every stream of ``specs`` registered.
    """
    try:
        progress = cluster.store.load([spec.stream_id for _, spec in specs])
        for (_, spec), item in zip(specs, progress, strict=True):
            if item is None:  # the store lost the registration itself, as its owner would notice
                register(cluster, spec)
        unfinished = sum(not (item and item.final) for item in progress)
        while unfinished < STREAMS_AT_ONCE:
            seed = len(specs) % CONTENTS
            specs.append((seed, synthetic_spec(f"chaos-{len(specs)}", SECONDS, seed)))
            register(cluster, specs[-1][1])
            unfinished += 1
    except StoreUnavailableError:
        return False
    return True


def register(cluster: Cluster, spec: StreamSpec) -> None:
    with contextlib.suppress(StreamExistsError):  # the first try's answer was lost
        cluster.store.add(spec)
