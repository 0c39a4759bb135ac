"""`moodline setup` on a real Kafka: creates, corrects, checks, and never deletes or deals again."""

from collections.abc import Iterator

import pytest
from confluent_kafka.admin import AdminClient, NewTopic
from typer.testing import CliRunner, Result

from moodline.services.cli.app import app
from moodline.shared.bus.kafka import KafkaBus
from moodline.shared.bus.retention import RETENTION
from moodline.shared.bus.topic_setup import inspect_topics, set_up_topics
from moodline.shared.errors import BusError, SettingsError
from moodline.shared.messages import ALL_TOPICS, DLQ_TOPIC, STREAMS_TOPIC, PipelineStep, StreamClass, topic
from tests.support.servers import KafkaServer, wait_until

FRAMES = topic(PipelineStep.FRAMES, StreamClass.LIVE)


@pytest.fixture
def bus(private_kafka: KafkaServer) -> Iterator[KafkaBus]:
    opened = KafkaBus(private_kafka.url, partitions=3)
    yield opened
    opened.close()


def create(bus: KafkaBus, server: KafkaServer, name: str, partitions: int, **config: str) -> None:
    """Make a topic by other means than Moodline's."""
    new = NewTopic(name, partitions, 1, config={key.replace("_", "."): value for key, value in config.items()})
    admin = AdminClient({"bootstrap.servers": server.servers})
    for future in admin.create_topics([new]).values():
        future.result()
    wait_until(lambda: name in bus.find_topics([name]), what=f"topic {name}")


@pytest.mark.kafka
def test_it_creates_what_is_missing_and_then_finds_everything_as_declared(bus: KafkaBus) -> None:
    assert inspect_topics(bus, ALL_TOPICS, 3).missing == ALL_TOPICS
    assert set_up_topics(bus, ALL_TOPICS, 3).missing == ALL_TOPICS
    for name, found in bus.find_topics(ALL_TOPICS).items():
        assert found.partitions == 3
        assert found.config["retention.ms"] == str(RETENTION[name].keep_s * 1000)
        assert found.config["retention.bytes"] == str(RETENTION[name].partition_bytes or -1)
        assert int(found.config["max.message.bytes"]) > 4 * 1024 * 1024
    again = set_up_topics(bus, ALL_TOPICS, 3)
    assert again.complete
    assert set(again.as_declared) == set(ALL_TOPICS)


@pytest.mark.kafka
def test_it_corrects_what_differs_and_keeps_what_is_not_its_own(bus: KafkaBus, private_kafka: KafkaServer) -> None:
    create(bus, private_kafka, FRAMES, 3, retention_ms="1000", cleanup_policy="delete", flush_ms="123456")
    create(bus, private_kafka, "others", 1, retention_ms="1000")
    producer = bus.open_producer()
    producer.send(FRAMES, b"key", b"kept")
    producer.flush()
    producer.close()

    report = set_up_topics(bus, ALL_TOPICS, 3)

    assert set(report.missing) == set(ALL_TOPICS) - {FRAMES}
    changed = {item.what: (item.found, item.declared) for item in report.different}
    assert changed["retention.ms"] == ("1000", "600000")
    assert {item.topic for item in report.different} == {FRAMES}
    assert inspect_topics(bus, ALL_TOPICS, 3).complete
    assert bus.find_topics([FRAMES])[FRAMES].config["flush.ms"] == "123456"
    assert bus.find_topics(["others"])["others"].config["retention.ms"] == "1000"


@pytest.mark.kafka
def test_another_number_of_partitions_changes_nothing_at_all(bus: KafkaBus, private_kafka: KafkaServer) -> None:
    create(bus, private_kafka, STREAMS_TOPIC, 5)
    create(bus, private_kafka, DLQ_TOPIC, 3, retention_ms="1000")
    with pytest.raises(BusError, match=f"{STREAMS_TOPIC} has 5") as caught:
        set_up_topics(bus, ALL_TOPICS, 3)
    assert "MOODLINE_BUS_PARTITIONS=3" in str(caught.value)
    found = bus.find_topics(ALL_TOPICS)
    assert {name: item.partitions for name, item in found.items()} == {STREAMS_TOPIC: 5, DLQ_TOPIC: 3}
    assert found[DLQ_TOPIC].config["retention.ms"] == "1000"


@pytest.mark.kafka
def test_the_command_says_what_it_did_and_check_changes_nothing(
    private_kafka: KafkaServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MOODLINE_BUS_URL", private_kafka.url)
    monkeypatch.setenv("MOODLINE_BUS_PARTITIONS", "2")

    def call(*arguments: str) -> Result:
        return CliRunner().invoke(app, ["setup", *arguments])

    before = call("--check")
    assert isinstance(before.exception, BusError)
    assert before.output.count("is missing; declared: 2 partitions") == len(ALL_TOPICS)
    made = call()
    assert made.exit_code == 0, made.output
    assert f"{FRAMES}: created: 2 partitions, retention.ms=600000, retention.bytes=1073741824" in made.output
    after = call("--check")
    assert after.exit_code == 0
    assert after.output.count(": as declared: ") == len(ALL_TOPICS)


def test_a_bus_of_one_process_needs_no_topics() -> None:
    assert isinstance(CliRunner().invoke(app, ["setup"]).exception, SettingsError)
