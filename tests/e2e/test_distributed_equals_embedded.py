"""The same clips through one embedded run and through real Kafka and Redis: timelines equal byte for byte."""

from pathlib import Path

import pytest

from moodline.shared.streams import StreamSpec
from tests.support.cluster import Cluster
from tests.support.reference import clip_spec, reference_dump
from tests.support.servers import KafkaServer, RedisServer

pytestmark = [pytest.mark.kafka, pytest.mark.redis, pytest.mark.slow, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def specs(clips: Path) -> list[StreamSpec]:
    return [clip_spec(path.stem, path) for path in sorted(clips.iterdir())]


@pytest.fixture(scope="module")
def references(clips: Path, specs: list[StreamSpec]) -> dict[str, bytes]:
    """One embedded run per clip, alone."""
    return {spec.stream_id: reference_dump(clips, spec) for spec in specs}


@pytest.mark.parametrize(
    ("partitions", "workers"),
    [
        pytest.param(4, {"ingest": 2, "detector": 2, "classifier": 2, "aggregator": 2}, id="two-of-each"),
        pytest.param(1, {"ingest": 1, "detector": 1, "classifier": 1, "aggregator": 1}, id="one-partition"),
        pytest.param(7, {"ingest": 2, "detector": 1, "classifier": 3, "aggregator": 1}, id="seven-partitions-uneven"),
    ],
)
def test_all_clips_at_once(  # noqa: PLR0917
    clips: Path,
    tmp_path: Path,
    private_kafka: KafkaServer,
    private_redis: RedisServer,
    specs: list[StreamSpec],
    references: dict[str, bytes],
    partitions: int,
    workers: dict[str, int],
) -> None:
    """All clips share batches with each other, whatever the number of partitions and workers."""
    with Cluster(private_kafka.url, private_redis.url, clips, tmp_path, partitions=partitions) as cluster:
        for spec in specs:
            cluster.store.add(spec)
        cluster.start(workers)
        cluster.wait_until_final(specs, timeout_s=300)
        differing = [spec.stream_id for spec in specs if cluster.dump(spec) != references[spec.stream_id]]
        assert differing == []
        assert cluster.crashes == []
    assert len(set(references.values())) == len(specs), "timelines that are all alike would prove nothing"
