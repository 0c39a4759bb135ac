"""The containers that `kafka_server` and `redis_server` hand out where an engine answers: what tests rely on works in them."""

from collections.abc import Iterator

import pytest

from moodline.shared.bus import ConsumerSettings, open_bus
from moodline.shared.messages import DLQ_TOPIC
from moodline.shared.store import open_store
from tests.support.cluster import RETENTION
from tests.support.containers import kafka_container, redis_container
from tests.support.reference import synthetic_spec
from tests.support.servers import wait_until

pytestmark = pytest.mark.timeout(1200)  # the first to ask may have to wait for an engine to be made


@pytest.fixture
def kafka_url(engine: None) -> Iterator[str]:
    with kafka_container() as url:
        yield url


@pytest.fixture
def redis_url(engine: None) -> Iterator[str]:
    with redis_container() as url:
        yield url


def test_kafka_in_a_container_carries_records(kafka_url: str) -> None:
    bus = open_bus(kafka_url, partitions=3)
    bus.ensure_topics([DLQ_TOPIC])
    assert bus.partitions(DLQ_TOPIC) == 3
    producer = bus.open_producer()
    producer.send(DLQ_TOPIC, b"key", b"value")
    producer.flush()
    consumer = bus.open_consumer(ConsumerSettings(group="containers", topics=(DLQ_TOPIC,)))
    read: list[bytes] = []

    def arrived() -> bool:
        read.extend(record.value for record in consumer.poll(10, 0.2))
        return bool(read)

    wait_until(arrived, 30.0, "the record")
    assert read == [b"value"]
    consumer.close()
    producer.close()
    bus.close()


def test_redis_in_a_container_keeps_streams(redis_url: str) -> None:
    store = open_store(redis_url, RETENTION)
    store.add(synthetic_spec("yard", seconds=1, seed=1))
    assert [spec.stream_id for spec in store.list_streams()] == ["yard"]
    store.close()
