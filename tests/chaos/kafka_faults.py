"""Answers every kind of request to Kafka with errors that pass, at random and seeded, while workers read and write.

`python -m tests.chaos.kafka_faults SEED SECONDS` is one run, in a process of its own: see `test_kafka_faults.py`. What the client
library logs of its groups goes to standard error as it happens. An even seed makes a storm, with an error every 0.2 s; an odd one
lets up to 2.5 s pass between them.
"""

import argparse
import random
import time
from collections import Counter
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

import confluent_kafka
from confluent_kafka import KafkaError, TopicPartition

from moodline.shared.bus import Consumer, ConsumerSettings, Position, Producer, kafka_membership
from moodline.shared.bus.kafka import KafkaBus
from moodline.shared.errors import BusFullError, DeliveryError, NotDeliveredYetError
from moodline.shared.log import configure_logging
from tests.support.mock_kafka import Api, MockKafka

STANDSTILL_S = 30.0
PARTITIONS = 4
BROKERS = 3
TOPIC, GROUP = "chaos", "workers"
SESSION_MS = 2500
"""The imitated coordinator waits a session less a second for each round of a rebalance, also when all members are there."""

IN_FLIGHT = 1
"""Requests of the producer at a time, not five as in production.

An idempotent producer takes the success of a request as that of the one before, because brokers refuse records out of order.
The imitated one takes them: 24 of 480,000 acknowledged records were on no partition; with one request at a time, none of 390,000.
"""

_COORDINATOR = (
    KafkaError.NOT_COORDINATOR,
    KafkaError.COORDINATOR_NOT_AVAILABLE,
    KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
)
_MEMBER = (*_COORDINATOR, KafkaError.REBALANCE_IN_PROGRESS, KafkaError.UNKNOWN_MEMBER_ID, KafkaError.ILLEGAL_GENERATION)
_LEADER = (KafkaError.NOT_LEADER_FOR_PARTITION, KafkaError.LEADER_NOT_AVAILABLE, KafkaError.UNKNOWN_TOPIC_OR_PART)
_ANY = (KafkaError.REQUEST_TIMED_OUT, KafkaError._TRANSPORT)
"""An answer that never comes is a connection that breaks: `_TRANSPORT` makes the imitated broker close it."""

FAULTS: dict[Api, tuple[int, ...]] = {
    Api.FIND_COORDINATOR: (*_COORDINATOR[1:], *_ANY),
    Api.JOIN_GROUP: (*_COORDINATOR, *_ANY),
    Api.SYNC_GROUP: (*_MEMBER, *_ANY),
    Api.HEARTBEAT: (*_MEMBER, *_ANY),
    Api.OFFSET_FETCH: (*_COORDINATOR, KafkaError.UNSTABLE_OFFSET_COMMIT, *_ANY),
    Api.OFFSET_COMMIT: (*_MEMBER, *_ANY),
    Api.LIST_OFFSETS: (*_LEADER, KafkaError.OFFSET_NOT_AVAILABLE, *_ANY),
    Api.FETCH: (*_LEADER, KafkaError.FENCED_LEADER_EPOCH, KafkaError.UNKNOWN_LEADER_EPOCH, *_ANY),
    Api.METADATA: (KafkaError.LEADER_NOT_AVAILABLE, *_ANY),
    Api.PRODUCE: (*_LEADER[:1], KafkaError.NOT_ENOUGH_REPLICAS, KafkaError.NOT_ENOUGH_REPLICAS_AFTER_APPEND, *_ANY),
    Api.INIT_PRODUCER_ID: (KafkaError.COORDINATOR_LOAD_IN_PROGRESS, *_ANY),
}


@dataclass
class Run:
    """What one run has seen."""

    seed: int
    sent: int = 0
    unsure: int = 0
    read: Counter[int] = field(default_factory=Counter)
    by_fault: dict[str, float] = field(default_factory=dict)
    longest_s: float = 0.0
    moved_s: float = field(default_factory=time.monotonic)
    faults: int = 0
    reopened: int = 0
    last_fault: str = "none"

    def moved(self, *, idle: bool) -> None:
        """Note that records came, or that there are none to come."""
        now_s = time.monotonic()
        stood_s = now_s - self.moved_s
        if not idle:
            self.longest_s = max(self.longest_s, stood_s)
            self.by_fault[self.last_fault] = max(self.by_fault.get(self.last_fault, 0.0), stood_s)
        self.moved_s = now_s

    def stands(self) -> None:
        stood_s = time.monotonic() - self.moved_s
        assert stood_s < STANDSTILL_S, f"nothing has moved for {stood_s:.0f} s after {self.last_fault}, seed {self.seed}: {self}"


def inject(cluster: MockKafka, dice: random.Random, run: Run) -> None:
    """Put one to three errors of a kind into the queue, and now and then let a leader move."""
    api = dice.choice(list(FAULTS))
    errors = [dice.choice(FAULTS[api]) for _ in range(dice.randint(1, 3))]
    cluster.clear_errors(api)  # else requests that are seldom made would gather errors without end
    cluster.push_errors(api, errors)
    run.faults += len(errors)
    run.last_fault = api.name
    if dice.random() < 0.1:
        cluster.move_leader(TOPIC, dice.randrange(PARTITIONS), dice.randint(1, BROKERS))


def send(producer: Producer, run: Run) -> None:
    """Send ten records and make sure of those before. What was lost is sent again, as a worker does."""
    batch = range(run.sent, run.sent + 10)
    for number in batch:
        while True:
            try:
                producer.send(TOPIC, f"key-{number % 16}".encode(), f"{number}".encode())
            except BusFullError:
                run.stands()
            else:
                break
    try:
        producer.flush(0.05)
    except NotDeliveredYetError:
        pass
    except DeliveryError:
        run.unsure += len(batch)
        return
    run.sent = batch.stop


def take(consumer: Consumer, run: Run) -> int:
    """Poll once and commit what came."""
    records = consumer.poll(100, 0.05)
    for record in records:
        run.read[int(record.value)] += 1
    last: dict[int, Position] = {record.position.partition: record.position for record in records}
    consumer.commit(last.values())
    return len(records)


def settle(consumers: list[Consumer], run: Run) -> None:
    """Poll until the group has all that was read: what is only on its way may rightly come again."""
    while {key: offset for consumer in consumers for key, offset in consumer.committed().items()} != (
        ends := {key: end for consumer in consumers for key, end in consumer.ends().items()}
    ) or len(ends) < PARTITIONS:
        for consumer in consumers:
            take(consumer, run)
        run.stands()


def explain(cluster: MockKafka, consumers: list[Consumer], missing: list[int]) -> str:
    """Tell records that were never read: whether they are on the bus, and where the group thinks that it is."""
    with closing(confluent_kafka.Consumer({"bootstrap.servers": cluster.servers, "group.id": "explain"})) as reader:
        reader.assign([TopicPartition(TOPIC, partition, 0) for partition in range(PARTITIONS)])
        found, quiet = {}, 0
        while quiet < 5:
            message = reader.poll(1.0)
            quiet += message is None
            if message is not None and message.value() is not None and int(message.value()) in missing:
                found[int(message.value())] = (message.partition(), message.offset())
    places = [(one.committed(), one.ends(), one.standing()) for one in consumers]
    return f"{len(missing)} records were never read: {missing[:20]}; on the bus at {found}; committed, ends, standing: {places}"


def log_groups_at_once() -> None:
    """Let the client library itself write what it logs of its groups: a queued line is lost when the process crashes."""
    open_client = kafka_membership.open_client

    def opened(factory: Any, config: dict[str, Any], address: Any) -> Any:
        kept = {name: value for name, value in config.items() if name != "logger"}
        return open_client(factory, {**kept, "debug": "cgrp"}, address)

    kafka_membership.open_client = opened


def disturb(seed: int, length_s: float) -> None:
    """Run once.

    Raises:
        AssertionError: something stood still, was lost, or came again.
    """
    run, dice = Run(seed), random.Random(seed)
    pause_s = (0.1, 0.7) if seed % 2 == 0 else (0.5, 2.5)

    def reopened(_topic: str) -> None:
        run.reopened += 1

    with MockKafka(BROKERS) as cluster:
        cluster.create_topic(TOPIC, PARTITIONS)
        url = f"{cluster.url}?session.timeout.ms={SESSION_MS}&max.in.flight={IN_FLIGHT}"
        bus = KafkaBus(url, PARTITIONS, on_reopened=reopened, send_timeout_s=1.0)
        settings = ConsumerSettings(GROUP, (TOPIC,), heartbeat_ms=500)
        with closing(bus), closing(bus.open_producer()) as producer:
            consumers = [bus.open_consumer(settings) for _ in range(2)]
            end_s = time.monotonic() + length_s
            due_s, rejoin_s = time.monotonic(), time.monotonic() + 5
            while time.monotonic() < end_s:
                if time.monotonic() > due_s:
                    inject(cluster, dice, run)
                    due_s = time.monotonic() + dice.uniform(*pause_s)
                # Assignments are where most of it hides: a member comes, another goes; not before the last one was let in.
                if time.monotonic() > rejoin_s and consumers[-1].assignment():
                    consumers.pop(0).close()
                    consumers.append(bus.open_consumer(settings))
                    rejoin_s = time.monotonic() + dice.uniform(6, 12)
                send(producer, run)
                if sum(take(consumer, run) for consumer in consumers):
                    run.moved(idle=False)
                run.stands()
            for api in FAULTS:
                cluster.clear_errors(api)
            try:
                producer.flush(STANDSTILL_S)
            except NotDeliveredYetError as error:
                raise AssertionError(f"seed {seed}: the producer stands still: {error}") from None
            wanted = set(range(run.sent))
            while not wanted <= run.read.keys():
                if sum(take(consumer, run) for consumer in consumers):
                    run.moved(idle=False)
                missing = sorted(wanted - run.read.keys())
                assert time.monotonic() - run.moved_s < STANDSTILL_S, explain(cluster, consumers, missing)
            settle(consumers, run)
            for consumer in consumers:
                consumer.close()
            with closing(bus.open_consumer(settings)) as last:
                deadline_s = time.monotonic() + 20
                while len(last.assignment()) < PARTITIONS and time.monotonic() < deadline_s:
                    assert last.poll(100, 0.1) == [], "what was committed comes again"
                quiet_s = time.monotonic() + 2
                while time.monotonic() < quiet_s:
                    assert last.poll(100, 0.1) == [], "what was committed comes again"
    twice = sum(1 for count in run.read.values() if count > 1)
    worst = ", ".join(f"{name} {stood_s:.1f} s" for name, stood_s in sorted(run.by_fault.items(), key=lambda item: -item[1]))
    print(  # noqa: T201  # the table of a long run
        f"seed {seed}, {length_s:.0f} s: {run.faults} faults, {run.sent} records, {twice} read twice, "
        f"{run.reopened} clients replaced, longest standstill {run.longest_s:.1f} s\nlongest standstill after: {worst}"
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("seed", type=int)
    parser.add_argument("seconds", type=float)
    arguments = parser.parse_args()
    configure_logging("info", "json")
    log_groups_at_once()
    disturb(arguments.seed, arguments.seconds)
