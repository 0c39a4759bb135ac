"""Redis fails over under files that play: a master under Sentinel, and a master of a cluster, is killed.

Replication is asynchronous: what the dead master acknowledged last may be on no replica. That must heal, too: the timelines
equal, byte for byte, those of an undisturbed embedded run.
"""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from moodline.shared.streams import StreamSpec
from tests.support.cluster import Cluster
from tests.support.fixtures import unavailable
from tests.support.redis_groups import ClusterGroup, RedisNode, SentinelGroup, cut_off, reconnect
from tests.support.reference import reference_dump, synthetic_spec
from tests.support.servers import KafkaServer, wait_until
from tests.support.standstill import Standstill

pytestmark = [pytest.mark.redis, pytest.mark.kafka, pytest.mark.slow, pytest.mark.timeout(300)]

SECONDS = 6
"""Of a file: 150 frames."""
LEAST_FRAMES = 20


@pytest.fixture(scope="module", autouse=True)
def _servers() -> None:
    if shutil.which("redis-server") is None:
        unavailable("no redis-server on the path: run deploy/local/system-packages.sh")


@pytest.fixture(scope="module")
def sentinels() -> Iterator[SentinelGroup]:
    with SentinelGroup() as group:
        yield group


@pytest.fixture(scope="module")
def redis_cluster() -> Iterator[ClusterGroup]:
    with ClusterGroup() as group:
        yield group


def frames(cluster: Cluster, spec: StreamSpec) -> int:
    """Return how many frames are on a stream's timeline."""
    progress = cluster.store.load([spec.stream_id])[0]
    return 0 if progress is None or progress.high_water_mark is None else progress.high_water_mark.seq + 1


def play_into_the_middle(cluster: Cluster, spec: StreamSpec) -> None:
    cluster.store.add(spec)
    wait_until(lambda: frames(cluster, spec) >= LEAST_FRAMES, 60, "the middle of the file")


def seq_on(node: RedisNode, spec: StreamSpec) -> int:
    """Return the last frame of a stream that one node knows of, whatever its role is."""
    with node.admin() as admin:
        if "cluster-enabled" in node.options:
            admin.execute_command("READONLY")
        high_water_mark = admin.hget(f"moodline:{{{spec.stream_id}}}", "mark")
    return int(high_water_mark.partition(b":")[2]) if high_water_mark else -1


def lose_a_master(
    cluster: Cluster,
    spec: StreamSpec,
    master_of: Callable[[], RedisNode],
    replicas_of: Callable[[RedisNode], list[RedisNode]],
    *,
    with_writes: bool,
) -> tuple[RedisNode, float, int]:
    """Kill the master of a file in its middle; return it, the longest standstill in s and how many frames were lost with it."""
    play_into_the_middle(cluster, spec)
    lost = 0
    with Standstill(cluster.store, [spec]) as watch:
        master = master_of()
        replicas = replicas_of(master)
        if with_writes:
            cut_off(master, replicas)
            since = frames(cluster, spec)
            wait_until(lambda: frames(cluster, spec) >= since + LEAST_FRAMES, 30, "writes that no replica has")
            known = seq_on(master, spec)
            master.kill()
            lost = known - max(seq_on(node, spec) for node in replicas)
            reconnect(replicas)
            assert lost >= LEAST_FRAMES, "acknowledged writes died with the master"
        else:
            master.kill()
        assert not final(cluster, spec), "the master died in the middle of the file"
        cluster.wait_until_final([spec], 120)
    return master, watch.longest_s, lost


def final(cluster: Cluster, spec: StreamSpec) -> bool:
    progress = cluster.store.load([spec.stream_id])[0]
    return bool(progress and progress.final)


def check(
    fault: str,
    url: str,
    kafka: KafkaServer,
    folder: Path,
    steps: Callable[[Cluster, list[StreamSpec]], list[tuple[RedisNode, float, int]]],
) -> None:
    specs = [synthetic_spec(f"{fault}-{number}", SECONDS, seed=1) for number in range(2)]
    reference = reference_dump(folder, specs[0])
    with Cluster(kafka.url, url, folder, folder, env={"MOODLINE_INGEST_CREDIT_FRAMES": "16"}) as cluster:
        cluster.start(1)
        cluster.wait_until_up()
        for (_, stood_s, lost), what in zip(steps(cluster, specs), ("in step", "behind"), strict=True):
            print(f"{fault}, replica {what}: longest standstill {stood_s:.1f} s, {lost} frames rolled back")  # noqa: T201
        assert [cluster.dump(spec) for spec in specs] == [reference, reference]
        assert cluster.crashes == []
        assert all(worker.alive for worker in cluster.workers), "no worker had to be started again"


def test_sentinel_fails_over(tmp_path: Path, private_kafka: KafkaServer, sentinels: SentinelGroup) -> None:
    def steps(cluster: Cluster, specs: list[StreamSpec]) -> list[tuple[RedisNode, float, int]]:
        done = []
        for spec, with_writes in zip(specs, (False, True), strict=True):
            wait_until(sentinels.settled, 60, "replicas that follow the master")
            dead = lose_a_master(cluster, spec, sentinels.master, lambda _: sentinels.replicas(), with_writes=with_writes)
            dead[0].start()
            done.append(dead)
        return done

    check("sentinel", sentinels.url, private_kafka, tmp_path, steps)


def test_a_cluster_fails_over(tmp_path: Path, private_kafka: KafkaServer, redis_cluster: ClusterGroup) -> None:
    def steps(cluster: Cluster, specs: list[StreamSpec]) -> list[tuple[RedisNode, float, int]]:
        done = []
        for spec, with_writes in zip(specs, (False, True), strict=True):
            wait_until(redis_cluster.settled, 60, "replicas in step")
            dead = lose_a_master(
                cluster,
                spec,
                lambda spec=spec: redis_cluster.master_of(f"moodline:{{{spec.stream_id}}}"),  # type: ignore[misc]
                lambda master: [redis_cluster.replica_of(master)],  # type: ignore[arg-type]
                with_writes=with_writes,
            )
            dead[0].start()
            done.append(dead)
        return done

    check("cluster", redis_cluster.url, private_kafka, tmp_path, steps)
