"""What a client library swallows: Kafka answers a request with an error, once or for a while, and records come all the same."""

import time
from collections.abc import Iterator

import pytest
from confluent_kafka import KafkaError

from moodline.shared.bus import Consumer, Position, Producer
from moodline.shared.bus.kafka import KafkaBus
from moodline.shared.errors import DeliveryError
from tests.contract.bus_bench import PARTITIONS, Bench
from tests.support.mock_kafka import Api, MockKafka

pytestmark = pytest.mark.kafka

BOUND_S = 20.0
SESSION_MS = 2500
"""The imitated coordinator waits a session less a second for each round of a rebalance, also when all members are there."""


@pytest.fixture
def cluster() -> Iterator[MockKafka]:
    with MockKafka(brokers=1) as cluster:
        yield cluster


@pytest.fixture
def replaced() -> list[str]:
    """Names of the clients that were replaced."""
    return []


@pytest.fixture
def fault_bench(cluster: MockKafka, replaced: list[str]) -> Iterator[Bench]:
    bus = KafkaBus(f"{cluster.url}?session.timeout.ms={SESSION_MS}", partitions=PARTITIONS, on_reopened=replaced.append)
    with Bench(bus, creator=lambda name: cluster.create_topic(name, PARTITIONS)) as bench:
        yield bench


def values_within(consumer: Consumer, count: int, bound_s: float) -> list[int]:
    """Poll until as many records came, or the time is over; return their numbers in order."""
    values: list[int] = []
    deadline_s = time.monotonic() + bound_s
    while len(values) < count and time.monotonic() < deadline_s:
        values += [int(record.value) for record in consumer.poll(100, 0.2)]
    return sorted(values)


def flush_one(producer: Producer, topic: str) -> None:
    """Send a record and make sure of it."""
    producer.send(topic, b"key", b"1")
    producer.flush(10)


@pytest.mark.parametrize("times", [1, 5])
def test_offset_fetch_answered_with_not_coordinator(cluster: MockKafka, fault_bench: Bench, times: int) -> None:
    """librdkafka does not ask again (its issue 5586): the consumer owned its partitions and never fetched."""
    topic = fault_bench.topic()
    fault_bench.send(topic, 20)
    cluster.push_errors(Api.OFFSET_FETCH, [KafkaError.NOT_COORDINATOR] * times)
    consumer = fault_bench.consumer(topic)
    assert values_within(consumer, 20, BOUND_S) == list(range(20))


@pytest.mark.parametrize(
    ("api", "code"),
    [
        (Api.PRODUCE, KafkaError.OUT_OF_ORDER_SEQUENCE_NUMBER),
        (Api.INIT_PRODUCER_ID, KafkaError.CLUSTER_AUTHORIZATION_FAILED),
    ],
)
def test_a_producer_that_has_failed_for_good_is_replaced(
    cluster: MockKafka, fault_bench: Bench, replaced: list[str], api: Api, code: int
) -> None:
    """The failure is a loss that the sender hears of, never the library's own exception; what is sent next arrives."""
    topic = fault_bench.topic()
    with fault_bench.sending() as producer:
        if api is Api.PRODUCE:
            producer.send(topic, b"key", b"0")
            producer.flush(10)
        cluster.push_errors(api, [code])
        with pytest.raises(DeliveryError):
            flush_one(producer, topic)
        assert replaced == ["producer"]
        producer.send(topic, b"key", b"2")
    assert 2 in values_within(fault_bench.consumer(topic), 2 if api is Api.PRODUCE else 1, BOUND_S)


@pytest.mark.parametrize("code", [KafkaError.INVALID_PRODUCER_EPOCH, KafkaError.CLUSTER_AUTHORIZATION_FAILED])
def test_a_batch_that_the_broker_refuses_is_a_loss_that_the_sender_hears_of(
    cluster: MockKafka, fault_bench: Bench, code: int
) -> None:
    topic = fault_bench.topic()
    fault_bench.send(topic, 1)
    cluster.push_errors(Api.PRODUCE, [code])
    with pytest.raises(DeliveryError, match="lost on their way"):
        fault_bench.send(topic, 1)
    fault_bench.send(topic, 1)


@pytest.mark.parametrize(
    "code",
    [KafkaError.UNKNOWN_MEMBER_ID, KafkaError.ILLEGAL_GENERATION, KafkaError.NOT_COORDINATOR, KafkaError.REQUEST_TIMED_OUT],
)
def test_commits_that_are_refused_for_a_while_are_sent_again(cluster: MockKafka, fault_bench: Bench, code: int) -> None:
    topic = fault_bench.topic()
    fault_bench.send(topic, 20)
    consumer = fault_bench.consumer(topic)
    assert values_within(consumer, 20, BOUND_S) == list(range(20))
    wanted = consumer.ends()
    cluster.push_errors(Api.OFFSET_COMMIT, [code] * 2)
    deadline_s = time.monotonic() + BOUND_S
    consumer.commit([Position(topic, partition, end - 1) for (_, partition), end in wanted.items()])
    while dict(consumer.committed()) != wanted and time.monotonic() < deadline_s:
        for record in consumer.poll(100, 0.2):
            consumer.commit([record.position])
    assert dict(consumer.committed()) == wanted


def test_a_client_that_fetches_nothing_more_is_replaced(cluster: MockKafka, fault_bench: Bench, replaced: list[str]) -> None:
    """Another client sees that there is more to read. Nothing in this one tells, so only a new one helps."""
    topic = fault_bench.topic()
    fault_bench.send(topic, 20)
    consumer = fault_bench.consumer(topic)
    assert values_within(consumer, 20, BOUND_S) == list(range(20))
    cluster.push_errors(Api.FETCH, [KafkaError.NOT_LEADER_FOR_PARTITION] * 2000)
    fault_bench.send(topic, 20)
    deadline_s = time.monotonic() + 2 * BOUND_S
    while not replaced and time.monotonic() < deadline_s:
        consumer.poll(100, 0.2)
    assert replaced == [topic]
    cluster.clear_errors(Api.FETCH)
    came = values_within(consumer, 40, BOUND_S)
    assert set(range(20)) <= set(came), "read again from what was committed: nothing"
