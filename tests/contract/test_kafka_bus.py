"""What only Kafka can show: brokers that are away, come back, or never were; members that are removed from the group."""

import threading
import time
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest
from confluent_kafka import ConsumerGroupState, KafkaException
from confluent_kafka.admin import AdminClient

from moodline.shared.bus import Bus, open_bus
from moodline.shared.bus.kafka import KafkaBus
from moodline.shared.errors import BusFullError, BusUnavailableError, DeliveryError, NotDeliveredYetError
from tests.contract.bus_bench import PARTITIONS, Bench, poll_until, records_of
from tests.support.servers import KafkaServer, free_port

pytestmark = pytest.mark.kafka


@pytest.fixture
def private_bench(private_kafka: KafkaServer) -> Iterator[Bench]:
    bus: Bus = KafkaBus(private_kafka.url, partitions=PARTITIONS, send_timeout_s=0.5)
    with Bench(bus) as bench:
        yield bench


def test_no_broker_is_a_clear_error_in_bounded_time() -> None:
    port = free_port()
    bus = KafkaBus(f"kafka://127.0.0.1:{port}?sasl.password=hunter2", partitions=1, startup_timeout_s=1.0)
    started = time.monotonic()
    with pytest.raises(BusUnavailableError, match=f"kafka://127.0.0.1:{port} .*is Kafka running") as caught:
        bus.ensure_topics(["t"])
    assert time.monotonic() - started < 10
    assert "hunter2" not in str(caught.value)


def test_every_thread_that_shares_a_producer_hears_of_a_loss() -> None:
    bus = KafkaBus(f"kafka://127.0.0.1:{free_port()}?message.timeout.ms=300", partitions=1)
    producer = bus.open_producer()
    sent, told = threading.Barrier(2), threading.Barrier(2)
    errors: dict[str, list[DeliveryError]] = {"a": [], "b": []}

    def use(topic: str) -> None:
        producer.send(topic, b"key", b"value")
        sent.wait()
        for _ in range(2):
            try:
                producer.flush(10.0)
            except DeliveryError as error:
                errors[topic].append(error)
            told.wait()

    threads = [threading.Thread(target=use, args=(topic,)) for topic in errors]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [len(errors["a"]), len(errors["b"])] == [1, 1], "each once"
    assert "a" in errors["a"][0].topics
    assert "b" in errors["b"][0].topics
    with pytest.raises(DeliveryError, match="lost"):
        producer.flush()  # one who flushes for others hears, too
    producer.flush()
    producer.close()
    bus.close()


def test_ensure_topics_waits_for_a_broker_that_is_coming_up(private_kafka: KafkaServer) -> None:
    private_kafka.kill()
    bus = KafkaBus(private_kafka.url, partitions=2)
    starting = private_kafka.start_soon(1.0)
    bus.ensure_topics(["t"])
    starting.join()
    assert bus.partitions("t") == 2
    bus.close()


def test_a_killed_and_restarted_broker_loses_nothing(private_kafka: KafkaServer, private_bench: Bench) -> None:
    topic = private_bench.topic()
    consumer = private_bench.consumer(topic, group="workers")
    producer = private_bench.bus.open_producer()
    for number in range(50):
        producer.send(topic, b"key", f"{number}".encode())
    producer.flush()
    first = records_of(consumer, 50)
    consumer.commit([first[29].position])
    private_kafka.kill()
    assert consumer.poll(10, 0.5) == []
    for number in range(50, 100):
        producer.send(topic, b"key", f"{number}".encode())
    with pytest.raises(NotDeliveredYetError) as caught:
        producer.flush(0.5)
    assert caught.value.topics == {topic}
    private_kafka.start()
    producer.flush()
    seen: list[int] = []
    poll_until([consumer], lambda: 99 in seen, collect=lambda record: seen.append(int(record.value)))
    # A broker that was away for longer than the session lets the consumer start from its commit again.
    assert seen in (list(range(50, 100)), list(range(30, 100)))
    consumer.commit([first[39].position])
    consumer.close()
    again = records_of(private_bench.consumer(topic, group="workers"), 60)
    assert [int(record.value) for record in again] == list(range(40, 100)), "committed after the restart"
    producer.close()


def test_a_frozen_broker_pushes_back_and_a_commit_says_so(private_kafka: KafkaServer, private_bench: Bench) -> None:
    topic = private_bench.topic()
    private_bench.send(topic, 5, key=b"key")
    consumer = private_bench.consumer(topic)
    position = records_of(consumer, 5)[-1].position
    producer = private_bench.bus.open_producer()
    private_kafka.pause()
    value, sent = bytes(1024 * 1024), 0
    try:
        while True:
            producer.send(topic, b"key", value)
            sent += 1
    except BusFullError:
        pass
    assert 16 <= sent <= 40, "the queue is bounded in bytes"
    private_kafka.resume()
    producer.flush()
    consumer.commit([position])
    assert len(records_of(consumer, sent)) == sent
    producer.close()


@pytest.mark.parametrize("away", ["killed", "frozen"])
def test_a_commit_never_waits_and_close_gives_up_when_the_broker_stays_away(
    away: str, private_kafka: KafkaServer, private_bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("moodline.shared.bus.kafka_membership._CLOSE_S", 1.0)
    topic = private_bench.topic()
    private_bench.send(topic, 5, key=b"key")
    consumer = private_bench.consumer(topic, group="workers")
    positions = [record.position for record in records_of(consumer, 5)]
    (private_kafka.kill if away == "killed" else private_kafka.pause)()
    for position in positions[:2]:
        started = time.monotonic()
        consumer.commit([position])
        assert time.monotonic() - started < 0.5
        assert consumer.poll(1, 0.1) == []
    assert set(consumer.committed().values()) == {0}, "the bus has not taken them"
    started = time.monotonic()
    consumer.close()
    assert time.monotonic() - started < 5


def test_a_commit_goes_through_once_the_broker_is_back(private_kafka: KafkaServer, private_bench: Bench) -> None:
    topic = private_bench.topic()
    private_bench.send(topic, 5, key=b"key")
    consumer = private_bench.consumer(topic, group="workers")
    positions = [record.position for record in records_of(consumer, 5)]
    private_kafka.pause()
    consumer.commit([positions[1]])
    assert consumer.poll(1, 0.2) == []
    private_kafka.resume()
    consumer.commit([positions[3]])
    poll_until([consumer], lambda: consumer.committed().get(positions[3][:2]) == 4)
    consumer.close()
    again = private_bench.consumer(topic, group="workers")
    assert [record.position for record in records_of(again, 1)] == positions[4:]


def test_a_member_that_was_given_nothing_leaves_its_group_at_once(request: pytest.FixtureRequest) -> None:
    """The client library closes such a member without leaving; its group would wait for it until the session ends, 8 s."""
    url = request.getfixturevalue("kafka_server").url
    admin = AdminClient({"bootstrap.servers": urlsplit(url).netloc})
    with Bench(open_bus(url, partitions=1)) as bench:
        topic = bench.topic()
        group = f"{bench.group('workers')}.{topic}"

        def members() -> int:
            try:
                described = admin.describe_consumer_groups([group], request_timeout=5)[group].result()
            except KafkaException:  # while the group's coordinator starts
                return 0
            return len(described.members) if described.state == ConsumerGroupState.STABLE else 0

        owner, idle = (bench.consumer(topic, group="workers") for _ in range(2))
        poll_until([owner, idle], lambda: members() == 2 and len(owner.assignment() | idle.assignment()) == 1)
        if idle.assignment():
            owner, idle = idle, owner
        idle.close()
        closed_s = time.monotonic()
        poll_until([owner], lambda: members() == 1)
        assert time.monotonic() - closed_s < 6


def test_a_member_that_was_put_out_commits_nothing_and_joins_again(request: pytest.FixtureRequest) -> None:
    url = request.getfixturevalue("kafka_server").url
    joint = "&" if "?" in url else "?"
    bus = open_bus(f"{url}{joint}session.timeout.ms=6000&max.poll.interval.ms=6000", partitions=PARTITIONS)
    with Bench(bus) as bench:
        topic = bench.topic()
        bench.send(topic, 40)
        revoked: list[tuple[str, int]] = []
        silent = bench.consumer(topic, group="workers", on_revoked=revoked.extend)
        mine = records_of(silent, 40)
        other = bench.consumer(topic, group="workers")
        taken = poll_until([other], lambda: len(other.assignment()) == PARTITIONS)
        taken += records_of(other, 40 - len(taken)) if len(taken) < 40 else []
        assert {record.position for record in taken} == {record.position for record in mine}
        assert revoked == [], "it hears of it in its next poll"
        silent.commit([record.position for record in mine])
        poll_until([silent, other], lambda: len(silent.assignment()) == len(other.assignment()) == PARTITIONS // 2)
        assert {partition for _, partition in revoked} == set(range(PARTITIONS))
        silent.close()
        other.close()
        assert len(records_of(bench.consumer(topic, group="workers"), 40)) == 40, "its commit was ignored"
