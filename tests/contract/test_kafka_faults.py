"""What a client library swallows: Kafka answers a request with an error, once or for a while, and records come all the same."""

import time
from collections.abc import Iterator

import pytest
from confluent_kafka import KafkaError

from moodline.shared.bus import Consumer
from moodline.shared.bus.kafka import KafkaBus
from tests.contract.bus_bench import PARTITIONS, Bench
from tests.support.mock_kafka import Api, MockKafka

pytestmark = pytest.mark.kafka

BOUND_S = 20.0


@pytest.fixture
def cluster() -> Iterator[MockKafka]:
    with MockKafka(brokers=1) as cluster:
        yield cluster


@pytest.fixture
def fault_bench(cluster: MockKafka) -> Iterator[Bench]:
    bus = KafkaBus(cluster.url, partitions=PARTITIONS)
    with Bench(bus, creator=lambda name: cluster.create_topic(name, PARTITIONS)) as bench:
        yield bench


def values_within(consumer: Consumer, count: int, bound_s: float) -> list[int]:
    """Poll until as many records came, or the time is over; return their numbers in order."""
    values: list[int] = []
    deadline_s = time.monotonic() + bound_s
    while len(values) < count and time.monotonic() < deadline_s:
        values += [int(record.value) for record in consumer.poll(100, 0.2)]
    return sorted(values)


@pytest.mark.parametrize("times", [1, 5])
def test_offset_fetch_answered_with_not_coordinator(cluster: MockKafka, fault_bench: Bench, times: int) -> None:
    """librdkafka does not ask again (its issue 5586): the consumer owned its partitions and never fetched."""
    topic = fault_bench.topic()
    fault_bench.send(topic, 20)
    cluster.push_errors(Api.OFFSET_FETCH, [KafkaError.NOT_COORDINATOR] * times)
    consumer = fault_bench.consumer(topic)
    assert values_within(consumer, 20, BOUND_S) == list(range(20))
