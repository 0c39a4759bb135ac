"""Topics get another number of partitions, as docs/operations.md says how: files go on, timelines stay whole."""

import time
from pathlib import Path

import pytest
from confluent_kafka.admin import AdminClient
from msgspec.structs import replace

from moodline.services.analysis.analyze import run_analysis
from moodline.shared.messages import ALL_TOPICS
from moodline.shared.settings import DetectorSettings
from moodline.shared.store.base import dump
from moodline.shared.streams import StreamState
from moodline.shared.timeline import TIERS_S
from tests.support.cluster import Cluster
from tests.support.reference import reference_settings, synthetic_spec
from tests.support.servers import KafkaServer, RedisServer, wait_until

pytestmark = [pytest.mark.kafka, pytest.mark.redis, pytest.mark.slow, pytest.mark.timeout(300)]

SECONDS = 8
SMALL = DetectorSettings(threads=1, side_px=160)


def delete_topics(kafka: KafkaServer) -> None:
    admin = AdminClient({"bootstrap.servers": kafka.servers, "log_level": 0})
    for done in admin.delete_topics(list(ALL_TOPICS)).values():
        done.result(30)
    wait_until(lambda: not set(ALL_TOPICS) & set(admin.list_topics(timeout=5).topics), 30, "topics going away")


def test_another_number_of_partitions(tmp_path: Path, private_kafka: KafkaServer, private_redis: RedisServer) -> None:
    specs = [synthetic_spec(f"clip-{number}", SECONDS, number) for number in range(2)]
    settings = reference_settings(tmp_path).model_copy(update={"detector": SMALL})
    references = []
    for spec in specs:
        with run_analysis(settings, spec) as analysis:
            references.append(dump(analysis.store, spec.stream_id, TIERS_S))
    env = {"MOODLINE_DETECTOR_SIDE_PX": str(SMALL.side_px), "MOODLINE_INGEST_CREDIT_FRAMES": "16"}
    names = [spec.stream_id for spec in specs]

    with Cluster(private_kafka.url, private_redis.url, tmp_path, tmp_path, partitions=4, env=env) as before:
        for spec in specs:
            before.store.add(spec)
        before.start(1)

        def high_water_marks() -> list[int]:
            return [item.high_water_mark.seq if item and item.high_water_mark else -1 for item in before.store.load(names)]

        wait_until(lambda: min(high_water_marks()) > 20, 60, "files under way")
        for name in names:
            before.store.replace(replace(before.store.get(name), paused=True))
        wait_until(lambda: {status.state for status in before.store.statuses(names)} == {StreamState.PAUSED}, 30, "a pause")
        seen: list[list[int]] = []

        def drained() -> bool:
            seen.append(high_water_marks())
            time.sleep(0.3)
            return len(seen) > 5 and seen[-5] == seen[-1]

        wait_until(drained, 30, "nothing being under way")
        assert max(seen[-1]) < SECONDS * 25 - 1, "the files ended before anything was changed"
        for worker in list(before.workers):
            assert before.stop(worker) == 0

    delete_topics(private_kafka)

    with Cluster(private_kafka.url, private_redis.url, tmp_path, tmp_path, partitions=7, env=env) as after:
        after.start(2)
        for name in names:
            after.store.replace(replace(after.store.get(name), paused=False))
        after.wait_until_final(specs, 120)
        assert [after.dump(spec) for spec in specs] == references
        assert after.crashes == []
